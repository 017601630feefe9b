"""The page, health, readiness and the document."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_health_and_readiness(scripted, scripted_server):
    assert scripted_server.get("/health").json == scripted_server.get("/ready").json == {"status": "ok"}
    scripted.waiting = 64
    answer = scripted_server.get("/ready")
    assert answer.status == 503 and answer.error["code"] == "busy" and answer.headers["retry-after"]
    scripted.waiting = 63
    assert scripted_server.get("/ready").status == 200


def test_the_page_names_every_route_and_loads_nothing_from_elsewhere(server):
    answer = server.get("/")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    page, paths = answer.body.decode(), server.get("/openapi.json").json["paths"]
    assert [path for path in paths if path not in page and "{" not in path] == []
    assert re.findall(r"https?://", page) == [] and "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_the_document_describes_our_fields(server):
    document = server.get("/openapi.json").json
    assert {"seed", "guidance_scale", "cfg_weight", "steps", "progress"} <= set(
        document["components"]["schemas"]["ImageRequest"]["properties"]
    )
    assert "image_weight" in document["components"]["schemas"]["EditRequest"]["properties"]
    generations = document["paths"]["/v1/images/generations"]["post"]["responses"]
    assert "422" not in generations and {"200", "400", "413", "429", "503", "504"} <= set(generations)
    assert not any("422" in each["responses"] for path in document["paths"].values() for each in path.values())


def test_the_guide_names_every_option_and_metric(server):
    from janus_runtime.cli.serve import serve

    guide = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    options = [name for option in serve.params for name in option.opts]
    assert [name for name in options if name.startswith("--") and f"`{name}" not in guide] == []
    metrics = re.findall(r"^# TYPE (\w+)", server.get("/metrics").body.decode(), re.M)
    assert [name for name in metrics if f"`{name}`" not in guide and not name.endswith("_created")] == []

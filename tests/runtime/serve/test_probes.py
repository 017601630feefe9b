"""The page, health, readiness and the document."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "janus_runtime" / "serve" / "page"


def test_health_and_readiness(scripted, scripted_server):
    assert scripted_server.get("/health").json == scripted_server.get("/ready").json == {"status": "ok"}
    scripted.waiting = 64
    answer = scripted_server.get("/ready")
    assert answer.status == 503 and answer.error["code"] == "busy" and answer.headers["retry-after"]
    scripted.waiting = 63
    assert scripted_server.get("/ready").status == 200


def test_the_page_brings_all_of_it_and_is_small(server):
    """That it works is shown in a browser: the folder page."""
    answer = server.get("/")
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
    files, size = re.findall(r'(?:src|href)="([^"]+)"', answer.body.decode()), len(answer.body)
    assert {"page/main.js", "page/page.css"} <= set(files)
    for name in files:
        part = server.get(f"/{name}")
        imported = [f"page/{each}" for each in re.findall(r'from "\./([^"]+)"', part.body.decode())]
        files.extend(each for each in imported if each not in files)
        assert (
            part.status == 200
            and part.headers["content-security-policy"] == policy
            and not re.search(rb"https?://(?!www.w3.org/2000/svg)", part.body)
        )
        assert part.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/svg+xml")
        size += len(part.body)
    assert {f"page/{path.name}" for path in PAGE.iterdir()} == {*files, "page/index.html"}
    assert size < 150_000


def test_a_part_of_the_page_that_has_not_changed_is_not_sent_again(server):
    tag = server.get("/page/main.js").headers["etag"]
    again = server.ask("GET", "/page/main.js", headers={"if-none-match": tag})
    assert again.status == 304 and not again.body
    assert server.get("/page/absent.js").status == server.get("/page/..%2fapp.py").status == 404


def test_the_document_describes_our_fields(server):
    document = server.get("/openapi.json").json
    assert {"seed", "guidance_scale", "cfg_weight", "solver", "steps", "progress"} <= set(
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

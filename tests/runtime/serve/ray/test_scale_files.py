"""The files of docs/scale are what Ray, KubeRay and Grafana take, as far as can be told here."""

import json
import re
from pathlib import Path

import pytest
from ray.serve.schema import ServeDeploySchema

from janus_runtime.decoding.scheduler import Status
from janus_runtime.serve.metrics import Metrics, status_families
from janus_runtime.serve.ray.arguments import Arguments

yaml = pytest.importorskip("yaml", reason="PyYAML, which Ray needs too, is not installed: pip install pyyaml")
DOCS = Path(__file__).resolve().parents[4] / "docs"
OF_RAY = {"janus_model_replicas", "janus_ingress_replicas", "janus_repeats_total", "janus_kept_calls_total", "janus_spilled_calls_total"}


def read(name):
    return yaml.safe_load((DOCS / "scale" / name).read_text(encoding="utf-8"))


def check_config(config):
    parsed = ServeDeploySchema.model_validate(config)
    (application,) = parsed.applications
    assert application.import_path == "janus_runtime.serve.ray:app"
    return Arguments.model_validate(application.args)


def test_the_manifest_of_kubernetes():
    manifest = read("kuberay.yaml")
    arguments = check_config(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (workers,) = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > arguments.grace
    assert (workers["minReplicas"], workers["maxReplicas"]) == (arguments.replicas, arguments.max_replicas)
    assert float(pod["containers"][0]["resources"]["limits"]["cpu"]) >= arguments.cpus
    assert str(arguments.bundle).startswith(pod["containers"][0]["volumeMounts"][0]["mountPath"])


def test_the_configuration_in_the_page():
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    (config,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "import_path" in block]
    assert check_config(yaml.safe_load(config)).replicas == 2


def test_the_page_names_every_argument():
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert [name for name in Arguments.model_fields if f"`{name}`" not in page] == []


def test_the_dashboard_asks_for_metrics_that_there_are():
    status = Status(0, 0, 0, 8, 0, 1, 100, 0, 0, 0, 0)
    names = set(OF_RAY)
    for family in (*Metrics("model").families(), *status_families(status, "model")):
        names |= {
            f"{family.name}{end}" for end in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        }
    dashboard = json.loads((DOCS / "scale" / "grafana.json").read_text(encoding="utf-8"))
    asked = {name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"janus_\w+", target["expr"])}
    assert len(dashboard["panels"]) == 12 and asked <= names
    assert len({panel["id"] for panel in dashboard["panels"]}) == 12


def test_prometheus_scrapes_the_application():
    assert {job["job_name"]: job.get("metrics_path", "/metrics") for job in read("prometheus.yaml")["scrape_configs"]} == {
        "janus": "/metrics",
        "ray": "/metrics",
    }

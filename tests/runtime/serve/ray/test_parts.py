"""Arguments, health, scaling, metrics and what is pickled."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from prometheus_client.core import CounterMetricFamily

from janus_runtime.decoding.scheduler import Status
from janus_runtime.errors import Busy, DeadlineExceeded, JanusError, NumericalError, OutOfMemory, PromptError, ReplicaLost
from janus_runtime.pictures.image import fit, preprocess
from janus_runtime.prompt import Message
from janus_runtime.serve.api_error import run_error
from janus_runtime.serve.metrics import render
from janus_runtime.serve.ray.app import application
from janus_runtime.serve.ray.arguments import Arguments
from janus_runtime.serve.ray.calls import is_fault
from janus_runtime.serve.ray.engine_watch import EngineWatch
from janus_runtime.serve.ray.fleet_metrics import merge
from janus_runtime.serve.ray.remote import find_head
from janus_runtime.serve.ray.scaling import RowsPolicy


def test_arguments_come_as_words_of_a_command_line():
    stated = Arguments.model_validate({"replicas": "3", "memory": "4G", "allowed_host": "a.example, b.example", "cpus": "8", "grace": "60"})
    assert (stated.replicas, stated.memory, stated.allowed_host, stated.num_threads) == (3, 4 << 30, ("a.example", "b.example"), 8)
    assert Arguments.model_validate({"bundle": "engines/x"}).bundle == Path("engines/x").absolute()
    assert Arguments(cpus=0.5).num_threads == 1 and Arguments(cpus=4, threads=2).num_threads == 2
    assert Arguments(cpus=4, prepacked="/shm/p").environment == {"JANUS_THREADS": "4", "JANUS_PREPACKED": "/shm/p"}
    assert Arguments().beat_s == 2 and Arguments(silence=4).beat_s == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"replica": 2}, "replica\n  Extra inputs are not permitted"),
        ({"memory": "four"}, "'four' is not a number of bytes such as 4G, 512M or 65536"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas is 2, less than replicas, 3; expected as many or more"),
        ({"cors_origin": "*"}, "'\\*' is no origin; expected one such as"),
        ({"silence": 0}, "greater than 0"),
    ],
)
def test_arguments_that_are_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        Arguments.model_validate(wrong)


def test_the_server_gets_its_limits(tmp_path, monkeypatch):
    monkeypatch.delenv("JANUS_API_KEY", raising=False)
    (tmp_path / "key").write_text("secret\n")
    settings = Arguments(api_key_file=tmp_path / "key", max_n=3, timeout=7, host="0.0.0.0").settings()
    assert (settings.api_key, settings.max_n, settings.timeout_s, settings.is_loopback) == ("secret", 3, 7, False)
    assert Arguments().settings().api_key is None
    with pytest.raises(JanusError, match="cannot be read: No such file"):
        Arguments(api_key_file=tmp_path / "none").settings()


def test_what_ray_is_told():
    ingress = application(Arguments(max_rows=8, max_queue=4, max_requests=50, grace=100, silence=4))._bound_deployment
    model = ingress.init_args[1]._bound_deployment
    assert (ingress._deployment_config.max_ongoing_requests, ingress._deployment_config.max_queued_requests) == (58, 50)
    answer = ingress._deployment_config.backpressure_config
    assert (answer.status_code, answer.retry_after_s) == (429, 5)
    assert model._deployment_config.max_ongoing_requests == 20
    for each in (ingress, model):
        config = each._deployment_config
        assert (config.graceful_shutdown_timeout_s, config.health_check_timeout_s, config.health_check_period_s) == (100, 2, 2)
    assert model._deployment_config.autoscaling_config is None
    scaled = application(Arguments(replicas=1, max_replicas=4))._bound_deployment.init_args[1]._bound_deployment
    scaling = scaled._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert scaling.policy.get_policy() is not None


def test_replicas_are_wanted_by_rows():
    policy = RowsPolicy(max_rows=16, share=0.75)
    context = SimpleNamespace(aggregated_metrics={"rows_wanted": {"a": 30.0, "b": 6.0}}, total_queued_requests=0.0)
    assert policy(context) == (3.0, {})
    context.total_queued_requests = 12.0
    assert policy(context)[0] == 4.0
    assert policy(SimpleNamespace(aggregated_metrics=None, total_queued_requests=0.0))[0] == 0.0


def status(steps=0, running=1):
    return Status(running, 0, 2, 8, 0, None, 100, steps, 0, 0, 0)


def test_an_engine_that_stands_still_is_stuck(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch = EngineWatch(stuck_s=10)

    def look(seconds, **said):
        now[0] += seconds
        watch.look(status(**said), num_events=0)
        return watch.complaint

    assert all(look(2, steps=number) is None for number in range(20))
    assert all(look(2, running=0) is None for _ in range(20))
    # Held up with everything else: that is not the engine.
    assert look(1, steps=1) is None and look(1000, steps=1) is None
    assert look(4, steps=1) is None
    assert look(4, steps=1) == "the engine has had requests and done nothing for 13 s"
    assert look(2, steps=2) is None


def test_an_engine_that_fails_every_request_is_broken():
    watch = EngineWatch(stuck_s=10)
    for is_fault_ in (True, True, False, True, True):
        watch.see_end(is_fault_)
        assert watch.complaint is None
    watch.see_end(True)
    assert watch.complaint == "the engine failed the last 3 requests"


def test_what_another_replica_may_do_better():
    assert all(map(is_fault, [JanusError("RuntimeError: x"), NumericalError("NaN"), OutOfMemory("full"), MemoryError()]))
    assert not any(map(is_fault, [PromptError("long"), Busy("full", 1), DeadlineExceeded("late"), ValueError("n")]))


def test_errors_travel():
    busy = pickle.loads(pickle.dumps(Busy("full", 7.5)))
    assert (str(busy), busy.retry_after_s) == ("full", 7.5)
    lost = run_error(pickle.loads(pickle.dumps(ReplicaLost("gone; send it again"))))
    assert (lost.status, lost.code, lost.headers["retry-after"]) == (503, "replica_lost", "5")


def test_a_photo_that_was_fitted_gives_the_same_pixels(model):
    spec = model.manifest.image_input
    for size in ((640, 200), (30, 411), (1, 1), (spec.size, spec.size)):
        image = Image.effect_noise(size, 90).convert("RGB")
        fitted = fit(image, spec)
        assert fitted.size == (spec.size, spec.size)
        assert preprocess(fitted, spec).tobytes() == preprocess(image, spec).tobytes()


def test_what_tells_conversations_apart():
    image = Image.new("RGB", (4, 4), "red")
    asked = [Message("system", "be brief"), Message("user", "what is this?", (image,))]
    grown = [*asked, Message("assistant", "red"), Message("user", "why?")]
    assert find_head(asked) == find_head(grown) is not None
    assert find_head([asked[0], Message("user", "what is this?", (Image.new("RGB", (4, 4), "blue"),))]) != find_head(asked)
    assert find_head([Message("user", "be brief"), Message("assistant", "what"), Message("user", "x")]) != find_head(asked)
    assert find_head([Message("user", "short")]) is None
    assert find_head([Message("user", "long " * 100)]) is not None


def test_metrics_of_all_replicas_stand_together():
    def family(value):
        counter = CounterMetricFamily("janus_images", "Pictures drawn.", labels=["kind"])
        counter.add_metric(["image"], value)
        return counter

    text = render(merge({"a": [family(3)], "b": [family(4)]})).decode()
    assert text.count("# TYPE janus_images_total counter") == 1
    assert 'janus_images_total{kind="image",replica="a"} 3.0' in text
    assert 'janus_images_total{kind="image",replica="b"} 4.0' in text

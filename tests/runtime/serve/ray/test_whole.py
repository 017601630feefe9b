"""The whole application on a cluster of this machine: proxies, two ingress replicas, two model replicas."""

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from testing.ray_cluster import Cluster, anonymous_bytes
from tests.runtime.serve.ray.load import PROMPTS, Load

DEADLINE_S = 60
REUSE = ("janus_prefilled_tokens_total", "janus_reused_tokens_total", "janus_kept_calls_total", "janus_spilled_calls_total")
# A cluster is ten processes that all start at once; beside other tests on two cores Ray gives up its own proxy.
pytestmark = pytest.mark.alone
SOAK_S = float(os.environ.get("JANUS_SOAK_S", "1800"))


@pytest.fixture(scope="module")
def cluster():
    with Cluster(max_rows=8, cpus=0.5) as running:
        yield running


def counts(cluster, name):
    """By replica."""
    found = {}
    for labels, value in cluster.metric(name).items():
        replica = dict(labels).get("replica", "")
        found[replica] = found.get(replica, 0) + value
    return found


def wait_until(is_so, within_s=20):
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.3)


def test_it_answers_as_one_process_does_from_two_replicas(cluster, expected):
    load = Load(cluster, expected, 0, DEADLINE_S)
    with ThreadPoolExecutor(4) as clients:
        assert set(clients.map(load.one, range(24))) == {"right"}
    wait_until(lambda: sum(counts(cluster, "janus_images_total").values()) == 12)
    wait_until(lambda: len([value for value in counts(cluster, "janus_steps_total").values() if value]) == 2)
    status, models = cluster.get("/v1/models")
    assert status == 200 and json.loads(models)["data"][0]["id"] == "janus-nano"


def test_errors_are_those_of_the_server(cluster):
    for body, message in (
        ({"prompt": ""}, "at least 1 character"),
        ({"prompt": "<image_placeholder>"}, ""),
        ({"prompt": "x", "n": 11}, "10 at most"),
    ):
        status, answer = cluster.post("/v1/images/generations", body)
        assert status == 400 and set(answer["error"]) == {"message", "type", "param", "code"}
        assert message in answer["error"]["message"]


def test_a_seed_that_ray_never_saw_is_in_the_answer(cluster):
    status, answer = cluster.post("/v1/images/generations", {"prompt": PROMPTS[0]})
    again = cluster.post("/v1/images/generations", {"prompt": PROMPTS[0], "seed": answer["data"][0]["seed"]})[1]
    assert status == 200 and again["data"] == answer["data"]


def test_clients_that_go_away_free_their_rows(cluster):
    def aborted():
        found = cluster.metric("janus_request_success_total").items()
        return sum(value for labels, value in found if ("finished_reason", "abort") in labels)

    before, body = aborted(), json.dumps({"prompt": PROMPTS[0], "n": 10})
    clients = [http.client.HTTPConnection("127.0.0.1", cluster.port) for _ in range(8)]
    for client in clients:
        client.request("POST", "/v1/images/generations", body, {"content-type": "application/json"})
    wait_until(lambda: sum(counts(cluster, "janus_rows").values()) > 0)
    for client in clients:
        client.close()
    # Those that have not reached a replica by then are never counted.
    wait_until(lambda: aborted() > before)
    wait_until(lambda: sum(counts(cluster, "janus_rows").values()) == 0)


def test_a_replica_that_dies_takes_no_request_along(cluster, expected):
    load = Load(cluster, expected, 3, DEADLINE_S)
    try:
        time.sleep(1)
        dead = cluster.replicas()[0]
        os.kill(dead, signal.SIGKILL)
        cluster.wait_for_replicas(2, without=(dead,))
        time.sleep(1)
    finally:
        load.stop()
    assert load.faults == [] and set(load.outcomes) == {"right"}


@pytest.mark.slow
def test_two_hundred_requests_are_answered_as_by_one_process(cluster, expected):
    load = Load(cluster, expected, 0, DEADLINE_S)
    before = counts(cluster, "janus_stepped_rows_total")
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(load.one, range(200)))
    assert load.outcomes == {"right": 200}
    time.sleep(2)
    after = counts(cluster, "janus_stepped_rows_total")
    print({replica: value - before.get(replica, 0) for replica, value in after.items()})


@pytest.mark.slow
def test_a_conversation_finds_what_was_computed_for_it(cluster, expected):
    """Ten conversations about a photo each, four turns, mixed, over two ingresses."""
    before = {name: sum(counts(cluster, name).values()) for name in REUSE}

    def turn(number):
        talk = [{"type": "text", "text": f"Talk {number}: what is this?"}, {"type": "image_url", "image_url": {"url": expected.url}}]
        messages = [{"role": "user", "content": talk}]
        cached, prompts = [], []
        for question in ("Which colour is it?", "Is it large?", "Why?", ""):
            status, answer = cluster.post("/v1/chat/completions", {"messages": messages, "max_tokens": 12})
            assert status == 200
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
            prompts.append(answer["usage"]["prompt_tokens"])
            messages += [
                {"role": "assistant", "content": answer["choices"][0]["message"]["content"] or "no"},
                {"role": "user", "content": question},
            ]
        return cached, prompts

    with ThreadPoolExecutor(3) as clients:
        turns = list(clients.map(turn, range(10)))
    later = [(found, prompts[number]) for cached, prompts in turns for number, found in enumerate(cached[1:])]
    share = sum(min(found / prompt, 1) for found, prompt in later) / len(later)
    time.sleep(2)
    after = {name: sum(counts(cluster, name).values()) - before[name] for name in REUSE}
    print(f"of a turn's earlier tokens {share:.0%} were there; {after}")
    assert share > 0.8


@pytest.mark.slow
def test_it_runs_for_long_without_an_error_and_without_growing(cluster, expected):
    """JANUS_SOAK_S seconds, by default half an hour. What goes in comes out; memory after a third is memory at the end."""
    before = sum(counts(cluster, "janus_request_success_total").values())
    load = Load(cluster, expected, 4, DEADLINE_S)
    sizes = []
    try:
        for _ in range(30):
            time.sleep(SOAK_S / 30)
            pids = [*cluster.replicas(), *cluster.replicas("Ingress")]
            sizes.append(sum(map(anonymous_bytes, pids)) / 1e6)
    finally:
        load.stop()
    print(f"{dict(load.outcomes)}, longest {load.longest_s:.1f} s, MB {[round(size) for size in sizes]}")
    assert load.faults == [] and set(load.outcomes) == {"right"}
    asked = sum(load.outcomes.values())
    wait_until(lambda: sum(counts(cluster, "janus_request_success_total").values()) == before + asked)
    wait_until(lambda: sum(counts(cluster, "janus_rows").values()) == 0)
    # Four processes; what an allocator keeps goes up and down by this much.
    assert max(sizes[20:]) < max(sizes[5:12]) + 40

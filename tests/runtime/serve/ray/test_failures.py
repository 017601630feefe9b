"""What clients see when a model replica dies, freezes or breaks, under load. Every request is answered right or with a clear error."""

import os
import signal
import time

import pytest

from testing.ray_cluster import Cluster
from tests.runtime.serve.ray.load import Load

# A replica is given up after 4 s without a sign of life, a request is sent to 3 replicas at most, and takes a few seconds itself.
SILENCE_S, DEADLINE_S = 4, 30
CLIENTS = 4
ROUNDS = int(os.environ.get("JANUS_FAILURE_ROUNDS", "3"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sabotage")
    with Cluster(
        "tests.runtime.serve.ray.saboteur:app", {"JANUS_SABOTAGE": str(folder)}, silence=SILENCE_S, max_rows=8, cpus=0.5
    ) as running:
        running.sabotage = folder
        yield running


def kill(cluster, pid):
    os.kill(pid, signal.SIGKILL)


def freeze(cluster, pid):
    os.kill(pid, signal.SIGSTOP)


def break_engine(cluster, pid):
    (cluster.sabotage / str(pid)).touch()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("harm", [kill, freeze, break_engine])
def test_no_request_is_lost(cluster, expected, harm):
    load = Load(cluster, expected, CLIENTS, DEADLINE_S)
    try:
        time.sleep(2)
        for number in range(ROUNDS):
            pids = cluster.wait_for_replicas(2)
            harmed = pids[number % len(pids)]
            before = sum(load.outcomes.values())
            harm(cluster, harmed)
            began = time.monotonic()
            cluster.wait_for_replicas(2, without=(harmed,))
            seconds, ended = time.monotonic() - began, sum(load.outcomes.values()) - before
            print(f"{harm.__name__} {number}: replaced after {seconds:.1f} s, in which {ended} requests ended", flush=True)
            assert load.one(number) == "right"
    finally:
        load.stop()
    print(f"{harm.__name__}: {dict(load.outcomes)}, longest {load.longest_s:.1f} s", flush=True)
    assert load.faults == []
    assert load.outcomes["right"] > 10 * ROUNDS

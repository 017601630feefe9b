"""Two nodes of Ray in network namespaces, of which one is cut off for a while. Needs root and `ip`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from testing.ray_cluster import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the command ip (iproute2)"
    ),
]
SILENCE_S, DEADLINE_S = 4, 30
CUT_S = float(os.environ.get("JANUS_CUT_S", "25"))
BRIDGE, NODES = "janus-br", {"janus-a": "10.77.0.1", "janus-b": "10.77.0.2"}
LOOK = """
import sys
from testing.ray_cluster import Server
server = Server(sys.argv[1], 8000)
print(server.get("/ready")[0], len(server.metric("janus_max_rows")))
"""
TEXT = {"cwd": ROOT, "capture_output": True, "text": True}
BIN = Path(sys.executable).parent


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def inside(name, *command, **options):
    return subprocess.Popen(["ip", "netns", "exec", name, *map(str, command)], cwd=ROOT, **options)


@contextlib.contextmanager
def network():
    """A bridge with a namespace for each node."""
    made = []
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        made.append(("link", "del", BRIDGE))
        ip("link", "set", BRIDGE, "up")
        for name, address in NODES.items():
            ip("netns", "add", name)
            made.append(("netns", "del", name))
            ip("link", "add", f"{name}-o", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}-o", "master", BRIDGE, "up")
            for words in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
                ip("-n", name, *words)
        yield
    finally:
        for words in reversed(made):
            ip(*words)


@contextlib.contextmanager
def cluster(folder):
    """A node in each namespace; the second is started again when it ends, as a service manager or Kubernetes does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
    head, worker = NODES.values()
    ray = [BIN / "ray", "start", "--block", "--num-cpus=1", "--disable-usage-stats", "--object-store-memory=200000000"]
    config = Path(folder) / "serve.json"
    arguments = {"silence": SILENCE_S, "max_rows": 8, "host": "0.0.0.0", "ingresses": 2, "ingresses_each": 1}
    config.write_text(
        json.dumps(
            {
                "http_options": {"host": "0.0.0.0", "port": 8000},
                "applications": [{"name": "janus", "import_path": "janus_runtime.serve.ray:app", "route_prefix": "/", "args": arguments}],
            }
        )
    )
    again = 'while :; do "$@" || sleep 2; done'
    started = []
    with (Path(folder) / "log").open("w") as log:
        options = {"env": environment, "stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
        try:
            started.append(
                inside("janus-a", *ray, "--head", f"--node-ip-address={head}", "--port=6379", f"--temp-dir={folder}/a",
                       "--include-dashboard=false", **options)
            )  # fmt: skip
            time.sleep(8)
            started.append(
                inside("janus-b", "sh", "-c", again, "sh", *ray, f"--address={head}:6379", f"--node-ip-address={worker}", **options)
            )
            time.sleep(8)
            started.append(inside("janus-a", BIN / "serve", "run", f"--address={head}:6379", config, **options))
            yield log.name
        finally:
            for name in NODES:
                # The supervisor first, then what it would start again.
                for process in started:
                    process.kill()
                pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
                for pid in map(int, pids):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
            for process in started:
                process.wait(30)


def wait_for_both(log, within_s=180):
    """Until both nodes' model replicas have computed something."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        said = [subprocess.run(["ip", "netns", "exec", name, sys.executable, "-c", LOOK, address], **TEXT).stdout.split()
                for name, address in NODES.items()]  # fmt: skip
        if said == [["200", "2"]] * 2:
            return
        time.sleep(1)
    pytest.fail(f"the nodes were not ready after {within_s} s:\n{Path(log).read_text()[-6000:]}")


class Client:
    """Asks the proxy of its node from inside the namespace; `lines` are what it said so far."""

    def __init__(self, name, address):
        command = [sys.executable, "-m", "tests.runtime.serve.ray.client", address, 8000, DEADLINE_S]
        self.process = inside(name, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait(self, count, within_s=120):
        until = time.monotonic() + within_s
        while len(self.lines) < count:
            assert time.monotonic() < until and self.process.poll() is None
            time.sleep(0.1)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE_S + 60)
        self._reader.join()
        self.process.stdout.close()


def test_a_node_that_is_cut_off_takes_only_its_own_along():
    with tempfile.TemporaryDirectory(prefix="jn-", dir="/tmp") as folder, network(), cluster(folder) as log:
        wait_for_both(log)
        clients = {name: Client(name, address) for name, address in NODES.items()}
        for client in clients.values():
            client.wait(20)
        cut = time.time()
        ip("link", "set", "janus-b-o", "down")
        time.sleep(CUT_S)
        healed = time.time()
        ip("link", "set", "janus-b-o", "up")
        time.sleep(60 + DEADLINE_S)
        for client in clients.values():
            client.stop()
        said = {name: client.lines for name, client in clients.items()}
        for name, lines in said.items():
            for title, begin, end in (
                ("before", 0, cut),
                ("cut", cut, healed),
                ("after", healed, healed + 60),
                ("later", healed + 60, 1e12),
            ):
                among = [line for line in lines if begin <= line[0] < end]
                longest = max((line[1] for line in among), default=0)
                print(name, title, dict(Counter(line[2] for line in among)), f"longest {longest:.1f} s", flush=True)
        assert all(line[1] <= DEADLINE_S + 1 for lines in said.values() for line in lines)
        assert not any(line[2] == "wrong" for lines in said.values() for line in lines)
        assert {line[2] for line in said["janus-a"]} == {"right"}
        last = [line for line in said["janus-b"] if line[0] > healed + 60]
        assert last and {line[2] for line in last} == {"right"}
        wait_for_both(log, within_s=60)

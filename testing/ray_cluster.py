"""A cluster of Ray on this machine with the application on a free port: what the tests and the benchmarks ask."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TOKEN = "JANUS_TEST_CLUSTER"


class Server:
    """What answers on an address."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    @contextlib.contextmanager
    def asking(self, method, path, body=None, timeout_s=120):
        """The response, to be read inside."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
            with connection.getresponse() as response:
                yield response

    def get(self, path, timeout_s=5):
        with self.asking("GET", path, timeout_s=timeout_s) as response:
            return response.status, response.read()

    def post(self, path, body, timeout_s=120):
        """-> status, the answer's JSON or, of a stream, the list of its events' JSON."""
        with self.asking("POST", path, body, timeout_s) as response:
            status, data, kind = response.status, response.read(), response.getheader("content-type", "")
        if kind.startswith("text/event-stream"):
            lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
            return status, [json.loads(line) for line in lines if line != "[DONE]"]
        return status, json.loads(data)

    def metric(self, name):
        """-> value by labels, as a frozenset of pairs."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.get("/metrics", timeout_s=15)[1].decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {frozenset(sample.labels.items()): sample.value for sample in samples}


class Cluster(Server):
    """`arguments` are those of the application. `environment` is that of all its processes."""

    def __init__(self, target="janus_runtime.serve.ray:app", environment=None, patience_s=180, **arguments):
        self._token = secrets.token_hex(8)
        # Paths of sockets must be short.
        self.folder = tempfile.TemporaryDirectory(prefix="janus-ray-", dir="/tmp")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            super().__init__("127.0.0.1", free.getsockname()[1])
        config = {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [{"name": "janus", "import_path": target, "route_prefix": "/", "args": arguments}],
        }
        path = Path(self.folder.name) / "serve.json"  # which is YAML too
        path.write_text(json.dumps(config))
        self.log = Path(self.folder.name) / "log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": "local",
            "RAY_TMPDIR": self.folder.name,
            "RAY_AUTH_MODE": "disabled",
            "RAY_DEDUP_LOGS": "0",
            # By default 5 and 10 s, too few where ten processes start on two cores.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
            _TOKEN: self._token,
            **(environment or {}),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "serve"), "run", str(path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self.environment,
            )
        self._wait(patience_s)

    def _wait(self, patience_s):
        until = time.monotonic() + patience_s
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/ready")[0] == 200:
                    return
            time.sleep(0.2)
        text = self.log.read_text(errors="replace")[-4000:]
        self.stop()
        raise RuntimeError(f"the cluster was not ready after {patience_s} s:\n{text}")

    def processes(self):
        """-> command line by pid of all processes of this cluster."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    if f"{_TOKEN}={self._token}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                        found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def replicas(self, deployment="Model"):
        """-> pids of its replicas' processes, zombies left out."""
        named = [pid for pid, command in self.processes().items() if f"ServeReplica:janus:{deployment}" in command]
        return sorted(pid for pid in named if state_of(pid) not in ("Z", None))

    def wait_for_replicas(self, count, within_s=120, without=()):
        """Until so many model replicas run that are none of `without` and answer."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            pids = [pid for pid in self.replicas() if pid not in without and state_of(pid) != "T"]
            if len(pids) >= count and sum(self.metric("janus_model_replicas").values()) >= count:
                return pids
            time.sleep(0.2)
        raise TimeoutError(f"{count} replicas did not run within {within_s} s: {self.processes()}")

    def stop(self):
        processes = self.processes()
        self.process.terminate()
        self.process.wait(60)
        until = time.monotonic() + 20
        while (left := self.processes().keys() & processes.keys()) and time.monotonic() < until:
            time.sleep(0.2)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


def state_of(pid):
    """R, S, T (stopped), Z (ended) and so on; None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def anonymous_bytes(pid):
    """Memory of a process that is its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

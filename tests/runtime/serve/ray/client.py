"""python -m tests.runtime.serve.ray.client HOST PORT DEADLINE: asks until stdin ends and says what came, a line of JSON for each
request: when it began (seconds since 1970), how long it took, the outcome."""

import json
import sys
import threading
import time

import janus_runtime
from testing.ray_cluster import Server
from tests.runtime.serve.ray.load import Expected, Load


class _Telling(Load):
    lock = threading.Lock()

    def one(self, number):
        began = time.time()
        outcome = super().one(number)
        with self.lock:
            print(json.dumps([began, time.time() - began, outcome]), flush=True)
        if outcome.startswith("broken"):
            # Whoever cannot be reached is not asked a thousand times a second.
            time.sleep(0.2)
        return outcome


if __name__ == "__main__":
    host, port, deadline_s = sys.argv[1:]
    with janus_runtime.load(backend="cpu") as janus:
        load = _Telling(Server(host, int(port)), Expected.of(janus), 2, float(deadline_s))
        sys.stdin.read()
        load.stop()

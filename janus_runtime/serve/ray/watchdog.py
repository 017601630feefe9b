"""Ends a process that no longer runs, though it exists: one that was stopped, or waits for a disk for good.

Ray asks such a replica to stop and waits for its grace before it kills it, while its cores and its GPU are of no use to the next one.
The watchdog is a process of its own, this file run as a script, to which the watched one writes a byte a second.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time

_BEAT_S = 1.0


class Watchdog:
    """Watches this process until it ends: after `silence_s` seconds in which no thread of it ran, it is killed."""

    def __init__(self, silence_s: float) -> None:
        # Neither packages nor the environment's settings: it needs 10 MB and starts in 20 ms.
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(silence_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
        threading.Thread(target=self._beat, name="janus-beat", daemon=True).start()

    def _beat(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            while True:
                pipe.write(b".")
                time.sleep(_BEAT_S)
        except OSError:  # Somebody ended it. Ray's own checks are still there.
            self._process.wait()


def watch(pid: int, silence_s: float) -> None:
    """Reads beats of `pid` from stdin until there are none, or none can come any more.

    Seconds are counted one by one, so that a machine that slept takes nobody for dead.
    """
    quiet_s = 0.0
    while quiet_s < silence_s:
        if not select.select([0], [], [], _BEAT_S)[0]:
            quiet_s += _BEAT_S
        elif os.read(0, 4096):
            quiet_s = 0.0
        else:
            return
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))

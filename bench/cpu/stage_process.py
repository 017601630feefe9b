"""The far end of `bench.cpu.rivals.Process`: the stages of a system that lives in a process of its own.

The process prints one line of JSON when it is ready, `{"stages": [{"name": …, "reads": …}, …], …}`, with whatever else the system
says of itself. Then it runs one stage for every line of stdin, an index into the stages, and answers `done`. The caller times around
the pipe, as it times calls of its own: that adds some 50 us to stages of tens of milliseconds, and spares a second clock.

Every system has an environment of its own, so this imports only the standard library. Scripts beside it import it before anything
else: what libraries print from then on goes to stderr and cannot stand between the answers.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

_TRIAL_S = 1.0


@dataclass(frozen=True)
class Stage:
    """As `janus_runtime.checks.latency.Stage`."""

    name: str
    call: Callable[[], object]
    reads: int = 0


def serve(stages: list[Stage], versions: list[str], **about: object) -> None:
    """Answers until stdin ends. `versions`: packages that are named with theirs.

    Memory is reported in GB: at the peak, where models were made, and of its own and mapped from files now.
    """
    gc.collect()
    with suppress(AttributeError):  # Only glibc has it, and only glibc keeps so much of what was freed.
        ctypes.CDLL(None).malloc_trim(0)
    own, mapped, peak = (_memory_gb(name) for name in ("RssAnon", "RssFile", "VmHWM"))
    ready = {
        "stages": [{"name": stage.name, "reads": stage.reads} for stage in stages],
        "versions": {name: version(name) for name in versions},
        "peak_gb": max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9),
        "own_gb": own,
        "mapped_gb": mapped,
        **about,
    }
    print(json.dumps(ready), file=_ANSWERS, flush=True)
    for line in sys.stdin:
        stages[int(line)].call()
        print("done", file=_ANSWERS, flush=True)


def fastest(ways: dict[str, Callable[[], object]], margin: float = 0.03) -> str:
    """The way of doing one thing that takes least time: the first, unless another takes less by this share of it, 3 % as noise goes.

    Each runs twice or for a second, in turn, and its best call counts.
    """
    best = dict.fromkeys(ways, float("inf"))
    spent, runs = 0.0, 0
    while runs < 2 or spent < _TRIAL_S * len(ways):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
            best[name] = min(best[name], took)
            spent += took
        runs += 1
    first, winner = next(iter(ways)), min(best, key=best.__getitem__)
    return winner if best[winner] < (1 - margin) * best[first] else first


def _memory_gb(name: str) -> float:
    """Of /proc/self/status: `RssAnon`, what only this process can use, `RssFile`, pages of files, which the system may drop and read again,
    `VmHWM`, the most of both at one time."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e9

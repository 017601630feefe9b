"""What an ingress replica knows of the model replicas: who is there, how many rows are wanted of each, whom not to trust.

The router runs in a thread of its own, and Ray makes it from a copy of its class. Both sides meet in `here`, one for each process.
"""

import hashlib
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...decoding.scheduler import Status
from .calls import Call


@dataclass(frozen=True)
class Stats:
    """What a model replica says of itself once a second. `rows`: those wanted of it, by ingress replica."""

    max_rows: int
    max_queue: int
    rows: Mapping[str, int]
    status: Status

    def as_dict(self) -> dict[str, Any]:
        """As Ray wants it."""
        return {"stats": self}


@dataclass
class Fleet:
    """Safe to share by threads."""

    ingress: str = ""
    """The id of this process's replica."""
    stats: dict[str, Stats] = field(default_factory=dict)
    """By replica; of those that run."""
    kept: int = 0
    """Calls with a head that went to the replica of that head,"""
    spilled: int = 0
    """and those that went elsewhere, because it was full or not to be trusted."""
    _calls: dict[str, tuple[str, int]] = field(default_factory=dict)
    _suspects: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, running: Mapping[str, Stats | None]) -> None:
        """The replicas that run, and what each said last, if anything yet."""
        with self._lock:
            self.stats = {name: stats for name, stats in running.items() if stats is not None}

    def rank(self, call: Call, running: Sequence[str]) -> list[str]:
        """These replicas, the best for `call` first. It is taken to be there until `place` or `release` says otherwise."""
        with self._lock:
            now = time.monotonic()
            self._suspects = {name: until for name, until in self._suspects.items() if until > now}
            load = {name: self._load(name, call.id) for name in running}
            ranked = sorted(running, key=lambda name: (name in call.avoid, name in self._suspects, load[name], random.random()))
            if call.head is not None and ranked:
                self._prefer(call, ranked, load)
            if ranked:
                self._calls[call.id] = (ranked[0], call.rows)
            return ranked

    def _prefer(self, call: Call, ranked: list[str], load: Mapping[str, int]) -> None:
        """Puts the replica of a conversation first, unless it is full while another has room. Every ingress finds the same one."""
        assert call.head is not None
        home = choose_home(call.head, ranked)
        trusted = home not in call.avoid and home not in self._suspects
        stats = self.stats.get(home)
        # Ray asks again where a replica turns out to be full.
        is_first = call.id not in self._calls
        has_room = stats is None or load[home] + call.rows <= stats.max_rows
        if trusted and (has_room or load[home] <= load[ranked[0]]):
            ranked.remove(home)
            ranked.insert(0, home)
            self.kept += is_first
        else:
            self.spilled += is_first

    def _load(self, name: str, call: str) -> int:
        """Rows wanted of a replica: by this process now, but for `call`; by others as it said last."""
        own = sum(rows for each, (at, rows) in self._calls.items() if at == name and each != call)
        stats = self.stats.get(name)
        return own + (0 if stats is None else sum(rows for ingress, rows in stats.rows.items() if ingress != self.ingress))

    def place(self, call: Call, replica: str) -> None:
        """`replica` has taken it."""
        with self._lock:
            self._calls[call.id] = (replica, call.rows)

    def where(self, call: Call) -> str | None:
        """The replica that it was sent to, as far as is known."""
        with self._lock:
            return self._calls.get(call.id, (None, 0))[0]

    def release(self, call: Call) -> None:
        with self._lock:
            self._calls.pop(call.id, None)

    def suspect(self, replica: str, seconds: float) -> None:
        """For so long it is asked only where no other is there."""
        with self._lock:
            self._suspects[replica] = time.monotonic() + seconds


def choose_home(head: bytes, replicas: list[str]) -> str:
    """The replica of a conversation: the same in every process, and when others come and go."""
    return max(replicas, key=lambda name: hashlib.sha256(head + name.encode()).digest())


here = Fleet()

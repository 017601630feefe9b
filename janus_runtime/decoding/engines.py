"""The engines of one bundle on one backend: opened when first used, closed together."""

import os
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import Manifest
from ..errors import JanusError
from ..prompt import Ids
from .device_session import DeviceSession
from .engine import Backend, Engine, Kind, check_finite
from .host_session import Session


class Engines:
    """`engines[name]` is the open engine of graph `name`. Safe to share by threads."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._open: dict[str, Engine] = {}
        self._closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def __getitem__(self, name: str) -> Engine:
        if self._is_forked:
            raise JanusError("this model was loaded before the process was forked; load it in the process that uses it")
        with self._lock:
            if self._closed:
                raise JanusError("this model is closed; load it again")
            if name not in self._open:
                self._open[name] = self.backend.load(self.bundle, name)
            return self._open[name]

    @property
    def _is_forked(self) -> bool:
        """A fork copies the memory of a backend but not its threads: whatever waits for them, or for our lock, never ends."""
        return os.getpid() != self._pid

    @property
    def language_model(self) -> Engine:
        return self[self._language_model]

    @property
    def _language_model(self) -> str:
        return f"language_model.{self.backend.flavour}"

    def prepare(self, kind: Kind, *names: str) -> float:
        """Opens what a session of this kind needs, and these graphs, now -> ms it took; next to nothing where they are open."""
        return self.open(*self.backend.session_graphs(kind), *names, self._language_model)

    def open(self, *names: str) -> float:
        """Opens these graphs now -> ms it took."""
        start = time.perf_counter()
        for name in names:
            self[name]
        return (time.perf_counter() - start) * 1e3

    def session(self, kind: Kind, rows: int, max_length: int, grows: bool = False) -> Session | DeviceSession:
        """See `Backend.session`."""
        return self.backend.session(self, kind, rows, max_length, grows)

    def embed_text(self, ids: Ids) -> NDArray[Any]:
        """Text ids [T] -> embeddings [T, D]."""
        rows: NDArray[Any] = self["text_embed"].run({"text_ids": ids[None]})["embeds"][0]
        return rows

    def encode_image(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Pixels [3, size, size] -> features [tokens, D]. Raises NumericalError if one is no number: an int8 cache would hide it."""
        features: NDArray[Any] = self["vision_encoder"].run({"pixels": pixels[None]})["embeds"][0]
        check_finite("vision_encoder", features)
        return features

    def close(self) -> None:
        """Closes everything, whatever fails meanwhile, and then raises the first error. In a forked process it does nothing."""
        if self._is_forked:
            return
        with self._lock:
            self._closed = True
            closing: list[Backend | Engine] = [self.backend, *self._open.values()]
            errors = []
            for each in closing:
                try:
                    each.close()
                except Exception as error:
                    errors.append(error)
            self._open.clear()
            if errors:
                raise errors[0]

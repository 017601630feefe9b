"""The engines of one bundle on one backend: opened when first used, closed together."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.interface import GraphKind, graph_name
from ..bundle.manifest import Manifest
from ..errors import JanusError
from ..prompt import Ids
from ..sampling.sampler import Floats
from .engine import Backend, Engine, Modality, check_finite

if TYPE_CHECKING:
    from .device_loop import LoopPool

# By modality: the graph that embeds ids, the one that predicts them, and the one that draws them on a device, if that is a graph.
ENDS: dict[Modality, tuple[GraphKind, GraphKind, GraphKind | None]] = {
    "text": ("text_embed", "text_head", "text_draw"),
    "image": ("image_embed", "image_head", None),
}


# Of pictures' features that are kept for the next question: 4.7 MB a photo at Janus-Pro-1B's width.
_FEATURE_BYTES = 64 * 2**20


def digest(pixels: NDArray[Any]) -> bytes:
    """Which picture this is."""
    return hashlib.sha256(pixels.tobytes()).digest()


class Engines:
    """`engines[name]` is the open engine of graph `name`, in the form for this backend if there is one. Safe to share by threads."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._open: dict[str, Engine] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._loops: LoopPool | None = None
        # By the digest of a picture's pixels, the least recently used first.
        self._features: dict[bytes, NDArray[Any]] = {}
        self._closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def name_of(self, name: str) -> str:
        """The key of the graph that runs as `name` here: `vision_encoder` may be `vision_encoder.cpu` on a CPU."""
        own = f"{name}.{self.backend.name}"
        return own if own in self.manifest.graphs else name

    def __getitem__(self, name: str) -> Engine:
        name = self.name_of(name)
        self.check_usable()
        with self._lock:
            self._check_open()
            if name in self._open:
                return self._open[name]
            opening = self._opening.setdefault(name, threading.Lock())
        # A graph takes seconds to load; requests that need others go on.
        with opening:
            if name in self._open:
                return self._open[name]
            engine = self.backend.load(self.bundle, name)
            with self._lock:
                if self._closed:
                    engine.close()
                self._check_open()
                self._open[name] = engine
            return engine

    @property
    def is_forked(self) -> bool:
        """A fork copies the memory of a backend but not its threads: whatever waits for them, or for our lock, never ends."""
        return os.getpid() != self._pid

    def check_usable(self) -> None:
        """Raises JanusError in a forked process."""
        if self.is_forked:
            raise JanusError("this model was loaded before the process was forked; load it in the process that uses it")

    def _check_open(self) -> None:
        if self._closed:
            raise JanusError("this model is closed; load it again")

    @property
    def token_bytes(self) -> int:
        """Of keys and values of one token of a row; 0 where the bundle has no decoder of its own, as a JanusFlow that only draws."""
        graph, sizes = self.manifest.graphs.get(self._language_model), self.manifest.language_model
        if graph is None or graph.cache is None:
            return 0
        return len(graph.cache.inputs) * sizes.num_heads * sizes.head_size * np.dtype(graph.cache.dtype).itemsize

    @property
    def language_model(self) -> Engine:
        return self[self._language_model]

    @property
    def _language_model(self) -> str:
        return graph_name("language_model", self.backend.flavour)

    def graphs_of(self, modality: Modality) -> tuple[str, ...]:
        """What rows of this modality need."""
        embed, head, draw = ENDS[modality]
        return (embed, head, *([draw] if draw and self.backend.limits else []), self._language_model)

    @property
    def preview(self) -> GraphKind:
        """The graph that decodes what is shown of a picture before it is done: `image_preview` where the bundle has one and this backend
        works in the host's memory, for whose processors it is made; else the decoder of the picture itself."""
        return "image_preview" if "image_preview" in self.manifest.graphs and self.backend.limits is None else "image_decoder"

    def are_open(self, *names: str) -> bool:
        with self._lock:
            return all(self.name_of(name) in self._open for name in names)

    def open(self, *names: str) -> float:
        """Opens these graphs now -> ms it took."""
        start = time.perf_counter()
        self.open_beside(*names)()
        return (time.perf_counter() - start) * 1e3

    def open_beside(self, *names: str) -> Callable[[], None]:
        """Opens these graphs while the caller does something else -> a call that waits until they are open, and raises what went wrong.

        On a host side by side: one core packs the weights of one graph. On a device one after the other, in that call.
        """
        if self.backend.limits or self.are_open(*names):

            def open_each() -> None:
                for name in names:
                    self[name]

            return open_each
        threads = ThreadPoolExecutor(len(names))
        opening = [threads.submit(self.__getitem__, name) for name in names]
        threads.shutdown(wait=False)

        def wait_until_open() -> None:
            wait(opening)
            for each in opening:
                each.result()

        return wait_until_open

    def loops(self) -> "LoopPool":
        """Those of a backend with a device."""
        from .device_loop import LoopPool

        with self._lock:
            self._check_open()
            self._loops = self._loops or LoopPool()
            return self._loops

    def embed_ids(self, modality: Modality, ids: Ids) -> NDArray[Any]:
        """Ids [R, T] of a modality -> embeddings [R, T, D]."""
        embeds: NDArray[Any] = self[ENDS[modality][0]].run({f"{modality}_ids": ids})["embeds"]
        return embeds

    def predict(self, modality: Modality, hidden: NDArray[Any]) -> tuple[Floats, str]:
        """Hidden states [k, D] -> logits [k, V] of the next id of a modality, and the name of the graph that gave them."""
        head = self[ENDS[modality][1]]
        return head.run({"hidden": hidden})["logits"], head.name

    def embed_text(self, ids: Ids) -> NDArray[Any]:
        """Text ids [T] -> embeddings [T, D]."""
        rows: NDArray[Any] = self.embed_ids("text", ids[None])[0]
        return rows

    def encode_image(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Pixels [3, size, size] -> features [tokens, D]; those of pictures seen lately are kept. Raises NumericalError if one is NaN or
        Inf: an int8 cache would hide it."""
        key = digest(pixels)
        with self._lock:
            if (kept := self._features.pop(key, None)) is not None:
                self._features[key] = kept
                return kept
        features: NDArray[Any] = self["vision_encoder"].run({"pixels": pixels[None]})["embeds"][0]
        check_finite("vision_encoder", features)
        features.flags.writeable = False
        with self._lock:
            self._features[key] = features
            while sum(each.nbytes for each in self._features.values()) > _FEATURE_BYTES:
                del self._features[next(iter(self._features))]
        return features

    def close(self) -> None:
        """Closes everything, whatever fails meanwhile, and then raises the first error. In a forked process it does nothing."""
        if self.is_forked:
            return
        with self._lock:
            self._closed = True
            closing: list[Any] = [*([self._loops] if self._loops else []), *self._open.values(), self.backend]
            self._open.clear()
            self._features.clear()
        errors = []
        for each in closing:
            try:
                each.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

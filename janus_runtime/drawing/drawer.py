"""Drawer: the contract of those who know how a family of models draws. Letters: T prompt length."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ..decoding.lane import Lane, Request
from ..prompt import Ids
from ..sampling.sampler import Floats
from .request import DrawSettings, ReferenceFeatures


class Drawer(Protocol):
    """How a family draws."""

    def graphs(self, from_image: bool, previews: bool = False) -> Sequence[str]:
        """Every graph it needs, for a reference image and for previews too."""

    def num_steps(self, settings: DrawSettings) -> int: ...

    def batch_key(self, ids: Ids) -> int:
        """Only prompts with equal keys are drawn in one batch."""

    def encode_reference(self, pixels: Floats) -> ReferenceFeatures:
        """What goes into prompts of a reference image."""

    def embed(self, ids: Ids, reference: ReferenceFeatures) -> Any:
        """A prompt [T] as its lanes take it."""

    def lane(self, request: Request, prompt: Any, seed: int, settings: DrawSettings) -> Lane:
        """A picture of an embedded prompt."""

    def collect(self, lane: Any) -> NDArray[Any]:
        """What a lane has drawn, at its end -> what is decoded."""

    def guess(self, lane: Any) -> NDArray[Any]:
        """What a lane has drawn so far -> what is decoded to show it."""

    def decode(self, drawn: Any) -> Floats:
        """One picture's -> pixels [3, size, size]. One at a time: activations are large."""

    def decode_preview(self, guess: Any) -> Floats:
        """As `decode`, of a picture that is not done: sooner, and less exact, where the bundle has a graph for that."""

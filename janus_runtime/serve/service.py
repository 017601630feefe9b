"""What every route works with."""

import asyncio
import secrets
import time
from dataclasses import dataclass

from ..bundle.manifest import Task
from ..janus import Janus
from ..pictures.png_text import describe_maker
from .api_error import refuse
from .idempotency import Answers
from .metrics import Metrics
from .model import LocalModel, Model
from .settings import ServeSettings
from .traffic import Traffic


def choose_seed(asked: int | None) -> int:
    """The seed of a request; -1 and None are random."""
    # Few enough bits for every client's numbers.
    return secrets.randbelow(1 << 32) if asked is None or asked == -1 else asked


@dataclass(frozen=True, eq=False)
class Service:
    model: Model
    settings: ServeSettings
    traffic: Traffic
    metrics: Metrics
    answers: Answers
    maker: dict[str, str]
    """What a PNG says of who drew it."""
    reading: asyncio.Semaphore
    """Held while pictures of a request are in memory whole: decoded, they take a hundred times what their files do."""
    started: int
    """Seconds since 1970."""

    @classmethod
    def of(cls, janus: Janus, settings: ServeSettings) -> "Service":
        """Over a model of this process."""
        return cls.over(LocalModel(janus), settings)

    @classmethod
    def over(cls, model: Model, settings: ServeSettings) -> "Service":
        maker = describe_maker(model.manifest, model.backend)
        return cls(
            model, settings, Traffic(), Metrics(model.manifest.name), Answers(settings), maker, asyncio.Semaphore(2), int(time.time())
        )

    @property
    def model_name(self) -> str:
        # That of a folder, which need not be UTF-8.
        return self.maker["model"]

    def require(self, task: Task) -> None:
        """Raises ApiError if the bundle has not this half of the model."""
        if task not in self.model.manifest.tasks:
            raise refuse(
                f"{self.model_name} was exported for {' and '.join(self.model.manifest.tasks)} only, not for {task}; serve another bundle",
                code="bundle",
            )

    def check_size(self, param: str, got: int, limit: int) -> None:
        """Raises ApiError if a request asks for more of something than this server gives."""
        if got > limit:
            raise refuse(f"{param} is {got:,}; this server takes {limit:,} at most", param)

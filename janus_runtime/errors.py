"""Every error a user can cause. One line each: what we got and what we expected; what to do."""

from typing import Any, ClassVar


class JanusError(Exception):
    """Base of all errors that this package raises on purpose. `code` is stable: programs may tell errors apart by it."""

    code: ClassVar[str] = "error"

    @property
    def hint(self) -> str:
        """What to do, in terms of Python and of the commands that make bundles; empty where nothing can be done. A message is
        `what happened; what to do`."""
        return str(self).partition("; ")[2]


class BundleError(JanusError):
    """A bundle is missing, altered, truncated or of another format."""

    code = "bundle"


class BackendError(JanusError):
    """A backend was asked for and cannot run here, or was handed tensors its graph does not take."""

    code = "backend"


class OutOfMemory(BackendError):
    """A device has less memory free than a model or a batch needs."""

    code = "out_of_memory"


class TooLarge(BackendError):
    """A request needs more rows or memory at once than may be in use, now that nothing else runs."""

    code = "too_large"


class PromptError(JanusError):
    """Text that the model cannot take: too long, empty, or holding reserved tokens."""

    code = "prompt"


class ConversationFull(PromptError):
    """A conversation has no room for the next turn."""

    code = "conversation_full"


class ImageError(JanusError):
    """A file that is no picture, or a picture that cannot be used."""

    code = "image"


class NumericalError(JanusError):
    """NaN or Inf came out of a graph."""

    code = "numerical"


class Cancelled(JanusError):
    """The caller set the `cancel` event."""

    code = "cancelled"


class DeadlineExceeded(JanusError):
    """A request was not done within the time that it was given."""

    code = "deadline"


class Busy(JanusError):
    """As many requests wait already as may. `retry_after_s`: a guess at when there is room."""

    code = "busy"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """An exception is pickled by its arguments, of which the base class knows one."""
        return type(self), (str(self), self.retry_after_s)


class ReplicaLost(JanusError):
    """Every process of a cluster that a request was sent to died, fell silent, or could not be found. It may be sent again."""

    code = "replica_lost"


def is_out_of_memory(reason: str) -> bool:
    """Whether a library's error says that it got no memory, in the words that libraries have for it."""
    return any(words in reason.lower() for words in ("out of memory", "outofmemory", "out_of_memory", "allocate memory"))


def first_line(error: BaseException) -> str:
    """A library's error in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

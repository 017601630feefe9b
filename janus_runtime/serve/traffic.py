"""What goes on in the server, and whether it is about to stop."""

from typing import Protocol


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Traffic:
    """Of the event loop's thread. `requests`: those whose answer is not sent yet; `working`: what is being computed."""

    def __init__(self) -> None:
        self.stopping = False
        self.requests = 0
        self.working: set[Cancellable] = set()

    @property
    def idle(self) -> bool:
        return not self.requests and not self.working

    def cancel_all(self) -> None:
        for work in tuple(self.working):
            work.cancel()

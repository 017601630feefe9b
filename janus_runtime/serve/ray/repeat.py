"""A request that was lost on the way begins again on another replica. Its client hears each thing once."""

from ...errors import JanusError
from ...events import Drawn, Event, Failed, Finished, Partial, Progress, Said, Started, Waiting


class Repeat:
    """Events of one run after another, as if there had been one. The seed is the same, so the runs are."""

    def __init__(self) -> None:
        self._started = False
        self._step = 0
        self._partials: set[tuple[int, int]] = set()
        self._drawn: set[int] = set()
        self._text = ""
        self._num_ids = 0
        self._again = ""
        self._ids_again = 0

    def begin(self) -> None:
        """A run begins; what it says from here on is compared with what was heard."""
        self._again, self._ids_again = "", 0

    def hear(self, event: Event) -> Event | None:
        """What is new of `event`; None where it was heard before. Raises JanusError where an answer goes on differently."""
        if isinstance(event, Said):
            return self._hear_text(event)
        if isinstance(event, Finished):
            self._check_end()
            return event
        if isinstance(event, Failed):
            return event
        return event if self._is_new(event) else None

    def _is_new(self, event: Event) -> bool:
        if isinstance(event, Waiting):
            return not self._started
        if isinstance(event, Started):
            was, self._started = self._started, True
            return not was
        if isinstance(event, Progress):
            was_step, self._step = self._step, max(event.step, self._step)
            return event.step > was_step
        if isinstance(event, Partial):
            known = (event.number, event.index) in self._partials
            self._partials.add((event.number, event.index))
            return not known
        assert isinstance(event, Drawn)
        known = event.number in self._drawn
        self._drawn.add(event.number)
        return not known

    def _hear_text(self, event: Said) -> Said | None:
        before, self._again = len(self._again), self._again + event.text
        self._ids_again += len(event.text_ids)
        common = min(len(self._again), len(self._text))
        if self._again[before:common] != self._text[before:common]:
            raise _differs()
        text = self._again[max(before, len(self._text)) :]
        new_ids = self._ids_again - self._num_ids
        ids = event.text_ids[-new_ids:] if new_ids > 0 else ()
        self._text += text
        self._num_ids += len(ids)
        return Said(text, ids) if text or ids else None

    def _check_end(self) -> None:
        if len(self._again) < len(self._text):
            raise _differs()


def _differs() -> JanusError:
    return JanusError("the replica that gave this answer was lost, and another one gives a different answer; send the request again")

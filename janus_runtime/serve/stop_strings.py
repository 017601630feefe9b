"""Ends a text before the first of some strings, while the text comes in chunks."""

from collections.abc import Sequence


class StopStrings:
    """Feed it chunks; it gives back what is sure to lie before every stop string, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, chunk: str) -> str:
        """The text that may be shown now. Nothing after `found`."""
        if self.found:
            return ""
        text = self._held + chunk
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        sure = len(text) - max((self._beginning(text, stop) for stop in self._stops), default=0)
        self._held = text[sure:]
        return text[:sure]

    def finish(self) -> str:
        """What was held back, when no more comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """How many characters at the end of `text` are the beginning of `stop`."""
        return next((length for length in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:length])), 0)

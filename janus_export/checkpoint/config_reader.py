"""An object inside config.json, read field by field with errors that name the field."""

from typing import Any

from ..errors import CheckpointError

# Ten times what any member has; a number beyond it is a mistake that would take long to find otherwise.
MOST_LAYERS = 300


class Section:
    """An object inside `file`. Every getter raises CheckpointError with the field's full name."""

    def __init__(self, raw: object, where: str = "", file: str = "config.json") -> None:
        if not isinstance(raw, dict):
            raise CheckpointError(f"{file}: {where or 'the file'} is {raw!r:.60}; expected an object")
        self.raw: dict[str, Any] = raw
        self.where, self.file = where, file

    def name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str, default: object = None) -> Any:
        value = self.raw.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.file} has no {self.name(key)}; is the file complete?")
        return value

    def section(self, key: str, beneath: dict[str, Any] | None = None) -> "Section":
        """The object under `key`, with fields that it does not state taken from `beneath`."""
        inner = Section(self.get(key), self.name(key), self.file)
        inner.raw = {**(beneath or {}), **inner.raw}
        return inner

    def integer(self, key: str, default: int | None = None, most: int = 2**31 - 1) -> int:
        value = self.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(f"{self.file}: {self.name(key)} is {value!r:.60}; expected a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e9:
            raise CheckpointError(f"{self.file}: {self.name(key)} is {value!r:.60}; expected a number above 0")
        return float(value)

    def integers(self, key: str, default: list[int] | None = None) -> tuple[int, ...]:
        values = self.get(key, default)
        if not isinstance(values, list) or not values or not all(type(v) is int and 1 <= v < 2**15 for v in values):
            raise CheckpointError(f"{self.file}: {self.name(key)} is {values!r:.60}; expected a list of whole numbers above 0")
        return tuple(values)

    def expect(self, key: str, expected: object) -> None:
        """What is not stated is what we expect."""
        got = self.raw.get(key)
        if got is not None and got != expected:
            raise CheckpointError(f"{self.file}: {self.name(key)} is {got!r:.60}; this export builds {expected!r} only")

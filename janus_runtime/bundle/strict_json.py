"""JSON as dataclasses, strictly: nothing missing, nothing unknown, no other type."""

import dataclasses
import math
import types
import typing
from typing import Annotated, Any, Literal

from ..errors import BundleError

# No size, id or count needs more than the first; sizes of files do.
_LIMIT, _LARGE_LIMIT = 2**31, 2**63
LargeInt = Annotated[int, _LARGE_LIMIT]


def parse(kind: Any, value: Any, where: str) -> Any:
    """`value` from JSON as `kind`: a dataclass, a container, a union, a Literal or a plain type. Whole numbers are never negative."""
    limit = _LIMIT
    if typing.get_origin(kind) is Annotated:
        kind, limit = typing.get_args(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (types.UnionType, typing.Union):
        if types.NoneType in arguments:
            (other,) = set(arguments) - {types.NoneType}
            return None if value is None else parse(other, value, where)
        if type(value) in arguments:
            return value
    elif origin is Literal:
        if value in arguments:
            return value
        raise BundleError(f"{where}: expected one of {', '.join(map(str, arguments))}, got {value!r}")
    elif kind is float and type(value) in (int, float):
        if math.isfinite(value):
            return float(value)
    elif kind is int and type(value) is int:
        if 0 <= value < limit:
            return value
    elif kind is type(value):
        return value
    raise BundleError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, got {value!r}")
    fields = typing.get_type_hints(kind, include_extras=True)
    if missing := sorted(fields.keys() - value.keys()):
        raise BundleError(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(value.keys() - fields.keys()):
        raise BundleError(f"{where}: unknown {', '.join(unknown)}")
    return kind(**{name: parse(field, value[name], f"{where}.{name}") for name, field in fields.items()})

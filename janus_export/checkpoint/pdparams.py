"""Paddle's files of weights (`.pdparams`), read without Paddle, and PaddleMIX's Janus in them under the original names.

A file is one pickle, of a dictionary from names to NumPy arrays. Of pickles only what such files need is read: the operations
below and the names in _GLOBALS, which stand for nothing that could run. An array's bytes are passed over; their place is kept.
"""

import math
import pickle
import re
import reprlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import ml_dtypes
import numpy as np

from ..errors import CheckpointError
from .tensor import Tensor, lfs_hint

_DTYPES = {
    "f8": np.dtype(np.float64),
    "f4": np.dtype(np.float32),
    "f2": np.dtype(np.float16),
    "u2": np.dtype(ml_dtypes.bfloat16),  # NumPy has no such type; Paddle hands it the bits
    "i8": np.dtype(np.int64),
    "i4": np.dtype(np.int32),
    "u1": np.dtype(np.uint8),
    "b1": np.dtype(np.bool_),
}
_AGAIN = "load it with Paddle and save it again with paddle.save(state, path, protocol=4)"
_LONGEST = 1 << 16  # bytes of one name or number; arrays' bytes are not read

# Matrices that are looked up in, not multiplied with: stored as everywhere.
_TABLE = re.compile(r"(embed_tokens|gen_embed|quantize\.embedding)\.weight$")
_FUSED = re.compile(r"\.(self_attn\.qkv_proj|mlp\.gate_up_fused_proj)\.weight$")


@dataclass(frozen=True)
class _Place:
    """Where an array's bytes lie."""

    offset: int
    length: int


@dataclass
class _Dtype:
    code: Any
    order: Any = "|"

    def restore(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


@dataclass
class _Array:
    shape: Any = ()
    dtype: Any = None
    fortran: Any = False
    place: Any = None

    def restore(self, state: tuple[Any, ...]) -> None:
        self.shape, self.dtype, self.fortran, self.place = state[-4:]


# NumPy 2 moved its insides; `builtins` is called `__builtin__` by older protocols.
_GLOBALS: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): lambda place, dtype, shape, order: _Array(shape, dtype, order == "F", place)
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): lambda code, *_: _Dtype(code),
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("collections", "OrderedDict"): lambda: {},
}
_KEPT = """PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 SHORT_BINUNICODE BINUNICODE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2
    TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE"""


class _Unpickler(pickle._Unpickler):
    """Every call that it makes is of a value of _GLOBALS. `file` is at its start."""

    # What typeshed leaves out of the base class.
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(self)  # whatever is read goes through `read` and `readline`
        self._path, self._file, self._size = path, file, path.stat().st_size

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST)

    def read(self, count: int) -> bytes:
        if count > _LONGEST:
            raise pickle.UnpicklingError(f"a text of {count} bytes")
        return self._file.read(count)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        if (module, name) == ("_codecs", "encode"):
            raise CheckpointError(f"{self._path} has its arrays as text, as pickle protocol 2 stores them; {_AGAIN}")
        raise CheckpointError(
            f"{self._path} asks for {f'{module}.{name}'!r:.80}, which no weights need; expected arrays only. Nothing of it was run: "
            "fetch it from where you trust it"
        )

    def _build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].restore(state)

    def _fill(self, items: list[Any]) -> None:
        """Into the dictionary on top. Names alone, since the hash of nested tuples can be made to take for ever, or all of the stack."""
        for name in items[::2]:
            if type(name) is not str:
                raise CheckpointError(f"{self._path} has a {_kind(name)} for a name; expected a flat dictionary of arrays: {_AGAIN}")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _setitem(self) -> None:
        value = self.stack.pop()
        self._fill([self.stack.pop(), value])

    def _pass_over(self, length: str) -> None:
        count = struct.unpack(length, self.read(struct.calcsize(length)))[0]
        place = _Place(self._file.tell(), count)
        if place.offset + count > self._size:
            raise CheckpointError(
                f"{self._path} is {self._size} bytes, too short for an array up to {place.offset + count}: truncated; fetch it again"
            )
        self._file.seek(count, 1)
        self.append(place)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _KEPT.split()},
        pickle.SHORT_BINBYTES[0]: lambda self: self._pass_over("<B"),
        pickle.BINBYTES[0]: lambda self: self._pass_over("<I"),
        pickle.BINBYTES8[0]: lambda self: self._pass_over("<Q"),
        pickle.BYTEARRAY8[0]: lambda self: self._pass_over("<Q"),
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: lambda self: self._fill(self.pop_mark()),
        pickle.FRAME[0]: lambda self: self.read(8),  # a hint to read ahead
    }


def read_pdparams(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names as stored, and tensors as stored. Raises CheckpointError on whatever is not a whole file of plain arrays."""
    try:
        with path.open("rb") as file:
            state = _Unpickler(path, file).load()
            rest = path.stat().st_size - file.tell()
    except CheckpointError:
        raise
    except Exception:  # rubbish makes the unpickler raise almost anything
        raise CheckpointError(
            f"{path} is damaged, or holds more than arrays{lfs_hint(path)}; only weights are read from pickles: fetch it again"
        ) from None
    if rest:
        raise CheckpointError(f"{path} has {rest} bytes after its end: damaged; fetch it again")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {_kind(state)}; expected a flat dictionary of arrays: {_AGAIN}")
    if "UnpackBigParamInfor@@" in state:
        raise CheckpointError(f"{path} has large arrays cut in pieces, as pickle protocols 2 and 3 need it; {_AGAIN}")
    state.pop("StructuredToParameterName@@", None)
    for name, value in state.items():
        # Outside a plain state of tensors, each is stored with the name that Paddle knows it by.
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if not isinstance(array, _Array):
            raise CheckpointError(f"{path}: {reprlib.repr(name)} is a {_kind(array)}; expected a flat dictionary of arrays: {_AGAIN}")
        yield name, _tensor(path, name, array)


def _tensor(path: Path, name: str, array: _Array) -> Tensor:
    stated = array.dtype if isinstance(array.dtype, _Dtype) else _Dtype(array.dtype)
    dtype = _DTYPES.get(stated.code) if isinstance(stated.code, str) else None
    if dtype is None or stated.order == ">":
        got = reprlib.repr(stated.code) + ", big-endian" * (stated.order == ">")
        raise CheckpointError(f"{path}: {name} has dtype {got}; expected float32, float16 or bfloat16 (as uint16): {_AGAIN}")
    shape, length = array.shape, array.place.length if isinstance(array.place, _Place) else None
    plain = isinstance(shape, tuple) and len(shape) <= 64 and all(type(size) is int and 0 <= size < 2**63 for size in shape)
    if not plain or length != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"{path}: {name} has shape {reprlib.repr(shape)} of {dtype} in {length} bytes: damaged; fetch it again")
    tensor = Tensor(path, array.place.offset, dtype, shape)
    if array.fortran and len(shape) > 2:
        raise CheckpointError(f"{path}: {name} {list(shape)} is stored in Fortran's order; expected C's: {_AGAIN}")
    return replace(tensor, stride=shape[0]) if array.fortran and len(shape) == 2 else tensor


def _kind(value: object) -> str:
    return type(value).__name__.strip("_").lower()


def is_paddle(names: Mapping[str, object]) -> bool:
    """Whether these are PaddleMIX's names, in whatever kind of file."""
    return any(name.startswith("language_model.llama.") for name in names)


def paddle_to_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PaddleMIX's names -> the original ones; the matrices of its linear layers, stored [in, out], are turned to [out, in]."""
    if fused := next(filter(_FUSED.search, tensors), None):
        raise CheckpointError(f"{fused} is fused; expected a matrix each: save again with fuse_attention_qkv and fuse_attention_ffn false")
    return {
        re.sub(r"^language_model\.llama\.", "language_model.model.", name): tensor.transposed()
        if len(tensor.shape) == 2 and name.endswith(".weight") and not _TABLE.search(name)
        else tensor
        for name, tensor in tensors.items()
    }

"""What each graph is stored as, by precision: the one table of it."""

from dataclasses import dataclass, replace

from janus_runtime.bundle.manifest import DType, Precision
from janus_runtime.checks.tolerances import ALWAYS_FP32, FOUR_BITS


@dataclass(frozen=True)
class Blocks:
    """Integer weights of `bits` each; `size` of them, along a matrix's inputs, share a scale (fewer in a narrow matrix)."""

    bits: int
    size: int


@dataclass(frozen=True)
class Format:
    """`dtype` of activations and of weights that stay whole; matrices, embedding tables and cache may be of fewer bits."""

    dtype: DType
    matrices: Blocks | None = None
    tables: Blocks | None = None
    int8_cache: bool = False


_FP32 = Format("float32")
# Blocks of 128: of 32, the scales and what ONNX Runtime keeps beside them are a third of the bytes of 4-bit weights, and
# products of many rows take 1.4 times as long (bench/NOTES.md, 8).
_INT8 = Format("float32", matrices=Blocks(8, 128), tables=Blocks(8, 128))
_INT4 = Format("float32", matrices=Blocks(4, 128))

# Looked up by graph, then by kind (without the flavour), then "". Norms, biases and tables of angles are never quantised.
_FORMATS: dict[Precision, dict[str, Format]] = {
    "fp32": {"": _FP32},
    "fp16": {"": Format("float16")},
    "int8": {"": _INT8, "language_model.gqa": replace(_INT8, int8_cache=True)},
    # The decoder is read once a step, so its bytes are the time; the rest is read once a picture or small.
    "int4": {"": _INT8, **dict.fromkeys(FOUR_BITS, _INT4), "language_model.gqa": replace(_INT4, int8_cache=True)},
}


def format_of(graph: str, precision: Precision) -> Format:
    """`graph` with or without its flavour. The VQ tokenizer stays in fp32: a picture shows its rounding, and it is small."""
    kind = graph.split(".")[0]
    formats = _FORMATS[precision]
    return _FP32 if kind in ALWAYS_FP32 else formats.get(graph, formats.get(kind, formats[""]))

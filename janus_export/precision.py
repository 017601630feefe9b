"""What each graph is stored as, by precision: the one table of it."""

from dataclasses import dataclass, replace

from janus_runtime.bundle.interface import DType, Flavour, GraphKind, Weights
from janus_runtime.bundle.manifest import Precision


@dataclass(frozen=True)
class Blocks:
    """Integer weights of `bits` each; `size` of them, along a matrix's inputs, share a scale (fewer in a narrow matrix)."""

    bits: int
    size: int


@dataclass(frozen=True)
class Format:
    """`dtype` of activations and of weights that stay whole; matrices, embedding tables and cache may be of fewer bits.

    `by_column`: a matrix of 8 bits may have one scale a column instead of blocks, where its product bears that (`onnx/judge.py`).
    """

    dtype: DType
    matrices: Blocks | None = None
    tables: Blocks | None = None
    by_column: bool = False
    int8_cache: bool = False

    @property
    def weights(self) -> Weights:
        """What most of a graph's weights are stored as, for its manifest entry."""
        if self.matrices:
            return "int4" if self.matrices.bits == 4 else "int8"
        return "float16" if self.dtype == "float16" else "float32"


_FP32 = Format("float32")
# Blocks of 128: of 32, the scales and what ONNX Runtime keeps beside them are a third of the bytes of 4-bit weights, and
# products of many rows take 1.4 times as long (bench/NOTES.md, 8). Of 4 bits, whose scales are fitted, 256 cost no accuracy.
_INT8 = Format("float32", matrices=Blocks(8, 128), tables=Blocks(8, 128))
_INT4 = Format("float32", matrices=Blocks(4, 256))

# These stay in fp32 in every bundle: a picture shows the rounding of the VQ tokenizer, and all three are small.
ALWAYS_FP32 = frozenset({"image_encoder", "image_decoder", "time_embed"})
# The decoder is read once a step, so its bytes are the time; the rest is read once a picture, or is small.
FOUR_BITS = frozenset({"language_model", "text_head", "flow_step"})

# Norms, biases and tables of angles are never quantised.
_FORMATS: dict[Precision, Format] = {"fp32": _FP32, "fp16": Format("float16"), "int8": _INT8, "int4": _INT8}


def format_of(kind: GraphKind, precision: Precision, flavour: Flavour | None = None) -> Format:
    if kind in ALWAYS_FP32:
        return _FP32
    format = _INT4 if precision == "int4" and kind in FOUR_BITS else _FORMATS[precision]
    # Products of whole rows of integers are what ONNX Runtime has on CPUs; other devices take blocks.
    if format is _INT8 and flavour in ("gqa", "cpu"):
        format = replace(format, by_column=True)
    # Only ONNX Runtime's operator on a CPU reads keys and values of 8 bits.
    return replace(format, int8_cache=True) if precision in ("int8", "int4") and (kind, flavour) == ("language_model", "gqa") else format

"""Which dtype each graph computes and stores in, by precision."""

from janus_runtime.manifest import DType, Precision
from janus_runtime.tolerances import ALWAYS_FP32

_ACTIVATIONS: dict[Precision, DType] = {"fp32": "float32", "fp16": "float16"}


def dtype_of(graph: str, precision: Precision) -> DType:
    """The VQ tokenizer stays in fp32: a picture shows its rounding, and its share of the weights is small."""
    return "float32" if graph in ALWAYS_FP32 else _ACTIVATIONS[precision]

"""TensorRT 8.6's ONNX operators and their types, of those that an exporter of transformers and convolutions meets.

From onnx-tensorrt, branch release/8.6-EA, docs/operators.md. Its reader makes INT32 of INT64, so here they are one type.
"""

F, INT, B = "FLOAT FLOAT16", "INT32", "BOOL"

OPERATORS = {
    "Add": f"{F} {INT}", "And": B, "ArgMax": f"{F} {INT}", "Cast": f"{F} {INT} {B}", "Clip": F, "Concat": f"{F} {INT} {B}",
    "Constant": f"{F} {INT} {B}", "ConstantOfShape": "FLOAT", "Conv": F, "Cos": F, "DepthToSpace": f"{F} {INT}",
    "Div": f"{F} {INT}", "Equal": f"{F} {INT}", "Erf": F, "Exp": F,
    "Expand": f"{F} {INT} {B}", "Gather": f"{F} {INT} {B}", "Gemm": F, "Greater": f"{F} {INT}", "GreaterOrEqual": f"{F} {INT}",
    "Identity": f"{F} {INT} {B}", "LayerNormalization": F, "Less": f"{F} {INT}", "LessOrEqual": f"{F} {INT}", "Log": F, "MatMul": F,
    "Max": f"{F} {INT}", "Min": f"{F} {INT}", "Mul": f"{F} {INT}", "Neg": f"{F} {INT}", "Not": B, "Or": B, "Pad": f"{F} {INT}", "Pow": F,
    "Range": f"{F} {INT}", "Reciprocal": F, "ReduceL2": F, "ReduceMax": F, "ReduceMean": F, "ReduceSum": F, "Reshape": f"{F} {INT} {B}",
    "Resize": F, "Shape": f"{F} {INT} {B}", "Sigmoid": F, "Sin": F,
    "Slice": f"{F} {INT} {B}", "Softmax": F, "Split": f"{F} {INT} {B}", "Sqrt": F,
    "Squeeze": f"{F} {INT} {B}", "Sub": f"{F} {INT}", "Tanh": F, "Tile": f"{F} {INT} {B}", "TopK": f"{F} {INT}",
    "Transpose": f"{F} {INT} {B}",
    "Trilu": f"{F} {INT} {B}", "Unsqueeze": f"{F} {INT} {B}", "Where": f"{F} {INT} {B}",
}  # fmt: skip

# Operator -> which of its inputs must be known when the file is read.
CONSTANTS = {"Slice": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "Clip": (1, 2)}

# Inputs and outputs that are shapes, axes or indices and so of integers whatever the operator computes with.
INDICES = {
    "ArgMax": {"outputs": (0,)}, "Expand": {"inputs": (1,)}, "Gather": {"inputs": (1,)}, "Pad": {"inputs": (1, 3)},
    "ReduceSum": {"inputs": (1,)}, "Reshape": {"inputs": (1,)}, "Resize": {"inputs": (3,)}, "Shape": {"outputs": (0,)},
    "Slice": {"inputs": (1, 2, 3, 4)}, "Split": {"inputs": (1,)}, "Squeeze": {"inputs": (1,)}, "Tile": {"inputs": (1,)},
    "TopK": {"inputs": (1,), "outputs": (1,)}, "Unsqueeze": {"inputs": (1,)}, "ConstantOfShape": {"inputs": (0,)},
}  # fmt: skip

# Whose outputs are BOOL whatever is compared.
COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}

# Words of Resize that it reads.
RESIZE = {
    "coordinate_transformation_mode": {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"},
    "mode": {"nearest", "linear"},
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
}

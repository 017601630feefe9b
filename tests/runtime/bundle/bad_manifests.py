"""Manifests that are wrong in one field, and what is said of each: both runtimes refuse them in the same words."""

import json

from janus_runtime.bundle.manifest import FORMAT

# Path of a field, its value, and a part of the message.
WRONG_FIELDS = [
    ("format", FORMAT + 1, f"has format {FORMAT + 1}, this version reads format {FORMAT}; export the bundle again"),
    ("format", "2", "has no format number"),
    ("format", True, "has no format number"),
    ("tokens.bos.id", "0", r"tokens.bos.id: expected int, got '0'"),
    ("tokens.bos", None, "tokens: missing bos"),
    ("colour", "red", "unknown colour"),
    ("precision", "fp8", "precision: expected one of fp32, fp16, int8, int4, got 'fp8'"),
    ("defaults.cfg_weight", "5", "defaults.cfg_weight: expected float, got '5'"),
    ("language_model.num_layers", 2.5, "language_model.num_layers: expected int, got 2.5"),
    ("image_output.num_tokens", 15, "image_output.num_tokens does not fit: expected 16, got 15"),
    ("image_input.mean", [0.5], "image_input.mean does not fit: expected 3, got 1"),
    ("tasks", "generation", "tasks: expected"),
    ("graphs.text_head.file", "other.onnx", "'other.onnx' is not listed under files"),
    ("files", {}, "'weights.data' is not listed under files"),
    ("graphs", {}, "graphs image_decoder, image_embed, .* are missing, which generation needs"),
    ("defaults.temperature", float("nan"), "defaults.temperature: expected float, got nan"),
    ("language_model.num_heads", -1, "num_heads: expected int, got -1"),
    ("language_model.num_layers", 10**12, "num_layers: expected int, got 1000000000000"),
    ("tasks", [], r"tasks is \(\), which no Janus has"),
    ("image_input.min_size", 100000, "image_input.min_size is 100000, which no Janus has"),
    ("image_input.std", [0.5, 0, 0.5], "image_input.std is .*, which no Janus has"),
    ("image_input.background", [999, 0, 0], "image_input.background is"),
    ("defaults.max_tokens", 0, "defaults.max_tokens is 0"),
    ("language_model.max_length", 1, "language_model.max_length is 1"),
    ("tokens.eos.id", 5000, "tokens.eos.id is 5000"),
    ("graphs.text_embed.inputs", {}, r"graphs.text_embed.inputs does not fit: expected \['text_ids'\], got \[\]"),
    ("language_model.num_layers", 3, r"language_model.gqa.inputs does not fit: expected .*'past_value_2'\], got"),
    ("language_model.head_size", 32, "inputs.past_key_0 does not fit"),
    ("graphs.language_model.gqa.flavour", "slice", "graphs.language_model.gqa does not fit: expected language_model.slice"),
    ("graphs.text_draw.kind", "image_draw", "graphs.text_draw does not fit: expected image_draw, got text_draw"),
    ("graphs.text_head.flavour", "gqa", "graphs.text_head does not fit: expected text_head.gqa"),
    ("graphs.text_head.judged", {"error": "small"}, r"graphs.text_head.judged.error: expected float, got 'small'"),
    ("graphs.text_head.kind", "head", "graphs.text_head.kind: expected one of text_embed, .*, got 'head'"),
    ("graphs.text_head.format.weights", "int2", "graphs.text_head.format.weights: expected one of float32, float16, int8, int4"),
    ("graphs.language_model.gqa.cache.ragged_append", True, "graphs.language_model.gqa.cache does not fit"),
    ("language_model.vocab_size", 321, r"graphs.text_head.outputs.logits does not fit: expected .*\('rows', 321\)"),
    ("image_input.num_tokens", 15, "graphs.vision_encoder.outputs.embeds does not fit"),
    ("image_output.num_ids", 513, "graphs.image_head.outputs.logits does not fit"),
    ("image_output.size", 65, "graphs.image_encoder.inputs.pixels does not fit"),
    (
        "graphs.image_encoder.outputs.image_ids.shape",
        ["n", 16],
        r"image_encoder.outputs.image_ids does not fit: expected .*'images', 16.*, got .*'n', 16",
    ),
    ("graphs.text_head.judged", None, "graphs.text_head: missing judged"),
    ("graphs.text_head.judged", "good", "graphs.text_head.judged: expected dict, got 'good'"),
    ("graphs.text_head.judged", {"psnr_db": "30"}, "graphs.text_head.judged.psnr_db: expected float, got '30'"),
    ("graphs.text_head.inputs.hidden.shape", ["rows", 1.5], r"shape\[1\]: expected"),
]
# Of JanusFlow's manifest.
WRONG_FLOW_FIELDS = [
    ("flow.solvers", None, "flow: missing solvers"),
    ("flow.solvers.ab2", None, "flow.solvers: missing ab2"),
    ("flow.solvers.heun", {"steps": 30, "shift": 1.0}, "flow.solvers: unknown heun"),
    ("flow.solvers.euler.steps", 0, "flow.solvers.euler.steps is 0, which no Janus has"),
    ("flow.solvers.ab2.steps", 10_001, "flow.solvers.ab2.steps is 10001, which no Janus has"),
    ("flow.solvers.ab2.steps", 7.5, "flow.solvers.ab2.steps: expected int, got 7.5"),
    ("flow.solvers.ab2.shift", 0.5, "flow.solvers.ab2.shift is 0.5, which no Janus has"),
    ("flow.solvers.euler.shift", 101, "flow.solvers.euler.shift is 101.0, which no Janus has"),
    ("flow.solvers.ab2.shift", "2", "flow.solvers.ab2.shift: expected float, got '2'"),
]
PATHS_OUT = ["../weights.data", "/etc/passwd", "a/../../b", "..\\b", "C:b", "", "a\0b"]


def changed(raw, path, value):
    """A copy of `raw` with the field at `path` set, or taken out for None."""
    copy = json.loads(json.dumps(raw))
    # The name of a flavour's graph has a dot.
    *parents, last = path.replace("model.gqa", "model/gqa").split(".")
    node = copy
    for parent in parents:
        node = node[parent.replace("/", ".")]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return copy

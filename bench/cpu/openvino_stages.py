"""OpenVINO on every stage, for `bench.cpu.rivals`: a process in an environment that has optimum-intel.

    python bench/cpu/openvino_stages.py CHECKPOINT BITS SHAPE

`openvino_export.py` says which graphs these are. A stage of the decoder is two calls, decoder and head, since both heads share the
decoder. OpenVINO quantises activations by itself in groups of 32 where the processor multiplies integers; groups of 128 are tried
too, for prompts and for steps, as are 8-bit weights for the vision encoder, and whichever is faster here is timed. All else, the
precision of products and the 8-bit cache among it, is as OpenVINO chooses. SHAPE is that of `bench.cpu.rivals.shape_of`.

OpenVINO has no call that shortens its cache: a step makes it longer, and after 32 steps it is filled anew up to the stage's length.
"""

import stage_process  # isort: skip

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

Settings = dict[str, str]
GROUPS: dict[str, Settings] = {"groups of 32": {}, "groups of 128": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "128"}}
_STEPS_BEFORE_REFILL = 32


class Graphs:
    """Compiled models by file and settings, each opened when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._core = openvino.Core()
        self._open: dict[tuple[str, str], openvino.CompiledModel] = {}

    def get(self, name: str, groups: str = "groups of 32") -> openvino.CompiledModel:
        key = (name, groups)
        if key not in self._open:
            settings = {"PERFORMANCE_HINT": "LATENCY", **GROUPS[groups]}
            self._open[key] = self._core.compile_model(self.folder / f"{name}.xml", "CPU", settings)
        return self._open[key]

    def bytes_of(self, name: str) -> int:
        return (self.folder / f"{name}.bin").stat().st_size


class Sequences:
    """`rows` sequences in a cache of their own."""

    def __init__(self, decoder: openvino.CompiledModel, head: openvino.CompiledModel, rows: int, tokens: int) -> None:
        self._decoder, self._head = decoder.create_infer_request(), head.create_infer_request()
        self._rows, self._tokens, self._length = rows, tokens, 0
        self._states = self._decoder.query_state()
        self._random = np.random.default_rng(0)

    def prefill(self) -> None:
        self._decoder.reset_state()
        self._length = 0
        self._run(self._tokens)

    def step(self) -> None:
        if not self._tokens <= self._length < self._tokens + _STEPS_BEFORE_REFILL:
            self._fill()
        self._run(1)

    def _fill(self) -> None:
        """What the cache holds does not matter for time: every layer gets the same."""
        if not self._length:
            self._run(1)  # After the first token a state says its shape.
        rows, heads, _, width = self._states[0].state.shape
        values = openvino.Tensor(self._random.standard_normal((rows, heads, self._tokens, width), np.float32))
        for state in self._states:
            state.state = values
        self._length = self._tokens

    def _run(self, tokens: int) -> None:
        inputs = {
            "input_ids": np.ones((self._rows, tokens), np.int64),
            "attention_mask": np.ones((self._rows, self._length + tokens), np.int64),
            "position_ids": np.tile(np.arange(self._length, self._length + tokens), (self._rows, 1)),
            "beam_idx": np.arange(self._rows, dtype=np.int32),
        }
        self._decoder.infer(inputs)
        self._head.set_input_tensor(self._decoder.get_output_tensor())
        self._head.infer()
        self._length += tokens


def decoder_stages(graphs: Graphs, config: dict, shape: dict, chosen: dict[str, str]) -> list[stage_process.Stage]:
    """`chosen` is told in which groups prompts and steps run."""
    text, vq = config["text_config"], config["vq_config"]
    heads = text.get("num_key_value_heads", text["num_attention_heads"])
    token_bytes = 2 * text["num_hidden_layers"] * heads * (text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])
    # All but the table before it, which is 8 bits wide in either precision.
    weights = graphs.bytes_of("decoder") - vq["num_embeddings"] * text["hidden_size"]
    rows, length = shape["rows"], shape["text_tokens"]

    def sequences(groups: str, head: str, rows: int, tokens: int) -> Sequences:
        return Sequences(graphs.get("decoder", groups), graphs.get(head, groups), rows, tokens)

    prompts = stage_process.fastest({groups: sequences(groups, "text_head", 1, length).prefill for groups in GROUPS})
    # Steps run in the groups of prompts unless others are clearly faster: two decoders take twice the memory.
    ordered = sorted(GROUPS, key=lambda groups: groups != prompts)
    steps = stage_process.fastest({groups: sequences(groups, "text_head", 1, length).step for groups in ordered}, margin=0.1)
    chosen |= {"prompts": prompts, "steps": steps}

    def step(name: str, head: str, rows: int, tokens: int) -> stage_process.Stage:
        reads = weights + graphs.bytes_of(head) + rows * tokens * token_bytes
        return stage_process.Stage(name, sequences(steps, head, rows, tokens).step, reads)

    return [
        stage_process.Stage("image prefill", sequences(prompts, "image_head", rows, shape["prompt_tokens"]).prefill),
        *(step(name, "image_head", rows, tokens) for name, tokens in shape["image_steps"].items()),
        stage_process.Stage("text prefill", sequences(prompts, "text_head", 1, length).prefill),
        step("text step", "text_head", 1, length),
    ]


def picture_stages(graphs: Graphs, config: dict, chosen: dict[str, str]) -> list[stage_process.Stage]:
    vision, vq = config["vision_config"], config["vq_config"]
    random = np.random.default_rng(0)
    ids = random.integers(0, vq["num_embeddings"], (1, vq["num_patches"] ** 2))
    pixels = random.uniform(-1, 1, (1, 3, vision["image_size"], vision["image_size"])).astype(np.float32)

    def run(name: str, values: np.ndarray, groups: str = "groups of 32") -> Callable[[], object]:
        request = graphs.get(name, groups).create_infer_request()
        return lambda: request.infer([values])

    ways = {f"8-bit weights, {groups}": run("vision_encoder_int8", pixels, groups) for groups in GROUPS}
    ways["whole weights"] = run("vision_encoder", pixels)
    chosen["vision encode"] = stage_process.fastest(ways)
    return [
        stage_process.Stage("image decode", run("image_decoder", ids)),
        stage_process.Stage("vision encode", ways[chosen["vision encode"]]),
    ]


def open_stages(folder: Path, config: dict, shape: dict) -> tuple[list[stage_process.Stage], dict[str, object]]:
    """The stages, and what to say of them. A graph that no stage has chosen is given back at the end."""
    graphs, chosen = Graphs(folder), dict[str, str]()
    stages = picture_stages(graphs, config, chosen) + decoder_stages(graphs, config, shape, chosen)
    return stages, {"chosen": chosen, "computes_in": graphs.get("decoder").get_property("INFERENCE_PRECISION_HINT").get_type_name()}


def main() -> None:
    checkpoint, bits, shape = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    config = json.loads((checkpoint / "config.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        export = Path(__file__).with_name("openvino_export.py")
        if subprocess.run([sys.executable, export, checkpoint, bits, str(shape["rows"]), folder]).returncode:
            sys.exit("the export to OpenVINO failed; its error stands above")
        stages, about = open_stages(Path(folder), config, shape)
    stage_process.serve(stages, ["openvino", "optimum-intel", "nncf"], **about)


if __name__ == "__main__":
    main()

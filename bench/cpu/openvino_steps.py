"""OpenVINO's steps of a Janus decoder, for `bench.cpu.rivals`: a process in an environment that has optimum-intel.

    python bench/cpu/openvino_steps.py CONFIG BITS ROWS LENGTH…

The decoder as optimum-intel exports a Llama of the same sizes, with one plain table before it and one matrix after it, as
large as Janus's codebook: a little less work than Janus's aligner and head. Weights are random, 8 bits as optimum has them
by default or 4 bits, symmetric, in groups of 128 as ours (64 takes as long). Prints one line of JSON when it is ready, then
answers each line of stdin, an index into the lengths, with `done` after one step. The cache grows by the step, as it does in
use, so that late calls read some tokens more than the length says.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

# What libraries say while they are imported and export must not stand between the answers.
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import openvino  # noqa: E402
import torch  # noqa: E402
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402


def export(config: LlamaConfig, bits: int, folder: Path) -> Path:
    """-> the OpenVINO model's file."""
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "torch")
    how = {8: {}, 4: {"sym": True, "group_size": 128, "ratio": 1.0}}[bits]
    quantisation = OVWeightQuantizationConfig(bits=bits, **how)
    model = OVModelForCausalLM.from_pretrained(folder / "torch", export=True, compile=False, quantization_config=quantisation)
    model.save_pretrained(folder / "openvino")
    return folder / "openvino" / "openvino_model.xml"


def main() -> None:
    config, bits, rows = LlamaConfig(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        # optimum keeps 5 GB in a temporary folder of its own until it ends, and this process is killed in the end.
        tempfile.tempdir = folder
        path = export(config, bits, Path(folder))
        weights = path.with_suffix(".bin").stat().st_size
        compiled = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    requests = []
    for length in map(int, sys.argv[4:]):
        requests.append([compiled.create_infer_request(), 0])
        step(requests[-1], rows, length)
    versions = {name: version(name) for name in ("openvino", "optimum-intel", "nncf")}
    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    print(json.dumps({"weights": weights, "computes_in": precision, "versions": versions}), file=_ANSWERS, flush=True)
    for line in sys.stdin:
        step(requests[int(line)], rows, 1)
        print("done", file=_ANSWERS, flush=True)


def step(request: list, rows: int, tokens: int) -> None:
    """Runs `tokens` more tokens; `request` is an infer request and how many tokens its state holds."""
    infer, length = request
    names = {name for port in infer.model_inputs for name in port.get_names()}
    inputs = {
        "input_ids": np.ones((rows, tokens), np.int64),
        "attention_mask": np.ones((rows, length + tokens), np.int64),
        "position_ids": np.tile(np.arange(length, length + tokens), (rows, 1)),
        "beam_idx": np.arange(rows, dtype=np.int32),
    }
    infer.infer({name: value for name, value in inputs.items() if name in names})
    request[1] += tokens


if __name__ == "__main__":
    main()

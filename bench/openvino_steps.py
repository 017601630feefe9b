"""OpenVINO's steps of a Janus decoder, for `bench.rivals`: a process in an environment that has optimum-intel.

    python bench/openvino_steps.py CONFIG BITS ROWS LENGTH…

The decoder alone, as optimum-intel exports a Llama of the same sizes whose head is Janus's image head; weights are random,
8 bits as optimum has them by default or 4 bits, symmetric, in groups of 64. Prints `ready BYTES` (of weights), then answers
each line of stdin, an index into the lengths, with `done` after one step at that length. The cache grows by the step, as it
does in use.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino
import torch
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import LlamaConfig, LlamaForCausalLM


def export(config: LlamaConfig, bits: int, folder: Path) -> Path:
    """-> the OpenVINO model's file."""
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "torch")
    quantisation = (
        OVWeightQuantizationConfig(bits=8) if bits == 8 else OVWeightQuantizationConfig(bits=4, sym=True, group_size=64, ratio=1.0)
    )
    model = OVModelForCausalLM.from_pretrained(folder / "torch", export=True, compile=False, quantization_config=quantisation)
    model.save_pretrained(folder / "openvino")
    return folder / "openvino" / "openvino_model.xml"


def main() -> None:
    config, bits, rows = LlamaConfig(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        path = export(config, bits, Path(folder))
        weights = path.with_suffix(".bin").stat().st_size
        compiled = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    requests = []
    for length in map(int, sys.argv[4:]):
        requests.append([compiled.create_infer_request(), 0])
        step(requests[-1], rows, length)
    print("ready", weights, flush=True)
    for line in sys.stdin:
        step(requests[int(line)], rows, 1)
        print("done", flush=True)


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
    # What the exporter says must not stand between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(answers, "w")
    main()

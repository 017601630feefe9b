"""Quantised checkpoints are refused in one line: by whom, and what to do."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.cli import main
from janus_export.errors import CheckpointError

DO = "export the checkpoint that it was made from; --precision int8 or int4 quantises that one here"


@pytest.fixture
def folder(checkpoints, tmp_path):
    return shutil.copytree(checkpoints("tiny"), tmp_path / "copy")


def edit(path, **values):
    raw = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**raw, **values}))


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "torchao", "hqq", "eetq", "quanto"])
@pytest.mark.parametrize("place", [None, "text_config"])
def test_the_config_names_the_method(folder, method, place):
    stated = {"quantization_config": {"quant_method": method, "bits": 4}}
    raw = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **({place: {**raw[place], **stated}} if place else stated))
    with pytest.raises(CheckpointError, match=f"copy is quantised by '{method}', says quantization_config in config.json; {DO}"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
        ({"quantization_config": {"bits": 4}}, "a method that it does not name"),
        ({"compression_config": {"quant_method": "sparseml"}}, "'sparseml'"),
    ],
)
def test_older_and_other_statements(folder, values, method):
    edit(folder / "config.json", **values)
    with pytest.raises(CheckpointError, match=f"is quantised by {method}, says .* in config.json; {DO}"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(("name", "method"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")])
def test_a_statement_in_a_file_of_its_own(folder, name, method):
    edit(folder / name, bits=4)
    with pytest.raises(CheckpointError, match=f"is quantised by {method}, says {name}; {DO}"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("suffix", "method"),
    [
        ("qweight", "GPTQ or AWQ"),
        ("qzeros", "GPTQ or AWQ"),
        ("weight.absmax", "bitsandbytes"),
        ("weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("SCB", "bitsandbytes"),
        ("weight_packed", "compressed-tensors or an FP8 recipe"),
        ("weight_scale_inv", "compressed-tensors or an FP8 recipe"),
        ("W_q", "HQQ"),
        ("weight._data", "quanto"),
    ],
)
def test_a_config_that_is_silent(folder, suffix, method):
    arrays = load_file(folder / "model.safetensors")
    name = f"model.language_model.layers.0.mlp.up_proj.{suffix}"
    save_file({**arrays, name: np.zeros(4, np.int32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"is quantised by {method}: it holds {name}; {DO}"):
        open_checkpoint(str(folder))


def test_gguf_files(folder):
    (folder / "model.safetensors").rename(folder / "janus-Q4_K_M.gguf")
    with pytest.raises(CheckpointError, match=f"has its weights in janus-Q4_K_M.gguf, made for llama.cpp; {DO}"):
        open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match=f"is a file; .*: a GGUF file is made for llama.cpp; {DO}"):
        open_checkpoint(str(folder / "janus-Q4_K_M.gguf"))


def test_the_command_says_it_in_one_line(folder, run):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    for command in (["inspect", folder], ["checkpoint", folder, "--out", folder.parent / "out"]):
        result = run(main, *command)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "quantised by 'gptq'" in result.stderr

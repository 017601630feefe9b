"""Fine-tunes of the same architecture: what is renamed, what is left out, what is refused, and that all of it is said."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.cli import main
from janus_export.errors import CheckpointError
from janus_export.graphs import recipes_of_all
from janus_export.recipes import check_tensors


@pytest.fixture
def tuned(checkpoints, tmp_path):
    """`tuned(layout, change)` -> folder whose tensors are those of `change(dict of arrays)`."""

    def make(layout, change):
        folder = shutil.copytree(checkpoints("tiny", layout), tmp_path / "tuned")
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
        return folder

    return make


def under(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def moved(arrays):
    return {name: array + np.float32(1) for name, array in arrays.items()}


def same(folder, expected):
    """Whether all of the model is there, with the values of another checkpoint. -> the notes"""
    got, expected = open_checkpoint(str(folder)), open_checkpoint(str(expected))
    check_tensors(recipes_of_all(got.config), got.tensors)
    assert [name for name in expected.tensors if not np.array_equal(got.tensors[name].read(), expected.tensors[name].read())] == []
    return got.notes


@pytest.mark.parametrize("layout", ["hf", "original"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod.", "base_model.model.model."])
def test_a_prefix_of_all_names_is_taken_off(checkpoints, tuned, layout, prefix):
    notes = same(tuned(layout, lambda arrays: under(prefix, arrays)), checkpoints("tiny", layout))
    assert len(notes) == 1 and f"{prefix} was taken off the names of" in notes[0]


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_published_names_need_no_note(checkpoints, layout):
    assert open_checkpoint(str(checkpoints("tiny", layout))).notes == ()


def test_a_tied_checkpoint_keeps_its_names(tuned):
    """All of them begin with `model.`, as they should."""
    folder = tuned("hf", lambda arrays: {name: array for name, array in arrays.items() if name != "lm_head.weight"})
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "tie_word_embeddings": True}))
    checkpoint = open_checkpoint(str(folder))
    check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)
    assert checkpoint.notes == ()


def test_a_prefix_of_some_names_is_not_taken_off(tuned):
    folder = tuned("hf", lambda arrays: {("module." if "norm" in name else "") + name: array for name, array in arrays.items()})
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="missing model.language_model.norm.weight"):
        check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)
    assert checkpoint.notes == ()


@pytest.mark.parametrize("layout", ["hf", "original"])
@pytest.mark.parametrize("copy", ["ema.", "ema_model.", "model_ema.", "module.ema."])
def test_ema_copies_beside_the_weights_are_left_out(checkpoints, tuned, layout, copy):
    extra = {copy + "decay": np.ones(1, np.float32)}
    notes = same(tuned(layout, lambda arrays: {**arrays, **under(copy, moved(arrays)), **extra}), checkpoints("tiny", layout))
    assert len(notes) == 1 and "tensors of EMA copies were left out, such as" in notes[0] and copy in notes[0]


def test_ema_copies_beside_wrapped_weights(checkpoints, tuned):
    folder = tuned("original", lambda arrays: {**under("module.", arrays), **under("ema.module.", moved(arrays))})
    notes = same(folder, checkpoints("tiny", "original"))
    assert ["module. was taken off" in notes[0], "EMA copies were left out" in notes[1]] == [True, True]


def test_ema_weights_alone_are_the_weights(checkpoints, tuned):
    folder = tuned("original", lambda arrays: under("ema_model.", arrays))
    assert same(folder, checkpoints("tiny", "original")) == ("only EMA weights are there, under ema_model.: they are taken",)


def test_names_that_no_rule_knows_stay(tuned):
    """Some trainers write EMA names without their dots. Alone, they are no weights that could be told."""
    folder = tuned("original", lambda arrays: {"model_ema." + name.replace(".", ""): array for name, array in arrays.items()})
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.notes == () and {name.partition(".")[0] for name in checkpoint.tensors} == {"model_ema"}


def test_ema_copies_of_more_than_the_weights_are_not_left_out(tuned):
    """Which of the two would be the model?"""
    folder = tuned("hf", lambda arrays: {"lm_head.weight": arrays.pop("lm_head.weight"), **under("ema.", arrays)})
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="missing .*unknown ema|missing .* more"):
        check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "language_model.model.layers.0.self_attn.q_proj.lora_B.weight",
        "language_model.model.layers.0.self_attn.q_proj.base_layer.weight",
    ],
)
def test_adapters_that_are_not_merged_are_refused(tuned, name):
    with pytest.raises(CheckpointError, match="1 tensors of an adapter that is not merged, such as .*: call merge_and_unload()") as error:
        open_checkpoint(str(tuned("original", lambda arrays: {**arrays, name: np.zeros((2, 2), np.float32)})))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_an_adapter_alone_is_named_as_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is an adapter; expected whole weights: merge it with merge_and_unload"):
        open_checkpoint(str(tmp_path))


def test_other_names_are_refused_with_the_way_on(tuned):
    checkpoint = open_checkpoint(str(tuned("original", lambda arrays: {**arrays, "value_head.weight": np.zeros((2, 2), np.float32)})))
    with pytest.raises(CheckpointError, match=r"unknown value_head.weight \[2, 2\]. What is unknown is .*: save the weights again"):
        check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_nested_dictionary_is_named(tuned, key):
    folder = tuned("original", lambda arrays: arrays)
    (folder / "model.safetensors").unlink()
    torch.save({"epoch": 3, key: {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=f"{key} is a dict; expected a flat dictionary of tensors: .*save the one that holds the weig"
    ):
        open_checkpoint(str(folder))


def test_another_architecture_of_the_same_type(checkpoints, tuned):
    folder = tuned("original", lambda arrays: arrays)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "architectures": ["Janus4oForCausalLM"], "trained_by": "someone"}))
    assert same(folder, checkpoints("tiny", "original")) == ()


def test_inspect_shows_what_was_done(tuned, run):
    folder = tuned("original", lambda arrays: {**under("module.", arrays), **under("module.ema.", moved(arrays))})
    result = run(main, "inspect", folder)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("notes"))
    assert "module. was taken off the names of" in line and "EMA copies were left out" in line


def test_an_export_says_what_was_done(tuned, run, tmp_path):
    """It is refused here for another reason, which spares the export."""
    folder = tuned("original", lambda arrays: under("module.", arrays))
    (folder / "tokenizer.json").unlink()
    result = run(main, "checkpoint", folder, "--out", tmp_path / "out", "--precision", "fp32", "--quiet")
    assert result.exit_code == 1
    assert "note: module. was taken off the names of" in result.stderr and "tokenizer.json is missing" in result.stderr

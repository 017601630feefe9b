"""Which files of a checkpoint are read where there is a choice: transformers' order, and a note of what is left."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.checkpoint.weight_files import VAE_WEIGHTS, WEIGHTS, choose_weights
from janus_export.cli import main
from janus_export.errors import CheckpointError

NAME = "model.language_model.norm.weight"


@pytest.fixture
def folder(checkpoints, tmp_path):
    return shutil.copytree(checkpoints("tiny"), tmp_path / "copy")


def write_index(folder, kind, shards):
    (folder / f"{kind}.index.json").write_text(json.dumps({"weight_map": {str(i): name for i, name in enumerate(shards)}}))


@pytest.mark.parametrize("kinds", [WEIGHTS, VAE_WEIGHTS])
def test_the_order(tmp_path, kinds):
    """A file that stands alone, then its shards; safetensors, then torch's pickles, then Paddle's."""
    order = [name for kind in kinds for name in (kind, f"{kind}.index.json")]
    shards = {kind: kind.replace(".", "-00001-of-00001.") for kind in kinds}
    for kind, shard in shards.items():
        write_index(tmp_path, kind, [shard])
    names = {*order, *shards.values()}
    for taken in order:
        files, notes = choose_weights(tmp_path, names, kinds)
        assert files == ([taken] if taken in kinds else [shards[taken.removesuffix(".index.json")]])
        left = names - {taken, *files}
        assert (not left and notes == ()) or notes[0].startswith(f"weights are read from {taken}; left: ")
        names -= {taken}


def test_a_newer_file_beside_the_shards_of_its_base(folder):
    """What a fine-tune leaves when it is saved into the folder of its base."""
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays, folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(arrays, "model-00001-of-00001.safetensors")})
    )
    save_file({**arrays, NAME: arrays[NAME] + np.float32(1)}, folder / "model.safetensors")
    checkpoint = open_checkpoint(str(folder))
    assert np.array_equal(checkpoint.tensors[NAME].read(), arrays[NAME] + np.float32(1))
    (note,) = checkpoint.notes
    assert note == "weights are read from model.safetensors; left: model-00001-of-00001.safetensors, model.safetensors.index.json"


def test_shards_that_the_index_does_not_list(tmp_path):
    write_index(tmp_path, "model.safetensors", ["model-00001-of-00002.safetensors"])
    names = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert choose_weights(tmp_path, names, WEIGHTS) == (
        ["model-00001-of-00002.safetensors"],
        ("weights are read from model.safetensors.index.json; left: model-00002-of-00002.safetensors",),
    )


def test_shards_without_their_index(tmp_path):
    with pytest.raises(CheckpointError, match="has model-00001-of-00002.safetensors and no model.safetensors.index.json"):
        choose_weights(tmp_path, ["model-00001-of-00002.safetensors"], WEIGHTS)


def test_weights_by_other_names_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="has no weights; expected .*; found consolidated.pth, weights.safetensors"):
        choose_weights(tmp_path, ["weights.safetensors", "consolidated.pth", "training_args.bin"], WEIGHTS)


def test_a_long_list_is_cut(tmp_path):
    names = ["model.safetensors", *(f"pytorch_model-{i}-of-9.bin" for i in range(9))]
    assert choose_weights(tmp_path, names, WEIGHTS)[1][0].endswith("pytorch_model-4-of-9.bin and 4 more")


def test_what_trainers_leave_is_no_choice(folder):
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert open_checkpoint(str(folder)).notes == ()


def test_a_name_that_is_not_utf8_is_printed(folder, run):
    (folder / "b\udcff.safetensors").write_bytes(b"")
    result = run(main, "inspect", folder, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["notes"] == [
        "weights are read from model.safetensors; left: b\\xff.safetensors"
    ]


def test_the_vaes_files(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "copy")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"")
    assert open_checkpoint(str(folder)).notes == (
        "VAE: weights are read from diffusion_pytorch_model.safetensors; left: diffusion_pytorch_model.bin",
    )


def test_an_adapter_beside_whole_weights_is_not_applied_and_said(folder, run):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (note,) = open_checkpoint(str(folder)).notes
    assert "the adapter beside the weights (made for 'owner/base') was not applied" in note and "merge_and_unload()" in note
    assert "adapter_config.json, adapter_model.safetensors" in note
    assert note in run(main, "inspect", folder).stdout


def edit(path, **values):
    raw = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**raw, **values}))


def test_two_files_of_preprocessing(folder):
    edit(folder / "processor_config.json", image_processor={"image_mean": [0.1, 0.1, 0.1], "min_size": 14})
    edit(folder / "preprocessor_config.json", image_mean=[0.2, 0.2, 0.2], min_size=14)
    (note,) = open_checkpoint(str(folder)).notes
    assert note.startswith("preprocessing is read from processor_config.json") and "differs in image_mean and is left" in note


def test_two_files_of_special_tokens(folder):
    edit(folder / "tokenizer_config.json", bos_token="<other>", eos_token=None)
    (note,) = open_checkpoint(str(folder)).notes
    assert note.startswith("bos_token is '<｜begin▁of▁sentence｜>' from special_tokens_map.json") and note.endswith("says '<other>'")
    edit(folder / "tokenizer_config.json", added_tokens_decoder={})
    (note,) = open_checkpoint(str(folder)).notes
    assert note.startswith("bos_token is '<other>' from tokenizer_config.json")

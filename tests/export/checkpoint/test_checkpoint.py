"""Reading checkpoints: every layout and container, lazily, and every way in which one can be damaged."""

import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.errors import CheckpointError
from janus_export.graphs import recipes_of_all
from janus_export.recipes import check_tensors
from testing.make_checkpoint import random_tensor
from testing.published_layouts import MODELS, hf_tensors

CONTAINERS = [(layout, format) for layout in ("hf", "original") for format in ("safetensors", "bin")]


@pytest.fixture
def folder(checkpoints, tmp_path):
    return shutil.copytree(checkpoints("tiny"), tmp_path / "copy")


@pytest.mark.parametrize(("layout", "format"), CONTAINERS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_container_gives_the_same_tensors_under_one_naming(checkpoints, layout, format, dtype):
    checkpoint = open_checkpoint(str(checkpoints("tiny", layout, format, dtype)))
    config = MODELS["tiny"]
    assert {name: tensor.shape for name, tensor in checkpoint.tensors.items()} == hf_tensors(config)
    stored = np.float32 if dtype == "fp32" else ml_dtypes.bfloat16
    for name, tensor in checkpoint.tensors.items():
        expected = random_tensor(name, tensor.shape, config, seed=0).astype(stored)
        assert np.array_equal(tensor.read(), expected), name
    check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)


@pytest.mark.parametrize(("layout", "format"), CONTAINERS)
def test_shards(checkpoints, layout, format):
    folder = checkpoints("tiny", layout, format, shard_bytes=2_000_000)
    assert len(list(folder.glob(f"*-of-*.{format}"))) >= 3
    tensors = open_checkpoint(str(folder)).tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == hf_tensors(MODELS["tiny"])
    name = "model.language_model.norm.weight"
    assert np.array_equal(tensors[name].read(), random_tensor(name, tensors[name].shape, MODELS["tiny"], 0))


def test_torch_reads_the_same_from_a_bin(checkpoints):
    """The offsets that we read at are where torch finds the values."""
    folder = checkpoints("tiny", "hf", "bin", "bf16")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name, tensor in open_checkpoint(str(folder)).tensors.items():
        assert np.array_equal(tensor.read().astype(np.float32), state[name].float().numpy()), name


def test_views_into_one_storage(folder):
    """Tied and sliced tensors share a storage in a .bin; each is read at its own place."""
    (folder / "model.safetensors").unlink()
    whole = torch.arange(24, dtype=torch.float32).reshape(6, 4)
    torch.save({"a": whole, "b": whole[2:5]}, folder / "pytorch_model.bin")
    tensors = open_checkpoint(str(folder)).tensors
    assert np.array_equal(tensors["b"].read(), whole[2:5].numpy())


def test_safetensors_are_taken_before_a_bin(folder, checkpoints):
    shutil.copy(checkpoints("tiny", "hf", "bin") / "pytorch_model.bin", folder)
    checkpoint = open_checkpoint(str(folder))
    assert {tensor.path.suffix for tensor in checkpoint.tensors.values()} == {".safetensors"}
    assert checkpoint.notes == ("weights are read from model.safetensors; left: pytorch_model.bin",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "no folder absent, and it is no hub id of the form owner/name"),
        ("./a/b", "no folder ./a/b"),
        ("owner/name", "fetching it from the hub failed"),
    ],
)
def test_a_source_that_is_not_there(source, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(source)


def test_a_file_instead_of_a_folder(folder):
    with pytest.raises(CheckpointError, match="is a file; give the folder that holds config.json"):
        open_checkpoint(str(folder / "config.json"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(CheckpointError, match="has no config.json; expected a checkpoint folder or a hub id"):
        open_checkpoint(str(tmp_path))


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no weights; expected model\*.safetensors, pytorch_model\*.bin or model_state\*.pdparams"
    ):
        open_checkpoint(str(folder))


def test_a_truncated_safetensors(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(CheckpointError, match="too short for .*: truncated; fetch it again"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 100, b"\x05\0\0\0\0\0\0\0{bad}"])
def test_rubbish_for_safetensors(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="fetch it again"):
        open_checkpoint(str(folder))


def test_a_truncated_bin(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("tiny", "hf", "bin"), tmp_path / "copy")
    path = folder / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="pytorch_model.bin is damaged, or holds more than tensors"):
        open_checkpoint(str(folder))


def test_a_pickle_that_runs_code_is_refused(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors; only weights are read from pickles") as error:
        open_checkpoint(str(folder))
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "touched").exists()


def test_a_nested_dictionary_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"state": {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="state is a dict; expected a flat dictionary of tensors"):
        open_checkpoint(str(folder))


def test_a_strided_tensor_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(3, 4).T}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a is not stored as one plain piece .*save it again as safetensors"):
        open_checkpoint(str(folder))


def test_an_index_that_lists_what_is_not_there(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("tiny", "hf", "safetensors", shard_bytes=2_000_000), tmp_path / "copy")
    victim = sorted(folder.glob("model-*"))[1]
    victim.unlink()
    with pytest.raises(CheckpointError, match=f"lists {victim.name}, which is not there"):
        open_checkpoint(str(folder))


def test_a_damaged_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is not JSON"):
        open_checkpoint(str(folder))


def rewrite(folder, change):
    """The weights of `folder` after `change(dict of arrays)`."""
    arrays = {name: tensor.read() for name, tensor in open_checkpoint(str(folder)).tensors.items()}
    change(arrays)
    save_file(arrays, folder / "model.safetensors")
    checkpoint = open_checkpoint(str(folder))
    check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)


def test_missing_extra_and_misshaped_tensors_are_listed_by_name(folder):
    def change(arrays):
        del arrays["model.aligner.fc1.bias"]
        arrays["value_head.weight"] = np.zeros((2, 3), np.float32)
        arrays["lm_head.weight"] = np.zeros((64, 320), np.float32)

    with pytest.raises(CheckpointError) as error:
        rewrite(folder, change)
    text = str(error.value)
    assert "missing model.aligner.fc1.bias [64]" in text
    assert "unknown value_head.weight [2, 3]" in text
    assert "lm_head.weight has shape [64, 320], expected [320, 64]" in text


def test_a_long_list_is_cut_and_says_so(folder):
    with pytest.raises(CheckpointError, match=r"; and 5 more\. What is unknown is another model's.*: save the weights again without it"):
        rewrite(folder, lambda arrays: arrays.update({f"extra.{i}": np.zeros(1, np.float32) for i in range(25)}))


def test_the_original_layouts_unused_tensors_are_dropped(checkpoints):
    folder = checkpoints("tiny", "original")
    raw = json.loads((folder / "model.safetensors").read_bytes()[8:].split(b"}}", 1)[0] + b"}}")
    assert "gen_vision_model.quantize.codebook_used" in raw
    assert not [name for name in open_checkpoint(str(folder)).tensors if "codebook_used" in name or "attn_pool" in name]


def edit_header(folder, change):
    """Rewrites the header of model.safetensors after `change(header)`, values as they are."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length :])


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [0, 8]},
        {"data_offsets": [-4, 81916]},
        {"data_offsets": [81920, 0]},
        {"data_offsets": [0.0, 81920.0]},
        {"data_offsets": 5},
        {"dtype": "F16"},
        {"shape": [320]},
        {"shape": ["320", 64]},
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(folder, entry):
    """Read as it stands it would give another tensor's values, and goldens made of them would agree."""
    edit_header(folder, lambda header: header["lm_head.weight"].update(entry))
    with pytest.raises(CheckpointError, match="lm_head.weight has a damaged entry .*; fetch the file again"):
        open_checkpoint(str(folder))


def test_overlapping_tensors_are_refused(folder):
    def overlap(header):
        norm = next(name for name in header if name.endswith("layers.1.input_layernorm.weight"))
        header["model.language_model.norm.weight"]["data_offsets"] = header[norm]["data_offsets"]
        header["extra"] = {"dtype": "F32", "shape": [64], "data_offsets": header[norm]["data_offsets"]}

    edit_header(folder, overlap)
    with pytest.raises(CheckpointError, match="has tensors that overlap, or bytes that belong to none: damaged"):
        open_checkpoint(str(folder))


def test_a_tensor_in_anothers_place(folder):
    """The file is as long as it should be; only the places are wrong."""

    def swap(header):
        header["model.language_model.norm.weight"]["data_offsets"] = header["model.language_model.layers.0.input_layernorm.weight"][
            "data_offsets"
        ]

    edit_header(folder, swap)
    with pytest.raises(CheckpointError, match="has tensors that overlap"):
        open_checkpoint(str(folder))


def test_a_quantised_checkpoint_is_named_as_one(folder):
    edit_header(folder, lambda header: header["lm_head.weight"].update(dtype="F8_E4M3"))
    with pytest.raises(
        CheckpointError, match="lm_head.weight has dtype F8_E4M3, which quantised .*: export the checkpoint that it was made from"
    ):
        open_checkpoint(str(folder))


def test_a_stale_pickle_index_beside_whole_safetensors(folder):
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    assert open_checkpoint(str(folder)).notes == ("weights are read from model.safetensors; left: pytorch_model.bin.index.json",)


def test_a_dtype_of_quantised_weights_in_a_bin(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1, dtype=torch.int8)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a has dtype torch.int8, which quantised checkpoints use"):
        open_checkpoint(str(folder))


def test_a_later_chdir_changes_nothing(checkpoints, tmp_path, monkeypatch):
    shutil.copytree(checkpoints("tiny-flow"), tmp_path / "copy")
    shutil.move(tmp_path / "copy" / "vae", tmp_path / "vae")
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint("copy", vae="vae")
    monkeypatch.chdir("/")
    assert checkpoint.folder == tmp_path / "copy" and checkpoint.vae.folder == tmp_path / "vae"
    assert checkpoint.json("config.json") and all(tensor.path.is_file() for tensor in checkpoint.tensors.values())


def test_a_folder_of_links_as_hub_caches_have_them(folder, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for index, path in enumerate(folder.iterdir()):
        (tmp_path / f"blob{index}").symlink_to(path)
        (tmp_path / "snapshot" / path.name).symlink_to(f"../blob{index}")
    (tmp_path / "link").symlink_to("snapshot")
    checkpoint = open_checkpoint(str(tmp_path / "link"))
    assert checkpoint.notes == () and checkpoint.folder == tmp_path / "snapshot" and checkpoint.name == "snapshot"
    check_tensors(recipes_of_all(checkpoint.config), checkpoint.tensors)


@pytest.mark.parametrize("header", [b"[]", b"null", b"[" * 100_000], ids=["list", "null", "deep"])
def test_a_header_that_is_no_object(folder, header):
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="has a damaged header"):
        open_checkpoint(str(folder))


def test_whole_numbers_are_no_weights(folder):
    def change(arrays):
        arrays["model.language_model.norm.weight"] = np.ones(64, np.int32)

    with pytest.raises(CheckpointError, match="norm.weight has dtype int32, expected float32, float16 or bfloat16"):
        rewrite(folder, change)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x80\x02]q\x00."])
def test_rubbish_for_a_bin(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="pytorch_model.bin (is damaged|holds a list)"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_says_so(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4155806015\n")
    with pytest.raises(CheckpointError, match="a git-lfs pointer: run 'git lfs pull'"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("state", [[1], {1: torch.zeros(1)}, {"a": torch.zeros(2, 2).to_sparse()}], ids=["list", "key", "sparse"])
def test_a_bin_that_is_no_flat_dictionary(folder, state):
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected a flat dictionary|not stored as one plain piece|is damaged"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": []},
        {"weight_map": {"a": 5}},
        {"weight_map": {"a": "../b"}},
        {"weight_map": {}},
        {"weight_map": {"a": "a.bin.tmp"}},
    ],
)
def test_an_index_that_is_none(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has no weight_map from tensors to files beside it"):
        open_checkpoint(str(folder))


def test_deep_json(folder):
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="config.json is not JSON"):
        open_checkpoint(str(folder))

"""Paddle's checkpoints: the same model as in the original layout, read lazily; and every way in which a file can be none."""

import copyreg
import json
import os
import pickle
import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.checkpoint.pdparams import paddle_to_original, read_pdparams
from janus_export.errors import CheckpointError
from janus_export.graphs import recipes_of_all
from janus_export.recipes import check_tensors, rows_of
from testing.make_checkpoint import ALL_MODELS, original_entries, random_tensor
from testing.paddle_checkpoint import save, to_paddle

FORMS = ["state", "tensors"]


@pytest.fixture
def paddle(checkpoints, tmp_path):
    """`paddle(dtype, …)` -> the tiny checkpoint in Paddle's layout."""
    return lambda dtype="fp32", **options: to_paddle(checkpoints("tiny", "original", dtype=dtype), tmp_path / "paddle", **options)


@pytest.fixture
def written(tmp_path):
    """`written(state)` -> the tensors of a file that holds its pickle."""

    def write(state, protocol=4):
        data = state if isinstance(state, bytes) else pickle.dumps(state, protocol)
        (tmp_path / "a.pdparams").write_bytes(data)
        return dict(read_pdparams(tmp_path / "a.pdparams"))

    return write


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_every_tensor_is_the_original_layouts(checkpoints, paddle, dtype, form):
    expected = open_checkpoint(str(checkpoints("tiny", "original", dtype=dtype)))
    got = open_checkpoint(str(paddle(dtype, form=form)))
    check_tensors(recipes_of_all(got.config), got.tensors)
    assert got.config == expected.config and got.dtype == expected.dtype
    assert got.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        values = got.tensors[name].read()
        assert values.dtype == tensor.dtype and np.array_equal(values, tensor.read()), name


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("form", FORMS)
def test_files_are_what_a_pickle_of_them_says(tmp_path, form, protocol):
    """The writer stands for Paddle's: read back by Python's own unpickler, its files hold what `paddle.load` expects."""
    save(tmp_path / "a.pdparams", {"b": np.arange(3.0)}, form, protocol)
    state = pickle.loads((tmp_path / "a.pdparams").read_bytes())
    values = state["b"] if form == "state" else state["b"][1]
    assert np.array_equal(values, np.arange(3.0))
    assert form == "tensors" or state["StructuredToParameterName@@"] == {"b": "linear_0.w_0"}


@pytest.mark.parametrize("form", FORMS)
def test_shards(checkpoints, paddle, form):
    folder = paddle(form=form, shard_bytes=2_000_000)
    assert len(list(folder.glob("model_state-0000*-of-*.pdparams"))) >= 3
    expected = open_checkpoint(str(checkpoints("tiny", "original"))).tensors
    tensors = open_checkpoint(str(folder)).tensors
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name].read(), expected[name].read()) for name in expected)


def test_a_shard_that_is_not_there(paddle):
    folder = paddle(shard_bytes=2_000_000)
    next(folder.glob("model_state-00002-*")).unlink()
    with pytest.raises(CheckpointError, match="lists model_state-00002-of-.*, which is not there; fetch the checkpoint again"):
        open_checkpoint(str(folder))


def test_a_name_in_two_shards(paddle):
    folder = paddle(shard_bytes=2_000_000)
    first, second, *_ = sorted(folder.glob("model_state-*"))
    shutil.copy(first, second)
    with pytest.raises(CheckpointError, match=f"is in {first.name} and in {second.name}; expected it once"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("model", ["tiny", "tiny-flow"])
def test_the_export_is_byte_for_byte_that_of_the_original_layout(bundles, checkpoints, model, tmp_path):
    expected = bundles(model, "fp32", "original")
    out = tmp_path / "bundle"
    export_bundle(open_checkpoint(str(to_paddle(checkpoints(model, "original"), tmp_path / "paddle"))), out, "fp32")
    names = sorted(path.name for path in expected.iterdir() if path.suffix in (".onnx", ".data") or path.name == "tokenizer.json")
    assert len(names) > 8
    assert [name for name in names if (out / name).read_bytes() != (expected / name).read_bytes()] == []


def test_safetensors_of_paddle_are_turned_too(checkpoints, paddle):
    """PaddleNLP saves these as well, with bf16 as its bits and matrices as Paddle has them."""
    from safetensors.numpy import save_file

    folder = paddle("bf16")
    state = pickle.loads((folder / "model_state.pdparams").read_bytes())
    del state["StructuredToParameterName@@"]
    (folder / "model_state.pdparams").unlink()
    save_file(state, folder / "model.safetensors", metadata={"format": "np"})
    got, expected = (open_checkpoint(str(path)).tensors for path in (folder, checkpoints("tiny", "original", dtype="bf16")))
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[name].read(), expected[name].read()) for name in expected)


def test_janusflow(checkpoints, tmp_path):
    """Original names, and every linear layer the original way round. No two sizes are equal, but those of square matrices."""
    source = checkpoints("tiny-flow")
    folder = to_paddle(source, tmp_path / "paddle")
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    tensors = paddle_to_original(dict(read_pdparams(folder / "model_state.pdparams")))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {e.name: e.shape for e in original_entries(ALL_MODELS["tiny-flow"])}
    stored = load_file(source / "model.safetensors")
    assert [name for name in stored if not np.array_equal(tensors[name].read(), stored[name])] == []
    turned = {name for name, tensor in tensors.items() if tensor.stride is not None}
    for part in (
        "vision_gen_enc_model.time_embed.linear_1", "vision_gen_enc_model.time_embed.linear_2", "vision_gen_enc_aligner",
        "vision_gen_enc_model.mid_block.res_blocks.0.channelwise_linear_1", "vision_gen_dec_aligner", "vision_und_enc_aligner",
        "vision_gen_dec_model.mid_block.res_blocks.1.channelwise_linear_2", "language_model.lm_head",
        "vision_gen_dec_model.mid_block.res_blocks.1.cond_embeds_mapper", "vision_und_enc_model.vision_tower.blocks.0.attn.qkv",
        "vision_und_enc_model.vision_tower.attn_pool.q", "language_model.model.layers.1.self_attn.q_proj",
    ):  # fmt: skip
        assert f"{part}.weight" in turned
    assert not [name for name in turned if "norm" in name or "depthwise" in name or "embed_tokens" in name or "conv" in name]
    assert "beg_of_und_embed" in tensors and "beg_of_und_embed" not in turned


# --- lazily -------------------------------------------------------------------------------------------------------------------


def test_opening_and_reading_rows_takes_no_memory_of_the_files_size(tmp_path):
    rows, columns = 40_000, 512
    save(tmp_path / "a.pdparams", {"language_model.llama.lm_head.weight": np.zeros((columns, rows), np.float32)})
    tracemalloc.start()
    tensors = paddle_to_original(dict(read_pdparams(tmp_path / "a.pdparams")))
    opened = tracemalloc.get_traced_memory()[1]
    count = sum(len(part) for _, part in rows_of(tensors, (("language_model.model.lm_head.weight", (rows, columns)),)))
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert opened < 1 << 20
    assert read < (2 * 32 + 8) << 20 < (tmp_path / "a.pdparams").stat().st_size


@pytest.mark.parametrize("fortran", [False, True])
def test_rows_of_a_turned_matrix(written, fortran):
    values = np.arange(35, dtype=np.float32).reshape(5, 7)
    tensor = written({"a": np.asfortranarray(values) if fortran else values})["a"]
    for got, expected in ((tensor, values), (tensor.transposed(), values.T), (tensor.transposed().transposed(), values)):
        assert np.array_equal(got.read(), expected)
        assert np.array_equal(got.rows(1, 4).read(), expected[1:4])
        assert np.array_equal(got.rows(1, 4).rows(1, 2).read(), expected[2:3])


def test_rows_come_in_order_over_several_slabs(written, monkeypatch):
    monkeypatch.setattr("janus_export.recipes._SLAB", 1 << 16)
    values = random_tensor("a", (8, 5000), ALL_MODELS["tiny"], 0)
    tensor = written({"a": values})["a"].transposed()
    parts = [part for _, part in rows_of({"a": tensor}, (("a", (5000, 8)),))]
    assert max(map(len, parts)) <= 1024 and np.array_equal(np.concatenate(parts), values.T)


# --- other forms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_protocols(written, protocol):
    state = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(300, np.float32), "bits": np.full(2, 0x3F80, np.uint16)}
    tensors = written(state, protocol)
    assert np.array_equal(tensors["a"].read(), state["a"]) and np.array_equal(tensors["b"].read(), state["b"])
    assert tensors["bits"].dtype == ml_dtypes.bfloat16 and tensors["bits"].read().tolist() == [1.0, 1.0]


def test_files_of_numpy_1(written):
    """It called its insides otherwise. Protocol 3 spells names out, so that they can be changed here."""
    data = pickle.dumps({"a": np.arange(4.0)}, 3)
    assert data.count(b"numpy._core.") == 1
    assert written(data.replace(b"numpy._core.", b"numpy.core."))["a"].read().tolist() == [0, 1, 2, 3]


def test_an_ordered_dictionary(written):
    from collections import OrderedDict

    assert written(OrderedDict(a=np.arange(2.0)))["a"].shape == (2,)


def test_text_of_protocol_2_is_refused(written):
    with pytest.raises(CheckpointError, match=r"arrays as text, as pickle protocol 2 .*save it again with paddle.save\(state, path, proto"):
        written({"a": np.arange(4.0)}, 2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "holds a list; expected a flat dictionary of arrays"),
        ({"model": {"a": np.zeros(1)}}, "'model' is a dict; expected a flat dictionary of arrays"),
        ({"epoch": 3}, "'epoch' is a int; expected"),
        ({5: np.zeros(1)}, "has a int for a name; expected a flat dictionary of arrays"),
        ({"a": np.array([None, "b"])}, "a has dtype 'O8'; expected float32"),
        ({"a": np.array(["b"])}, "a has dtype 'U1'; expected float32"),
        ({"a": np.zeros(2, ">f4")}, "a has dtype 'f4', big-endian; expected float32"),
        ({"a": np.zeros(2, np.complex64)}, "a has dtype 'c8'; expected float32"),
        ({"a": np.zeros(2, [("x", "f4")])}, "a has dtype 'V4'; expected float32"),
        ({"a": np.zeros((2, 3, 4), order="F")}, r"a \[2, 3, 4\] is stored in Fortran's order; expected C's"),
        ({"a@@.0": np.zeros(2), "UnpackBigParamInfor@@": {"a": {"OriginShape": (2,), "slices": ["a@@.0"]}}}, "large arrays cut in pieces"),
    ],
)
def test_what_is_no_flat_dictionary_of_plain_arrays(written, state, message):
    with pytest.raises(CheckpointError, match=message) as error:
        written(state)
    assert "\n" not in str(error.value)


def test_fused_matrices(paddle):
    folder = paddle()
    save(folder / "model_state.pdparams", {"language_model.llama.layers.0.self_attn.qkv_proj.weight": np.zeros((4, 12), np.float32)})
    with pytest.raises(CheckpointError, match="qkv_proj.weight is fused; expected a matrix each: save again with fuse_attention_qkv"):
        open_checkpoint(str(folder))


def test_no_tokenizer_says_where_it_is(paddle):
    from janus_export.checkpoint.text_side import read_text_side

    folder = paddle()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer.json is missing; copy tokenizer.json.* from the model's .*deepseek-ai/Janus-1.3B"):
        read_text_side(open_checkpoint(str(folder)))


@pytest.mark.parametrize(("key", "value"), [("alibi", True), ("rope_scaling_type", "linear")])
def test_paddles_own_settings_of_llama(paddle, key, value):
    folder = paddle()
    raw = json.loads((folder / "config.json").read_text())
    raw["language_config"][key] = value
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=f"language_config.{key} is {value!r}; this export builds"):
        open_checkpoint(str(folder))


# --- damage and malice --------------------------------------------------------------------------------------------------------


class Call:
    """Pickled as a call."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def text(opcode: bytes, value: str) -> bytes:
    return opcode + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    "attack",
    [
        lambda mark: pickle.dumps({"a": Call(os.system, (mark,))}, 4),
        lambda mark: pickle.dumps({"a": Call(os.system, (mark,))}, 2),
        lambda mark: pickle.dumps({"a": Call(eval, (f"__import__('os').system({mark!r})",))}, 4),
        lambda mark: pickle.dumps({"a": Call(exec, (f"__import__('os').system({mark!r})",))}, 3),
        lambda mark: pickle.dumps({"a": Call(np.load, ("x.npy", None, True))}, 4),
        lambda mark: pickle.dumps({"a": Call(np.fromfile, ("/etc/hostname",))}, 4),
        lambda mark: pickle.dumps({"a": Call(getattr, ("", "join"))}, 4),
        lambda mark: pickle.dumps({"a": Call(copyreg._reconstructor, (Call, object, None))}, 4),
        lambda mark: b"\x80\x02cbuiltins\neval\n" + text(b"\x8c", "1") + b"\x85R.",
        lambda mark: b"\x80\x04" + text(b"\x8c", "os") + text(b"\x8c", "system") + b"\x93" + text(b"\x8c", mark) + b"\x85R.",
        lambda mark: b"\x80\x04" + text(b"\x8c", "numpy") + text(b"\x8c", "dtype.__class__") + b"\x93.",
        lambda mark: b"\x80\x04" + text(b"\x8c", "two\nlines") + text(b"\x8c", "system") + b"\x93.",
        lambda mark: b"(S'" + mark.encode() + b"'\nios\nsystem\n.",
        lambda mark: b"(cos\nsystem\nS'" + mark.encode() + b"'\no.",
        lambda mark: b"\x80\x02cos\nsystem\n)\x81.",
        lambda mark: b"\x80\x04cos\nsystem\n)}\x92.",
        lambda mark: b"Pa\n.",
        lambda mark: b"\x80\x02" + text(b"\x8c", "a") + b"Q.",
        lambda mark: b"\x80\x02\x82\x01)R.",
        lambda mark: b"\x80\x02\x83\x01\x00)R.",
        lambda mark: b"\x80\x02\x84\x01\x00\x00\x00)R.",
        lambda mark: b"\x80\x05\x97.",
        lambda mark: b"\x80\x04" + text(b"\x8c", "a") + b"}" + text(b"\x8c", "__class__") + b"K\x01sb.",
        lambda mark: b"\x80\x04" + text(b"\x8c", "a") + b")R.",
        # Names whose hash would take all of the stack, or for ever.
        lambda mark: b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.",
        lambda mark: b"\x80\x04})" + b"".join(b"\x94h%c\x86" % index for index in range(64)) + b"K\x01s.",
        lambda mark: b"\x80\x04}()" + b"\x85" * 1_000_000 + b"K\x01u.",
        lambda mark: b"\x80\x04ccollections\nOrderedDict\n])" + b"\x85" * 1_000_000 + b"K\x01\x86a\x85R.",
    ],
)  # fmt: skip
def test_a_pickle_that_would_do_more_is_refused_and_nothing_runs(written, tmp_path, monkeypatch, attack):
    class Registry(dict):
        def get(self, *_):
            raise AssertionError("an extension was looked up")

    monkeypatch.setattr("copyreg._inverted_registry", Registry())
    mark = f"touch {tmp_path / 'touched'}"
    with pytest.raises(
        CheckpointError, match="which no weights need|is damaged, or holds more than arrays|has a tuple for a name"
    ) as error:
        written(attack(mark))
    assert not (tmp_path / "touched").exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_anywhere_is_refused(tmp_path, form):
    path = tmp_path / "a.pdparams"
    save(path, {"a": np.ones((2, 3), np.float32), "b": np.ones(100, np.uint16)}, form)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="fetch it again"):
            list(read_pdparams(path))


def test_a_changed_byte_is_refused_or_harmless(tmp_path):
    """Whatever else becomes of it: one clear error or arrays inside the file."""
    path = tmp_path / "a.pdparams"
    save(path, {"a": np.ones((2, 3), np.float32), "b": np.ones(100, np.uint16)})
    data = path.read_bytes()
    for position in range(len(data)):
        for value in (ord("."), ord("R"), data[position] ^ 1):
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                tensors = dict(read_pdparams(path))
            except CheckpointError as error:
                assert "\n" not in str(error)
            else:
                assert all(tensor.offset + np.prod(tensor.shape) * tensor.dtype.itemsize <= len(data) for tensor in tensors.values())


def test_bytes_after_the_end(written):
    with pytest.raises(CheckpointError, match="has 5 bytes after its end: damaged"):
        written(pickle.dumps({"a": np.zeros(2)}, 4) + b"extra")


def test_an_array_that_claims_other_sizes(written):
    data = pickle.dumps({"a": np.zeros((2, 3), np.float32)}, 4)
    assert data.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(CheckpointError, match=r"a has shape \(2, 4\) of float32 in 24 bytes: damaged; fetch it again"):
        written(data.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"))


def test_a_git_lfs_pointer_says_so(written):
    with pytest.raises(CheckpointError, match="a git-lfs pointer: run 'git lfs pull'"):
        written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4155806015\n")


def test_a_long_text_is_not_read(written):
    with pytest.raises(CheckpointError, match="is damaged, or holds more than arrays"):
        written(pickle.dumps({"a" * 100_000: 1}, 4))

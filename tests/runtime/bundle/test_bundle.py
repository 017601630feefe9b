"""Every way in which a bundle can be bad has one clear line."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.errors import BackendError, BundleError, JanusError, NumericalError

from .hub_cache import make_hub_cache


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def edit_manifest(folder, change):
    raw = json.loads((folder / "manifest.json").read_text())
    change(raw)
    (folder / "manifest.json").write_text(json.dumps(raw))


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match="no bundle at .*absent; make one with 'janus-export checkpoint SRC --out"):
        janus_runtime.load(tmp_path / "absent")


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="is not a bundle: it has no manifest.json"):
        janus_runtime.load(tmp_path)


def test_binary_manifest(copy):
    (copy / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="is not UTF-8"):
        janus_runtime.load(copy)


def test_a_manifest_that_is_a_folder(copy):
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").mkdir()
    with pytest.raises(BundleError, match="manifest.json cannot be read: Is a directory"):
        janus_runtime.load(copy)


def test_a_missing_file(copy):
    (copy / "image_head.onnx").unlink()
    with pytest.raises(BundleError, match="image_head.onnx is missing; export the bundle again"):
        janus_runtime.load(copy)


def test_a_truncated_file_is_seen_at_load(copy):
    size = (copy / "weights.data").stat().st_size
    os.truncate(copy / "weights.data", size - 7)
    with pytest.raises(BundleError, match=f"has {size - 7} bytes, expected {size}: truncated or altered"):
        janus_runtime.load(copy)


def test_an_altered_file_is_seen_by_verify(copy):
    with (copy / "weights.data").open("r+b") as file:
        file.seek(100)
        file.write(b"\x01\x02\x03")
    with janus_runtime.load(copy) as janus, pytest.raises(BundleError, match=r"weights.data was altered: sha256 \w+…, expected"):
        list(janus.verify_hashes())


def test_a_link_out_of_the_bundle(copy, tmp_path):
    outside = tmp_path / "outside.data"
    shutil.move(copy / "weights.data", outside)
    (copy / "weights.data").symlink_to(outside)
    with pytest.raises(BundleError, match="is a link out of the bundle"):
        janus_runtime.load(copy)


def test_a_bundle_in_a_hub_cache(tiny, tmp_path):
    snapshot = make_hub_cache(tiny, tmp_path)
    with janus_runtime.load(tiny) as plain, janus_runtime.load(snapshot) as linked:
        assert np.array_equal(linked.generate("a cat")[0].image_ids, plain.generate("a cat")[0].image_ids)


def test_a_folder_whose_name_is_no_utf8(tiny, tmp_path):
    folder = tmp_path / os.fsdecode(b"b\xff")
    shutil.copytree(tiny, folder)
    with pytest.raises(JanusError, match=r"b\\xff is not valid UTF-8, and ONNX and ONNX Runtime open only paths in UTF-8; rename it"):
        janus_runtime.load(folder)


def test_a_relative_path_is_of_the_folder_at_load(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with janus_runtime.load("copy") as janus:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert len(janus.generate("a cat")) == 1 and janus.bundle_path == copy.resolve()


def replace_folder(copy, tiny):
    shutil.move(copy, copy.with_name("old"))
    shutil.copytree(tiny, copy)


def remove_folder(copy, tiny):
    shutil.move(copy, copy.with_name("old"))


def rewrite_weights(copy, tiny):
    (copy / "weights.data").write_bytes((tiny / "weights.data").read_bytes())


@pytest.mark.parametrize("change", [replace_folder, remove_folder, rewrite_weights])
def test_what_is_opened_later_is_of_the_same_bundle(copy, tiny, change):
    """What is open runs on; half of one model and half of another never happens."""
    with janus_runtime.load(copy) as janus:
        (before,) = janus.generate("a cat")
        change(copy, tiny)
        with pytest.raises(BundleError, match="was replaced or altered while the bundle was open; load it again"):
            janus.describe(Image.new("RGB", (64, 64)))
        with pytest.raises(BundleError, match="was replaced or altered"):
            list(janus.verify_hashes())
        with pytest.raises(BundleError, match="was replaced or altered"):
            list(janus.verify_goldens())
        assert np.array_equal(janus.generate("a cat")[0].image_ids, before.image_ids)


FORKED = """
import os, sys, janus_runtime
janus = janus_runtime.load(sys.argv[1])
chat = janus.chat()
answer = chat.say("hello")
janus.generate("a cat")
def in_child(act):
    pid = os.fork()
    if not pid:
        act()
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
def refused(act):
    try:
        act()
    except janus_runtime.JanusError as error:
        assert "fork" in str(error), error
    else:
        os._exit(3)
in_child(janus.close)
in_child(lambda: None)
in_child(lambda: refused(lambda: janus.generate("a cat")))
in_child(lambda: refused(lambda: list(answer)))
in_child(lambda: janus_runtime.load(sys.argv[1]).generate("a cat"))
print(len(list(answer)) > 0, len(janus.generate("a cat")))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_neither_hangs_nor_uses_the_model(tiny):
    result = subprocess.run([sys.executable, "-c", FORKED, str(tiny)], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["0", "0", "0", "0", "0", "True", "1"], result.stderr


def test_another_format(copy):
    edit_manifest(copy, lambda raw: raw.update(format=99))
    with pytest.raises(BundleError, match="format 99, this version reads format 7"):
        janus_runtime.load(copy)


def test_a_graph_that_is_no_graph(copy):
    size = (copy / "text_embed.onnx").stat().st_size
    (copy / "text_embed.onnx").write_bytes(b"x" * size)
    with janus_runtime.load(copy) as janus, pytest.raises(BundleError, match="text_embed.onnx cannot be opened: .*janus-rt verify"):
        janus.generate("a cat")


def test_auto_says_what_it_took(tiny):
    with janus_runtime.load(tiny) as janus:
        assert janus.backend == "cpu" and janus.backend_description.startswith("ONNX Runtime")


def test_fp16_on_a_cpu_is_said_at_load(bundles, caplog):
    with janus_runtime.load(bundles("tiny", "fp16")):
        pass
    assert "fp16 bundle runs slower on a CPU" in caplog.text and "--precision int4', int8 or fp32" in caplog.text


def test_engines_refuse_what_their_graph_does_not_take(janus):
    engine = janus._engines["text_head"]
    width = janus.manifest.language_model.hidden_size
    with pytest.raises(BackendError, match=r"text_head got inputs \['x'\], expected \['hidden'\]"):
        engine.run({"x": np.zeros((1, width), np.float32)})
    with pytest.raises(BackendError, match="text_head.hidden got dtype float64, expected float32"):
        engine.run({"hidden": np.zeros((1, width))})
    with pytest.raises(BackendError, match=r"text_head.hidden got shape \[1, 3\], expected"):
        engine.run({"hidden": np.zeros((1, 3), np.float32)})
    with pytest.raises(BackendError, match=r"text_head got outputs \['logit'\], expected some of \['logits'\]"):
        engine.bind({}, {"logit": np.zeros(1, np.float32)})
    with pytest.raises(BackendError, match=r"text_head.logits got shape \[1, 9\], expected"):
        engine.bind({}, {"logits": np.zeros((1, 9), np.float32)})
    with pytest.raises(BackendError, match="text_head.hidden got a strided array"):
        engine.run({"hidden": np.zeros((1, 2 * width), np.float32)[:, ::2]})


def test_closing_frees_the_weights_that_a_binding_would_keep(tiny):
    with janus_runtime.load(tiny, backend="cpu") as janus:
        engine = janus._engines["text_head"]
        hidden = np.zeros((1, janus.manifest.language_model.hidden_size), np.float32)
        binding = engine.bind({"hidden": hidden}, {})
        assert binding.run({})["logits"].shape[0] == 1
        weights = weakref.ref(engine._session)
    assert weights() is None
    for late in (lambda: binding.run({}), lambda: engine.run({"hidden": hidden})):
        with pytest.raises(BackendError, match="text_head is closed; load the bundle again"):
            late()


@pytest.mark.parametrize(
    ("python", "advice"),
    [((3, 10), "use Python 3.11 or newer, since 3.10 has none, or export"), ((3, 11), "pip install 'onnxruntime>=1.31', or export")],
    ids=str,
)
def test_an_int8_cache_names_the_onnx_runtime_it_needs(bundles, monkeypatch, python, advice):
    monkeypatch.setattr("onnxruntime.__version__", "1.23.2")
    monkeypatch.setattr("janus_runtime.backends.ort_cpu.sys", SimpleNamespace(version_info=python))
    with pytest.raises(BackendError, match=f"needs ONNX Runtime 1.31 or newer, and this is 1.23.2; {advice} with --precision fp32"):
        janus_runtime.load(bundles("tiny", "int4"), backend="cpu")


def test_features_that_are_no_numbers_are_an_error(janus, monkeypatch):
    """An int8 cache would turn them into numbers."""
    monkeypatch.setattr(
        "janus_runtime.backends.ort_cpu.OrtBinding.run", lambda binding, inputs, stop: {"embeds": np.full((1, 16, 64), np.nan)}
    )
    with pytest.raises(NumericalError, match="vision_encoder gave NaN or Inf; .*janus-rt verify"):
        janus._engines.encode_image(np.zeros((3, 64, 64), np.float32))


def test_dimensions_of_one_name_must_agree(janus):
    engine = janus._engines.language_model
    inputs = {
        name: np.zeros([2 if isinstance(size, str) else size for size in spec.shape], spec.dtype)
        for name, spec in engine.spec.inputs.items()
    }
    with pytest.raises(BackendError, match=r"seqlens_k got shape \[3\], expected \['rows'\] with .*'rows': 2"):
        engine.run({**inputs, "seqlens_k": np.zeros(3, np.int32)})


@pytest.mark.parametrize(("only", "other"), [("understanding", "generation"), ("generation", "understanding")])
def test_half_a_bundle_does_its_half(bundles, only, other):
    folder = bundles("tiny", only=only)
    with janus_runtime.load(folder) as janus:
        checks = list(janus.verify_goldens())
        assert len(checks) >= 4 and [check for check in checks if not check.passed] == []
        with pytest.raises(BundleError, match=f"was exported for {only} only, not for {other}; export again without --only"):
            janus.generate("a cat") if other == "generation" else janus.chat()
        assert janus.generate("a cat") if only == "generation" else list(janus.chat().say("hi", max_tokens=2))
    files = {path.name for path in folder.iterdir()}
    assert ("vision_encoder.onnx" in files) == (only == "understanding")
    assert ("image_decoder.onnx" in files) == (only == "generation")
    whole = Bundle.open(bundles("tiny")).manifest.files["weights.data"].bytes
    assert Bundle.open(folder).manifest.files["weights.data"].bytes < whole

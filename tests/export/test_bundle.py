"""What an export leaves behind, and what it never does."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from filelock import FileLock

import janus_runtime
from janus_export import bundle as bundle_module
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.cli import main
from janus_export.errors import CheckpointError
from janus_export.weights import WeightPlan
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.errors import JanusError

# What is traced soonest, for tests of what comes after.
QUICK = ("int8", "understanding")


@pytest.fixture
def checkpoint(checkpoints):
    return open_checkpoint(str(checkpoints("tiny")))


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_holds_everything_and_nothing_else(tiny):
    manifest = Bundle.open(tiny).manifest
    assert {path.name for path in tiny.iterdir()} == {*manifest.files, "manifest.json"}
    assert manifest.files.keys() >= {"weights.data", "tokenizer.json", "goldens.npz"}
    assert list(manifest.graphs) == [
        "text_embed", "vision_encoder", "language_model.gqa", "language_model.slice", "language_model.inplace",
        "text_head", "text_draw", "image_embed", "image_head", "image_draw", "image_encoder", "image_decoder",
        "image_preview",
    ]  # fmt: skip
    assert len(list(Bundle.open(tiny).verify_hashes())) == len(manifest.files)


def test_the_manifest_is_the_graphs_own_interface(tiny):
    kinds = {1: "float32", 10: "float16", 6: "int32", 7: "int64", 9: "bool"}
    for name, graph in Bundle.open(tiny).manifest.graphs.items():
        model = onnx.load(tiny / graph.file, load_external_data=False)
        for specs, values in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
            got = {
                value.name: (
                    kinds[value.type.tensor_type.elem_type],
                    tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
                )
                for value in values
            }
            assert got == {key: (spec.dtype, spec.shape) for key, spec in specs.items()}, name


def test_graphs_carry_no_trace_of_the_machine(tiny):
    for graph in Bundle.open(tiny).manifest.graphs.values():
        data = (tiny / graph.file).read_bytes()
        for word in (b"/janus_export/", b"site-packages", b"stack_trace", b".py"):
            assert word not in data, (graph.file, word)


def test_every_weight_lies_in_the_one_file(tiny):
    outside = 0
    for graph in Bundle.open(tiny).manifest.graphs.values():
        model = onnx.load(tiny / graph.file, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                assert {entry.key: entry.value for entry in tensor.external_data}["location"] == "weights.data"
                outside += 1
            else:
                assert np.prod(tensor.dims) < 64, f"{graph.file} holds {tensor.name} inside"
    assert outside > 50


def test_no_machine_path_in_the_manifest(tiny, checkpoints):
    text = (tiny / "manifest.json").read_text()
    assert str(checkpoints("tiny").parent) not in text and str(tiny.parent) not in text


def test_fp16_stores_half_and_keeps_the_vq_in_fp32(bundles):
    graphs = Bundle.open(bundles("tiny", "fp16")).manifest.graphs
    assert graphs["language_model.gqa"].inputs["embeds"].dtype == graphs["language_model.gqa"].inputs["past_key_0"].dtype == "float16"
    assert graphs["image_head"].outputs["logits"].dtype == graphs["vision_encoder"].inputs["pixels"].dtype == "float32"
    model = onnx.load(bundles("tiny", "fp16") / "image_decoder.onnx", load_external_data=False)
    assert {tensor.data_type for tensor in model.graph.initializer} <= {1, 7}


def test_fp16_agrees_with_the_reference(bundles):
    import janus_runtime

    with janus_runtime.load(bundles("tiny", "fp16")) as janus:
        checks = list(janus.verify_goldens())
        assert [check for check in checks if not check.passed] == []
        assert janus.generate("a cat")[0].image.size == (64, 64)


def test_the_licence_travels(checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny"), tmp_path / "source")
    (source / "LICENSE-MODEL").write_text("terms")
    (source / "LICENSES").mkdir()
    export_bundle(open_checkpoint(str(source)), tmp_path / "out", *QUICK)
    assert (tmp_path / "out" / "LICENSE-MODEL").read_text() == "terms"
    assert "LICENSE-MODEL" in Bundle.open(tmp_path / "out").manifest.files


def test_a_bundle_is_not_replaced_unless_told(checkpoint, tiny, tmp_path):
    out = shutil.copytree(tiny, tmp_path / "out")
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(JanusError, match="out exists; give --force to replace it, or another --out"):
        export_bundle(checkpoint, out, "fp32")
    assert (out / "manifest.json").read_bytes() == before
    (out / "notes.md").write_text("mine")
    with pytest.raises(JanusError, match=r"holds what is no part of a bundle \(notes.md\), so --force does not replace it"):
        export_bundle(checkpoint, out, "fp32", force=True)
    (out / "notes.md").unlink()
    export_bundle(checkpoint, out, *QUICK, force=True)
    assert Bundle.open(out).manifest.tasks == ("understanding",)
    assert leftovers(tmp_path) == ["out"]


def test_a_failed_export_keeps_the_old_bundle_and_leaves_nothing(checkpoint, tiny, tmp_path, monkeypatch):
    out = shutil.copytree(tiny, tmp_path / "out")

    def full(self, path, tensors, on_bytes):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(WeightPlan, "write", full)
    with pytest.raises(JanusError, match="the disk of .* is full and nothing of .* was kept; make room and export again"):
        export_bundle(checkpoint, out, *QUICK, force=True)
    assert leftovers(tmp_path) == ["out"] and len(list(Bundle.open(out).verify_hashes())) > 5


def test_too_little_disk_is_said_before_writing(checkpoint, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(bundle_module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(JanusError, match=r"the disk of .* has 0.0 GB free, the bundle needs 0.1 GB"):
        export_bundle(checkpoint, tmp_path / "out", *QUICK)
    assert leftovers(tmp_path) == []


def test_two_exports_do_not_meet(checkpoint, tmp_path):
    with FileLock(tmp_path / ".out.lock"), pytest.raises(JanusError, match="another export is writing .*out; wait for it"):
        export_bundle(checkpoint, tmp_path / "out", "fp32")


def test_force_replaces_nothing_but_a_bundle(checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for manifest in (None, '{"name": "of something else"}', '{"format": 1, "files": {}}', "[]"):
        if manifest is not None:
            (tmp_path / "manifest.json").write_text(manifest)
        with pytest.raises(JanusError, match=r"holds what is no part of a bundle \(.*thesis.txt\), so --force"):
            export_bundle(checkpoint, tmp_path, "fp32", force=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("suffix", ["part", "old"])
def test_a_folder_of_somebody_elses_is_left_alone(checkpoint, tmp_path, suffix):
    mine = tmp_path / f".out.{suffix}" / "sub" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(JanusError, match="is in the way and not ours; move it"):
        export_bundle(checkpoint, tmp_path / "out", "fp32")
    assert mine.read_text() == "mine"


def test_a_mount_point_is_refused_before_the_work(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path).endswith("out"))
    with pytest.raises(JanusError, match="out is a mount point, which cannot be replaced; give a folder inside it"):
        export_bundle(checkpoint, tmp_path / "out", "fp32", on_stage=lambda stage, share: pytest.fail("began"))


def test_force_does_not_replace_the_checkpoint(checkpoints, tmp_path):
    out = tmp_path / "out"
    source = shutil.copytree(checkpoints("tiny"), out / "source")
    (out / "manifest.json").write_text("{}")
    for target in (out, source):
        with pytest.raises(JanusError, match="the checkpoint lies in .*, which would be replaced"):
            export_bundle(open_checkpoint(str(source)), target, "fp32", force=True)
    assert (source / "model.safetensors").is_file()


def test_an_empty_folder_and_a_link_to_one_are_filled(checkpoint, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export_bundle(checkpoint, tmp_path / "link", *QUICK)
    assert (tmp_path / "link").is_symlink() and Bundle.open(tmp_path / "real")
    assert leftovers(tmp_path) == ["link", "real"]


def test_a_bundle_set_aside_by_a_killed_export_comes_back(checkpoint, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / ".out.old")
    with pytest.raises(JanusError, match="out exists; give --force"):
        export_bundle(checkpoint, tmp_path / "out", "fp32")
    assert Bundle.open(tmp_path / "out") and leftovers(tmp_path) == ["out"]


def test_what_transformers_saves_by_itself(tmp_path, checkpoints):
    """Its defaults tie the head and store one matrix."""
    from transformers import JanusConfig, JanusForConditionalGeneration

    raw = json.loads((checkpoints("tiny") / "config.json").read_text())
    del raw["tie_word_embeddings"], raw["text_config"]["tie_word_embeddings"]
    model = JanusForConditionalGeneration(JanusConfig(**{key: raw[key] for key in ("text_config", "vision_config", "vq_config")}))
    model.save_pretrained(tmp_path / "source")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        shutil.copy(checkpoints("tiny") / name, tmp_path / "source")
    edited = json.loads((tmp_path / "source" / "config.json").read_text()) | {"image_token_id": 5}
    (tmp_path / "source" / "config.json").write_text(json.dumps(edited))
    export_bundle(open_checkpoint(str(tmp_path / "source")), tmp_path / "out", *QUICK)
    assert Bundle.open(tmp_path / "out")


def test_a_killed_export_leaves_no_bundle_and_the_next_one_is_whole(checkpoints, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "janus_export.cli", "checkpoint", str(checkpoints("tiny")), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / ".out.part" / "text_embed.onnx").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists() and (tmp_path / ".out.part").exists()
    export_bundle(open_checkpoint(str(checkpoints("tiny"))), out, *QUICK)
    assert leftovers(tmp_path) == ["out"] and Bundle.open(out)


def test_a_checkpoint_that_does_not_fit_costs_no_time(checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny"), tmp_path / "source")
    raw = json.loads((source / "config.json").read_text())
    raw["text_config"]["intermediate_size"] = 176
    (source / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"gate_proj.weight has shape \[160, 64\], expected \[176, 64\]"):
        export_bundle(open_checkpoint(str(source)), tmp_path / "out", "fp32", on_stage=lambda stage, share: pytest.fail("began"))


def test_a_tied_head(checkpoints, tmp_path):
    """transformers' default ties head and embedding; such a checkpoint stores one matrix."""
    from safetensors.numpy import save_file

    source = shutil.copytree(checkpoints("tiny"), tmp_path / "source")
    arrays = {name: tensor.read() for name, tensor in open_checkpoint(str(source)).tensors.items() if name != "lm_head.weight"}
    save_file(arrays, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="missing lm_head.weight"):
        export_bundle(open_checkpoint(str(source)), tmp_path / "out", "fp32")
    raw = json.loads((source / "config.json").read_text())
    raw["tie_word_embeddings"] = True
    (source / "config.json").write_text(json.dumps(raw))
    export_bundle(open_checkpoint(str(source)), tmp_path / "out", *QUICK)
    head = np.load(tmp_path / "out" / "goldens.npz")
    expected = head["text_head/hidden"] @ arrays["model.language_model.embed_tokens.weight"].T
    assert np.allclose(head["text_head/logits"], expected, atol=1e-4 * np.abs(expected).max())


def test_command_line(run, checkpoints, tmp_path):
    source = checkpoints("tiny", "original", "bin")
    result = run(main, "inspect", source)
    assert result.exit_code == 0 and "multi_modality" in result.stdout and "2 layers, 64 wide" in result.stdout
    assert run(main, "inspect", tmp_path / "absent").exit_code == 1
    assert run(main, "checkpoint", source).exit_code == 2
    result = run(main, "checkpoint", source, "--out", tmp_path / "out", "--only", "understanding", "--precision", "fp16")
    assert result.exit_code == 0 and result.stdout == "" and "tracing vision_encoder" in result.stderr
    result = run(main, "checkpoint", source, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "give --force" in result.stderr


def test_inspect_reports_what_is_wrong(run, checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny"), tmp_path / "source")
    (source / "tokenizer.json").unlink()
    (source / "preprocessor_config.json").write_text('{"do_normalize": false}')
    result = run(main, "inspect", source, "--json")
    report = json.loads(result.stdout)
    assert report["family"] == "unknown" and "tokenizer.json is missing" in report["problems"][0]
    assert "do_normalize false" in report["problems"][1] and result.exit_code == 1


def test_verify_finds_a_wrong_weight_by_its_graph(bundles, tmp_path):
    """A change that hashes would catch, hidden from them: the goldens still see it."""
    copy = shutil.copytree(bundles("tiny"), tmp_path / "copy")
    model = onnx.load(copy / "image_head.onnx", load_external_data=False)
    place = {entry.key: int(entry.value) for entry in model.graph.initializer[0].external_data if entry.key != "location"}
    with (copy / "weights.data").open("r+b") as file:
        file.seek(place["offset"])
        file.write(np.full(place["length"] // 4, 0.5, np.float32).tobytes())
    with janus_runtime.load(copy) as janus:
        failed = [check.graph for check in janus.verify_goldens() if not check.passed]
    assert failed == ["image_head"]

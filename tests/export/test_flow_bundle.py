"""Bundles of JanusFlow: every precision, either half, and where its VAE comes from."""

import json
import shutil

import numpy as np
import onnx
import pytest

import janus_runtime
from janus_export.bundle import export_bundle
from janus_export.checkpoint.checkpoint import open_checkpoint
from janus_export.checkpoint.layouts import vae_to_ours
from janus_export.cli import main
from janus_export.errors import CheckpointError
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import INT4, INT8
from janus_runtime.checks.verify import relative_difference
from janus_runtime.errors import BundleError
from testing.janus_flow import times


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_every_precision_agrees_with_the_reference(bundles, precision):
    with janus_runtime.load(bundles("tiny-flow", precision), backend="cpu") as janus:
        checks = {check.graph: check for check in janus.verify_goldens()}
        assert [check for check in checks.values() if not check.passed] == []
        if precision == "int4":
            # What is of 8 bits is held to what 8 bits allow.
            assert checks["flow_step"].tolerance == INT4 and checks["vision_encoder.cpu"].tolerance == INT8
        assert janus.generate("a cat", steps=2)[0].image.size == (64, 64)
        spec = janus.manifest.graphs["flow_step"]
        # State, guidance and time are fp32 whatever the decoder is.
        dtype = "float16" if precision == "fp16" else "float32"
        assert {name: spec.inputs[name].dtype for name in ("latents", "conditions", "past_key_0")} == {
            "latents": "float32", "conditions": "float32", "past_key_0": dtype,
        }  # fmt: skip


@pytest.mark.parametrize(("precision", "allowed"), [("int8", INT8), ("int4", INT4)])
def test_integer_weights_draw_nearly_the_same(bundles, precision, allowed):
    """Over all steps errors add up, but for what they have in common with the noise, so they get one step's room."""
    with janus_runtime.load(bundles("tiny-flow")) as exact, janus_runtime.load(bundles("tiny-flow", precision)) as other:
        first, second = (janus.generate("a cat", seed=3)[0].latents for janus in (exact, other))
    assert 0 < relative_difference(second, first) < allowed


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_weights_are_stored_once(bundles, precision):
    """The decoder lies in two graphs, and every matrix of it at one place of the file."""
    folder = bundles("tiny-flow", precision)

    def matrices(graph):
        model = onnx.load(folder / Bundle.open(folder).graph(graph).file, load_external_data=False)
        places = {each.name: {entry.key: entry.value for entry in each.external_data} for each in model.graph.initializer}
        return {(place["offset"], place["length"]) for place in places.values() if int(place.get("length", 0)) >= 2048}

    decoder, step = matrices("language_model.gqa"), matrices("flow_step.cpu" if precision == "int8" else "flow_step")
    # Tables of angles are each graph's own; int8 also has the cache's scales, which are small.
    assert len(decoder) >= 8 and len(decoder - step) <= 2, decoder - step


@pytest.mark.parametrize(("only", "other"), [("understanding", "generation"), ("generation", "understanding")])
def test_half_a_bundle_does_its_half(bundles, only, other):
    folder = bundles("tiny-flow", only=only)
    with janus_runtime.load(folder) as janus:
        checks = list(janus.verify_goldens())
        assert len(checks) >= 4 and [check for check in checks if not check.passed] == []
        with pytest.raises(BundleError, match=f"was exported for {only} only, not for {other}"):
            janus.generate("a cat") if other == "generation" else janus.chat()
        assert janus.generate("a cat", steps=2) if only == "generation" else list(janus.chat().say("hi", max_tokens=2))
    names = set(Bundle.open(folder).manifest.graphs)
    assert ("flow_step" in names) == (only == "generation")
    # A drawing needs no decoder beside its step's.
    assert any(name.startswith("language_model") for name in names) == (only == "understanding")


def test_a_vae_of_its_own(checkpoints, tmp_path):
    """Given by --vae it is taken instead of the folder beside the weights; its licence travels under a name of its own."""
    source = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "source")
    (source / "LICENSE").write_text("weights")
    vae = shutil.move(source / "vae", tmp_path / "my-vae")
    (vae / "LICENSE.md").write_text("vae")
    out = tmp_path / "out"
    export_bundle(open_checkpoint(str(source), str(vae)), out, "int8", "generation")
    assert Bundle.open(out).manifest.source.vae == "my-vae"
    assert (out / "LICENSE").read_text() == "weights" and (out / "VAE-LICENSE.md").read_text() == "vae"


def test_no_vae(checkpoints, tmp_path):
    """Without one the hub is asked, which the tests are not allowed to reach."""
    source = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "source")
    shutil.rmtree(source / "vae")
    with pytest.raises(
        CheckpointError, match=r"JanusFlow decodes pictures with a VAE of its own \(stabilityai/sdxl-vae, or --vae\): no folder"
    ):
        open_checkpoint(str(source))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty has no config.json; expected the folder of a diffusers AutoencoderKL"):
        open_checkpoint(str(source), str(tmp_path / "empty"))


def test_answers_need_no_vae(run, checkpoints, tmp_path):
    source, out = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "source"), tmp_path / "out"
    vae = shutil.move(source / "vae", tmp_path / "my-vae")
    only = ("--only", "understanding")
    result = run(main, "checkpoint", source, "--out", out, *only)
    assert result.exit_code == 0, result.output
    manifest = Bundle.open(out).manifest
    assert manifest.tasks == ("understanding",) and manifest.source.vae is None
    assert manifest.precision == "int8"
    result = run(main, "checkpoint", source, "--out", tmp_path / "other", *only, "--vae", vae)
    assert result.exit_code == 1 and "takes no VAE; leave --vae out" in result.stderr
    # Opened with it, as it may be from Python, half a bundle still holds nothing of it.
    (vae / "LICENSE").write_text("vae")
    export_bundle(open_checkpoint(str(source), str(vae)), tmp_path / "other", "fp32", "understanding")
    assert Bundle.open(tmp_path / "other").manifest.source.vae is None and not list((tmp_path / "other").glob("VAE-*"))
    with pytest.raises(CheckpointError, match="was opened without its VAE, which drawing needs"):
        export_bundle(open_checkpoint(str(source), draws=False), tmp_path / "third", "fp32")


def test_inspection_without_a_vae_says_so_and_goes_on(run, checkpoints, tmp_path):
    source = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "source")
    vae = shutil.move(source / "vae", tmp_path / "my-vae")
    result = run(main, "inspect", source, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1 and report["family"] == "janus-flow"
    assert [problem[:54] for problem in report["problems"]] == ["JanusFlow decodes pictures with a VAE of its own (stab"]
    result = run(main, "inspect", source, "--json", "--vae", vae)
    assert result.exit_code == 0 and json.loads(result.stdout)["problems"] == []


def test_a_vae_that_lacks_a_tensor(checkpoints, tmp_path):
    from safetensors.numpy import load_file, save_file

    source = shutil.copytree(checkpoints("tiny-flow"), tmp_path / "source")
    path = source / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.mid_block.extra.weight"] = tensors.pop("decoder.mid_block.attentions.0.to_q.weight")
    save_file(tensors, path)
    message = "missing vae.decoder.mid.attn_1.q.weight .*; unknown vae.decoder.mid_block.extra.weight"
    with pytest.raises(CheckpointError, match=message):
        export_bundle(open_checkpoint(str(source)), tmp_path / "out", "int8")


def test_names_of_older_diffusers(checkpoints):
    """Before version 0.15 attention's matrices were called query, key, value and proj_attn."""
    tensors = open_checkpoint(str(checkpoints("tiny-flow"))).vae.tensors
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name):
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        return name

    earlier = {renamed(name): tensor for name, tensor in tensors.items()}
    assert earlier.keys() != tensors.keys() and vae_to_ours(earlier) == vae_to_ours(tensors)


def test_options_of_the_other_family(checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match="is no JanusFlow checkpoint: it decodes pictures by itself; leave --vae out"):
        open_checkpoint(str(checkpoints("tiny")), str(checkpoints("tiny-flow") / "vae"))


def test_command_line(run, checkpoints, tmp_path):
    source, out = checkpoints("tiny-flow"), tmp_path / "out"
    result = run(main, "checkpoint", source, "--out", out, "--precision", "int8", "--only", "generation")
    assert result.exit_code == 0, result.output
    with janus_runtime.load(out, backend="cpu") as janus:
        assert [check for check in janus.verify_goldens() if not check.passed] == []
    report = json.loads(run(main, "inspect", source, "--json").stdout)
    assert report["family"] == "janus-flow" and report["image_tokens"] == "4x4 of 2x2 latents of 4 channels to 64x64 pixels"
    assert report["graphs"][-4:] == ["time_embed", "flow_step", "flow_step.cpu", "image_decoder"] and report["problems"] == []


def test_times_of_the_goldens_are_the_published_loops(bundles):
    with np.load(bundles("tiny-flow") / "goldens.npz") as goldens:
        assert goldens["time_embed/times"].tolist() == np.float32(times(30)[0]).tolist()


def test_the_prompt_is_read_as_it_was_written(bundles):
    """A tensor of the golden is the embedding of its ids, so that both come from one table."""
    with np.load(bundles("tiny-flow") / "goldens.npz") as goldens:
        assert np.array_equal(goldens["flow_step/prompt"][0], goldens["text_embed/embeds"][0, : goldens["flow_step/prompt"].shape[1]])

"""A bundle whose weights are made from a seed is the one that was exported, and filling it needs NumPy alone."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import janus_runtime
from janus_export.recipes import RopeTable
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.manifest import WEIGHTS
from testing.make_checkpoint import random_tensor, spread
from testing.published_layouts import MODELS, hf_tensors
from testing.seeded_bundle import PLAN, Seeded, SeededTensor, _stored, main, pack, seeded_tensors

FIRST = [-1.3013572692871094, 0.1974540501832962, 0.10040529817342758, 0.6937453746795654]
# What an environment of TensorRT alone does not have.
ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "onnxruntime", "transformers")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """-> the packed bundle, and recipe, dtype and offset of all that the export stores."""
    folder, recipes = tmp_path_factory.mktemp("packed") / "bundle", []

    def stored(recipe, dtype, offset, tensors):
        recipes.append((recipe, np.dtype(dtype), offset))
        return _stored(recipe, dtype, offset, tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testing.seeded_bundle._stored", stored)
        pack("tiny", "fp16", folder)
    return folder, recipes


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed[0], tmp_path / "copy")


def test_what_travels_is_small(packed):
    folder, _ = packed
    assert not (folder / WEIGHTS).exists()
    assert 0 < (folder / PLAN).stat().st_size < 200_000


def test_filled_is_what_the_export_stores(packed, copy, run):
    """Byte for byte, but for tables of angles, where float32 is a machine's own in the last bit."""
    result = run(main, "fill", copy, "--processes", 2)
    assert result.exit_code == 0, result.output
    filled, tensors, tables = np.fromfile(copy / WEIGHTS, np.uint8), seeded_tensors(MODELS["tiny"], 0), 0
    for recipe, dtype, offset in packed[1]:
        expected = recipe.make(tensors, dtype)
        got = filled[offset : offset + expected.nbytes].view(dtype).reshape(expected.shape)
        if isinstance(recipe, RopeTable):
            np.testing.assert_allclose(got, expected, atol=1e-3)
            tables += 1
        else:
            np.testing.assert_array_equal(got, expected)
    assert tables == 2 and len(packed[1]) > 100
    assert len(list(Bundle.open(copy).verify_hashes())) == len(Bundle.open(copy).manifest.files)


def test_filled_passes_its_goldens(copy, run):
    assert run(main, "fill", copy).exit_code == 0
    with janus_runtime.load(copy, "cpu") as janus:
        assert [check for check in janus.verify_goldens() if not check.passed] == []


def test_fill_needs_numpy_alone(copy):
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); from testing.seeded_bundle import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "fill", copy], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_other_numbers_are_refused(copy, run):
    plan = json.loads((copy / PLAN).read_text())
    plan["tensors"][0]["sources"][0]["seed"] = 1
    (copy / PLAN).write_text(json.dumps(plan))
    result = run(main, "fill", copy)
    assert result.exit_code == 1 and "pack it again" in result.stderr
    assert not (copy / WEIGHTS).exists() and not list(copy.glob(".*"))


def test_no_packed_bundle(tiny, run):
    result = run(main, "fill", tiny)
    assert result.exit_code == 1 and f"has no {PLAN}" in result.stderr


def test_parts_are_those_of_the_whole():
    tensor = SeededTensor(Seeded(3, "a", (7, 5), 0.5, 2.0), 0, 7)
    whole = tensor.read()
    for start in range(7):
        for stop in range(start, 7):
            assert (tensor.rows(start, stop).read() == whole[start:stop]).all()
    assert not (SeededTensor(Seeded(4, "a", (7, 5), 0.5, 2.0), 0, 7).read() == whole).any()


def test_the_first_numbers_never_change():
    """A bundle packed with one NumPy is filled with another."""
    assert Seeded(0, "lm_head.weight", (2, 2), 0.0, 1.0).numbers(0, 4).tolist() == FIRST


def test_spread_is_that_of_random_checkpoints():
    config = MODELS["tiny"]
    tensors = seeded_tensors(config, 0)
    for name, shape in hf_tensors(config).items():
        theirs, (mean, deviation) = random_tensor(name, shape, config, 0), spread(name, shape, config)
        error = 6 * deviation / theirs.size**0.5
        assert abs(theirs.mean() - mean) < error and abs(theirs.std() - deviation) < error, name
        ours = tensors[name].read()
        assert abs(ours.mean() - mean) < error and abs(ours.std() - deviation) < error, name

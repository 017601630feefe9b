"""Plans are opened only where they were built for, and whole."""

import dataclasses
import json
import shutil

import pytest

from janus_runtime.bundle.bundle import Bundle
from janus_runtime.bundle.manifest import WEIGHTS
from janus_runtime.bundle.plans import FORMAT, KEY, PLANS, Plan, PlanSet, find_plans, folder_name
from janus_runtime.errors import BackendError

HERE = {"library": "tensorrt", "version": "10.15.1", "gpu": "NVIDIA H200", "compute_capability": "9.0"}
GRAPH = "text_head"


@pytest.fixture
def bundle(tiny, tmp_path):
    return Bundle.open(shutil.copytree(tiny, tmp_path / "bundle"))


@pytest.fixture
def key(bundle):
    files, file = bundle.manifest.files, bundle.manifest.graphs[GRAPH].file
    return PlanSet(
        format=FORMAT, **HERE, flavour="slice", weights_sha256=files[WEIGHTS].sha256, rows=(2,), lengths=(64,), chunk=64,
        plans={GRAPH: Plan(f"{GRAPH}.plan", 5, "0" * 64, files[file].sha256)},
    )  # fmt: skip


def write(bundle, key, data=b"12345"):
    folder = bundle.path / PLANS / folder_name(HERE["gpu"], HERE["version"])
    folder.mkdir(parents=True)
    (folder / f"{GRAPH}.plan").write_bytes(data)
    (folder / KEY).write_text(key.to_json())
    return folder


def refused(bundle, **other):
    with pytest.raises(BackendError) as caught:
        find_plans(bundle, **{**HERE, **other})
    line = str(caught.value)
    assert "\n" not in line and f"run 'janus-export engines {bundle.path}' on this machine" in line
    return line


def test_what_was_built_here_is_found(bundle, key):
    folder = write(bundle, key)
    assert find_plans(bundle, **HERE) == (folder, key)


def test_folders_are_named_after_gpu_and_version():
    assert folder_name("NVIDIA GeForce RTX 4090", "8.6.0") == "nvidia-geforce-rtx-4090-8.6.0"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", FORMAT + 1, f"format {FORMAT + 1}, expected {FORMAT}"),
        ("library", "tensorrt_rtx", "library tensorrt_rtx, expected tensorrt"),
        ("version", "10.15.2", "version 10.15.2, expected 10.15.1"),
        ("gpu", "NVIDIA L40S", "GPU NVIDIA L40S, expected NVIDIA H200"),
        ("compute_capability", "8.9", "compute capability 8.9, expected 9.0"),
        ("weights_sha256", "f" * 64, "weights ffffffffffff…, expected "),
        ("plans", {GRAPH: Plan(f"{GRAPH}.plan", 5, "0" * 64, "f" * 64)}, f"graph {GRAPH} ffffffffffff…, expected "),
        ("plans", {"other": Plan("other.plan", 5, "0" * 64, "f" * 64)}, "graph other ffffffffffff…, expected None"),
    ],
)
def test_a_key_that_does_not_fit(bundle, key, field, value, message):
    write(bundle, dataclasses.replace(key, **{field: value}))
    assert f"are of {message}" in refused(bundle)


def test_no_plans(bundle):
    assert "has no TensorRT plans for NVIDIA H200 and tensorrt 10.15.1 (none at all)" in refused(bundle)


def test_plans_for_another_gpu_are_named_and_unfinished_ones_are_not(bundle, key):
    folder = write(bundle, key)
    shutil.copytree(folder, folder.parent / ".nvidia-l40s-10.15.1.part")
    line = refused(bundle, gpu="NVIDIA L40S", compute_capability="8.9")
    assert "has no TensorRT plans for NVIDIA L40S and tensorrt 10.15.1 (only for nvidia-h200-10.15.1)" in line


@pytest.mark.parametrize(("data", "size"), [(b"1234", "4"), (None, "no")])
def test_a_plan_that_is_not_whole(bundle, key, data, size):
    path = write(bundle, key, data or b"") / f"{GRAPH}.plan"
    if data is None:
        path.unlink()
    assert f"{path}, the plan of {GRAPH}, has {size} bytes, expected 5" in refused(bundle)


@pytest.mark.parametrize("text", ["{", json.dumps({"format": FORMAT}), "[]"])
def test_a_key_that_cannot_be_read(bundle, key, text):
    (write(bundle, key) / KEY).write_text(text)
    assert "plans.json cannot be read" in refused(bundle)

"""Slow proofs: the suites under sanitizers, every allocation failed in turn, and fuzzers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
FUZZ_SECONDS = int(os.environ.get("JANUS_FUZZ_SECONDS", 600))


def build_with(folder, *options, **environment):
    command = ["cmake", "-G", "Ninja", "-S", ROOT / "cpp", "-B", folder, *options]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return folder


def run(*words, **environment):
    result = subprocess.run([str(word) for word in words], env={**os.environ, **environment}, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    return result.stdout


@pytest.fixture(scope="module")
def addresses(build):
    return build_with(build / "addresses", "-DJANUS_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=Debug")


def test_addresses_and_undefined_behaviour_over_the_scripted_suite(addresses):
    run(addresses / "tests" / "janus-tests")


def test_every_allocation_that_fails(build):
    """Under sanitizers some of them fail, in the test above."""
    run(build / "tests" / "janus-tests", "--test-case=allocations*", JANUS_TEST_FULL="1")


def test_addresses_and_undefined_behaviour_over_the_real_suite(addresses):
    """In Python's process, whose own leaks are not ours to find."""
    # The sanitizer looks for the real throw when it is loaded, so what throws must be there.
    names = ["-print-file-name=libasan.so", "-print-file-name=libstdc++.so.6"]
    preloaded = [subprocess.run(["gcc", name], capture_output=True, text=True, check=True).stdout.strip() for name in names]
    suite = [
        "tests/cpp/test_draw.py",
        "tests/cpp/test_answer.py",
        "tests/cpp/test_interface.py",
        "tests/cpp/test_text.py",
        "tests/cpp/test_pictures.py",
    ]
    run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *suite),
        JANUS_CPP_BUILD=str(addresses),
        LD_PRELOAD=" ".join(preloaded),
        ASAN_OPTIONS="detect_leaks=0",
    )


def test_threads_over_the_scripted_suite(build):
    folder = build_with(build / "threads", "-DJANUS_SANITIZE=thread", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    run(folder / "tests" / "janus-tests", "--test-case-exclude=allocations*", TSAN_OPTIONS="halt_on_error=1")


def test_threads_over_the_real_onnxruntime(build, onnxruntime_library, tmp_path):
    """Two threads draw through the example service. What ONNX Runtime does among its own threads is not seen: it is not instrumented."""
    folder = build_with(build / "threads", "-DJANUS_SANITIZE=thread", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    subprocess.run(["cmake", "--install", folder, "--prefix", tmp_path / "prefix"], check=True, capture_output=True)
    options = [f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}", "-DCMAKE_CXX_FLAGS=-fsanitize=thread", "-DCMAKE_C_FLAGS=-fsanitize=thread"]
    subprocess.run(
        ["cmake", "-G", "Ninja", "-S", ROOT / "cpp" / "examples", "-B", tmp_path / "examples", *options], check=True, capture_output=True
    )
    subprocess.run(["cmake", "--build", tmp_path / "examples"], check=True, capture_output=True)
    options = "halt_on_error=1 ignore_noninstrumented_modules=1"
    result = subprocess.run(
        [tmp_path / "examples" / "service", ROOT / "engines" / "janus-nano", tmp_path],
        input="\n".join(f"a red circle {number}" for number in range(8)),
        env={
            **os.environ,
            "TSAN_OPTIONS": options,
            "JANUS_ONNXRUNTIME": str(onnxruntime_library),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and not result.stderr, result.stderr[-5000:]
    assert len(list(tmp_path.glob("*.png"))) == 8


@pytest.fixture(scope="module")
def fuzzers(build):
    compiler = shutil.which("clang++") or shutil.which("clang++-14") or shutil.which("clang++-19")
    if compiler is None:
        pytest.skip("no clang++; apt-get install clang")
    options = ["-DJANUS_FUZZ=ON", "-DJANUS_TESTS=OFF", "-DJANUS_CLI=OFF", "-DJANUS_SANITIZE=address,undefined,fuzzer-no-link"]
    return build_with(
        build / "fuzzers", *options, f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_C_COMPILER={compiler.replace('clang++', 'clang')}"
    )


@pytest.mark.parametrize("target", ["fuzz_manifest", "fuzz_tokenizer", "fuzz_text", "fuzz_picture"])
def test_fuzzing(fuzzers, target, tmp_path):
    seeds = {"fuzz_manifest": [ROOT / "engines/janus-nano/manifest.json"], "fuzz_tokenizer": [ROOT / "engines/janus-nano/tokenizer.json"],
             "fuzz_picture": sorted((ROOT / "docs").glob("*.png"))}.get(target, [])  # fmt: skip
    for seed in seeds:
        shutil.copyfile(seed, tmp_path / seed.name)
    run(fuzzers / "tests" / target, tmp_path, f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=3000", "-timeout=20")

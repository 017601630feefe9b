# Verbs only. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# GPU=1 at `make setup` holds for the environment from then on.
GPU ?= $(if $(wildcard $(VENV)/.gpu),1)
STAMP := $(VENV)/.installed$(if $(GPU),-gpu)
, := ,

MODEL ?=
PRECISION ?=
VAE ?=
BUNDLE ?=
OUT ?= engines/$(notdir $(patsubst %/,%,$(MODEL)))
NANO := engines/janus-nano
BENCH := build/bench
RIVALS := build/rivals
BUNDLES := build/test-bundles
MISSING ?=
# Processes that share out the tests, a file at a time.
JOBS ?= 2

.DEFAULT_GOAL := help
CPP := build/cpp
CPP_FILES := $(wildcard cpp/*/*.cpp cpp/*/*.h cpp/*/*.c cpp/include/janus/*)

.PHONY: help setup demo test test-full test-oldest test-cpp test-cpp-full check fmt export engines nano nano-bundle nano-flow bench-rivals bench

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifneq ($(GPU),)
	$(BIN)/pip uninstall --quiet --yes onnxruntime  # it hides onnxruntime-gpu
	touch $(VENV)/.gpu
endif
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(if $(GPU),gpu$(,)trt,cpu),export,dev,trt-test,serve,ray]'
	touch $@

setup: $(STAMP) ## make .venv and install everything; GPU=1 takes ONNX Runtime for CUDA, and TensorRT

demo: $(STAMP) ## draw pictures into out/ with the built-in model and answer a question about one
	$(BIN)/janus-rt generate "a red circle" "a small blue square left of a green triangle" "three yellow crosses on black" -n 4 --grid --upscale 256 --out out
	$(BIN)/janus-rt describe "$$(ls -t out/*-a-small-blue-square-*-seed0.png | head -n 1)" --ask "What is left of the triangle?"

# In processes in which nothing of the exporter can be imported.
define RUNTIME_TESTS
JANUS_TEST_BUNDLES=$(BUNDLES) $(BIN)/python -m pytest -p testing.without_exporter -q -n $(JOBS) --dist loadfile -m "not slow and not alone" tests/runtime
JANUS_TEST_BUNDLES=$(BUNDLES) $(BIN)/python -m pytest -p testing.without_exporter -q -m "alone and not slow" tests/runtime
endef

define EXPORT_BUNDLES
$(BIN)/python -m tests.export_bundles $(BUNDLES)
touch $(BUNDLES)/.exported
endef

# The runtime's tests come last, over bundles of the graphs that the others have traced.
test: export JANUS_TEST_TRACES := $(CURDIR)/build/test-traces
test: $(STAMP) ## every test but the slow proofs [JOBS=2]
	rm -rf $(JANUS_TEST_TRACES)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" --ignore tests/runtime
	$(EXPORT_BUNDLES)
	$(RUNTIME_TESTS)

test-full: test-oldest test-cpp-full ## every test, slow proofs and 2000 examples of each fuzzed property included, test-oldest, and sanitizers over C++
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --hypothesis-profile=fuzz -m "not alone"
	$(BIN)/python -m pytest -m alone

test-oldest: $(STAMP) $(BUNDLES)/.exported ## the runtime on the oldest versions allowed (Python 3.10 and 3.11) and the newest (3.13) [MISSING=skip: go on without a Python]
	$(BIN)/python -m tests.oldest $(BUNDLES) $(if $(filter skip,$(MISSING)),--skip-missing)

test-cpp: $(STAMP) $(BUNDLES)/.exported ## the C++ library, beside the Python runtime (docs/embed.md says what it needs; doctest-dev for its tests)
	cmake -G Ninja -S cpp -B $(CPP)
	cmake --build $(CPP)
	ctest --test-dir $(CPP) --output-on-failure
	JANUS_CPP_BUILD=$(CPP) JANUS_TEST_BUNDLES=$(BUNDLES) $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" tests/cpp

test-cpp-full: test-cpp ## the same under sanitizers, with every allocation failed, and ten minutes of each fuzzer (clang)
	JANUS_CPP_BUILD=$(CPP) JANUS_TEST_BUNDLES=$(BUNDLES) $(BIN)/python -m pytest -q -m slow tests/cpp

# What a bundle comes from.
$(BUNDLES)/.exported: $(STAMP) $(wildcard janus_export/*.py janus_export/*/*.py janus_runtime/bundle/*.py testing/*.py) tests/export_bundles.py
	$(EXPORT_BUNDLES)

check: $(STAMP) $(BUNDLES)/.exported ## ruff, mypy and the runtime's tests: what a commit needs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/mypy janus_runtime janus_export
	$(RUNTIME_TESTS)

fmt: $(STAMP) ## format and sort imports
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

export: $(STAMP) ## checkpoint to bundle: MODEL=<hub id or folder> [PRECISION=int4|int8|fp32|fp16] [VAE=<hub id or folder>] [OUT=engines/<name>]
	@test -n "$(MODEL)" || { echo "usage: make export MODEL=<hub id or folder> [PRECISION=int4|int8|fp32|fp16] [VAE=<hub id or folder>] [OUT=engines/<name>]" >&2; exit 2; }
	$(BIN)/janus-export checkpoint "$(MODEL)" --out "$(OUT)" $(if $(PRECISION),--precision $(PRECISION)) $(if $(VAE),--vae "$(VAE)")
# TensorRT has no form for integer weights.
ifeq ($(filter int8 int4,$(PRECISION)),)
	@if $(BIN)/python -c "import tensorrt, janus_export.tensorrt.builder as t; t.this_gpu()" 2>/dev/null; then $(MAKE) engines BUNDLE="$(OUT)"; fi
endif

engines: $(STAMP) ## bundle to TensorRT plans for this GPU: BUNDLE=<folder>
	@test -n "$(BUNDLE)" || { echo "usage: make engines BUNDLE=<folder>" >&2; exit 2; }
	$(BIN)/janus-export engines "$(BUNDLE)"

# About 90 minutes on two cores. Stopped, it goes on where it was; finished, it starts from nothing the next time.
nano: $(STAMP) ## train janus-nano again from nothing and export it
	$(BIN)/python -m nano --out nano/janus-nano --work build/nano
	$(MAKE) nano-bundle
	rm -rf build/nano

nano-bundle: $(STAMP) ## export janus-nano's checkpoint again, after a change to the exporter
	$(BIN)/janus-export checkpoint nano/janus-nano --out $(NANO) --precision fp32 --force

# About four hours on two cores.
nano-flow: $(STAMP) ## train nano-flow again from nothing
	$(BIN)/python -m nano --flow --out nano/nano-flow --work build/nano-flow
	rm -rf build/nano-flow

# config.json is written last, so a folder without it is a stump.
$(BENCH)/janus-pro-1b/config.json: | $(STAMP)
	rm -rf $(BENCH)/janus-pro-1b
	$(BIN)/python -m testing.make_checkpoint --model janus-pro-1b --layout hf --out $(BENCH)/janus-pro-1b

$(BENCH)/%/manifest.json: $(BENCH)/janus-pro-1b/config.json $(wildcard janus_export/*.py janus_export/*/*.py)
	$(BIN)/janus-export checkpoint $(BENCH)/janus-pro-1b --out $(BENCH)/$* --precision $* --force

# torchvision, which optimum-intel lists and nobody here calls, does not load beside a PyTorch that is built for CPUs alone.
$(RIVALS)/openvino/.installed: bench/cpu/openvino.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/pip uninstall --quiet --yes torchvision
	touch $@

# With AMX, llama.cpp 0.3.36 ends at its first prompt: it loads tiles that it has not configured (SIGILL).
NO_AMX := $(if $(shell grep -m1 -o amx_int8 /proc/cpuinfo 2>/dev/null),-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8)

# Built for this processor, so no wheel of another one from pip's cache.
$(RIVALS)/llama-cpp/.installed: bench/cpu/llama-cpp.txt
	$(PYTHON) -m venv --clear $(@D)
	CMAKE_ARGS="-DGGML_NATIVE=ON $(NO_AMX)" $(@D)/bin/pip install --quiet --disable-pip-version-check --no-cache-dir -r $<
	touch $@

bench-rivals: $(RIVALS)/openvino/.installed $(RIVALS)/llama-cpp/.installed ## environments of OpenVINO and of llama.cpp, which is built for this processor (g++, cmake; 15 minutes, 2 GB)

# In bf16 a single convolution of the decoder takes minutes on a processor without instructions for it.
BF16_RIVAL := $(if $(shell grep -m1 -o avx512_bf16 /proc/cpuinfo 2>/dev/null),--rival bf16)
RIVAL_OPTIONS = --checkpoint $(BENCH)/janus-pro-1b --openvino $(RIVALS)/openvino/bin/python --llama-cpp $(RIVALS)/llama-cpp/bin/python

# fp32 in a run of its own: all systems together do not fit in 24 GB.
bench: $(STAMP) bench-rivals $(BENCH)/fp32/manifest.json $(BENCH)/int8/manifest.json $(BENCH)/int4/manifest.json ## time every stage at Janus-Pro-1B's shape beside its rivals (24 GB of disk and of memory)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m bench.cpu.latency --bundle $(BENCH)/int4 --bundle $(BENCH)/int8 $(RIVAL_OPTIONS) $(BF16_RIVAL) --seconds 600 --out bench/results/latency.json
	$(BIN)/python -m bench.cpu.latency --bundle $(BENCH)/fp32 --checkpoint $(BENCH)/janus-pro-1b --rival fp32 --seconds 200 --out bench/results/latency-fp32.json
	for rows in 8 16; do $(BIN)/python -m bench.cpu.latency --bundle $(BENCH)/int4 $(RIVAL_OPTIONS) --rival fp32 --rows $$rows --only "image step" --out bench/results/latency-$$rows-rows.json || exit 1; done
	$(BIN)/python -m bench.chart
	$(BIN)/python -m bench.table

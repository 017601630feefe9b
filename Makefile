# Verbs only. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

MODEL ?=
PRECISION ?=
OUT ?= engines/$(notdir $(patsubst %/,%,$(MODEL)))
DEMO := engines/demo
NANO := engines/janus-nano

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt export nano nano-bundle

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu,export,dev]'
	touch $@

setup: $(STAMP) ## make .venv and install everything

demo: $(STAMP) $(DEMO)/manifest.json ## draw pictures into out/ and answer a question about one
	$(BIN)/janus-rt generate "a red circle" "a small blue square left of a green triangle" -n 2 --grid --bundle $(DEMO) --out out
	$(BIN)/janus-rt describe "$$(ls -t out/*-grid.png | head -n 1)" --ask "What is in this picture?" --max-tokens 32 --bundle $(DEMO)

# Random weights of a tiny size, until a trained model of our own ships.
# Made again whenever what makes it has changed.
$(DEMO)/manifest.json: $(wildcard bench/*.py nano/tokenizer.py janus_export/*.py janus_export/modules/*.py janus_runtime/manifest.py) | $(STAMP)
	rm -rf build/demo-checkpoint
	$(BIN)/python -m bench.make_checkpoint --model tiny --layout hf --out build/demo-checkpoint
	$(BIN)/janus-export checkpoint build/demo-checkpoint --out $(DEMO) --force

test: $(STAMP) ## every test
	$(BIN)/python -m pytest

check: $(STAMP) ## ruff, mypy and the fast tests: what a commit needs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy janus_runtime
	$(BIN)/python -m pytest tests/runtime -q

fmt: $(STAMP) ## format and sort imports
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

export: $(STAMP) ## checkpoint to bundle: MODEL=<hub id or folder> [PRECISION=fp32|fp16|int8|int4] [OUT=engines/<name>]
	@test -n "$(MODEL)" || { echo "usage: make export MODEL=<hub id or folder> [PRECISION=fp32|fp16|int8|int4] [OUT=engines/<name>]" >&2; exit 2; }
	$(BIN)/janus-export checkpoint "$(MODEL)" --out "$(OUT)" $(if $(PRECISION),--precision $(PRECISION))

# About 75 minutes on two cores. Stopped, it goes on where it was; finished, it starts from nothing the next time.
nano: $(STAMP) ## train janus-nano again from nothing and export it
	$(BIN)/python -m nano --out nano/janus-nano --work build/nano
	$(MAKE) nano-bundle
	rm -rf build/nano

nano-bundle: $(STAMP) ## export janus-nano's checkpoint again, after a change to the exporter
	$(BIN)/janus-export checkpoint nano/janus-nano --out $(NANO) --force

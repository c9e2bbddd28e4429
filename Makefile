# make demo     set up, and run the main job on a small benchmark: no key, no GPU, no data
# make test     set up, and run the tests
# make check    format, lint, strict types, tests: what CI runs
# make bench    the speed figures: ratios measured side by side
# make format   mend the format

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: demo test check lint bench format clean

demo: $(VENV)/.set-up
	$(BIN)/python -m archon.benchmarks.demo

test: $(VENV)/.set-up-dev
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
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "archon needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.set-up: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.set-up-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.set-up

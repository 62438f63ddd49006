# make run: the main job.  make test: the tests.  Both set up .venv first.  make ui: the MLflow UI.  make help: all targets.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The tests start many processes: one thread each, and modules are compiled once, whatever the environment says.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
TORCH ?= torch==2.13.0
TESTS ?= --numprocesses 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help setup run test test-newest test-integration check acceptance nightly long mutants gallery peers docs ui format lock clean

help:            ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into $(VENV): this takes some minutes and prints nothing"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

setup: $(INSTALLED)  ## Create the virtual environment with the locked dependencies

run: setup       ## Run the main job: the speed of light from Michelson's data
	$(BIN)/sbi-models run michelson

test: setup      ## Run the tests
	$(PYTEST) --numprocesses 2 --dist loadgroup

test-newest:     ## Run the tests with the newest versions that pyproject.toml admits, in .venv-newest; PYTHON=python3.12 for that Python
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@.venv-newest/bin/python -V
	@.venv-newest/bin/python -m pip freeze | grep -iE '^(fastapi|lightning|mlflow|numpy|pandas|prefect|sqlalchemy|torch)=='
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest $(TESTS)

test-integration: setup  ## Run the tests with real servers (PostgreSQL, MLflow, Prefect), schedules and several processes; minutes
	$(PYTEST) -m integration --verbose --capture=no --timeout 600

check: setup     ## Lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

acceptance: setup  ## Run the main job, its figures against the exact posterior, the tutorial, and the wheel in an environment of its own
	$(PYTEST) -m "acceptance and not nightly" --numprocesses 2 --dist loadgroup -rP

nightly: setup   ## Run what is too long for each change: integration tests, examples, property tests in depth
	$(PYTEST) -m "integration or nightly" --numprocesses 2 --dist loadgroup --timeout 600
	$(PYTEST) tests/*/test_*_properties.py --hypothesis-profile deep --timeout 1200

long: setup      ## Run the experiments beside the main job and check their figures; not part of CI, and not all of it is met
	$(PYTEST) -m long --capture=no

mutants: setup   ## Count the small edits of the package, each a wrong answer, that the tests notice; goes on where it was stopped
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py

gallery: setup   ## Run all examples in full and draw the pictures of examples/README.md anew; about twenty minutes on one core
	@for example in examples/*.py; do \
	  echo "== $$example"; OMP_NUM_THREADS=1 $(BIN)/python $$example --output docs/img/gallery || exit 1; \
	done

peers:           ## Create .venv-peers, with BayesFlow and sbi, for the benchmarks of speed
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt

docs: setup      ## Build the pages of docs/ to docs/_build/html, without a network
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

ui: setup        ## Open the MLflow UI on what was tracked
	$(BIN)/sbi-models ui

format: setup    ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:            ## Make constraints.txt anew from the newest versions that pyproject.toml admits
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet $(TORCH)
	$(VENV)-lock/bin/python -m pip install --quiet --editable ".[dev]"
	{ echo "# Exact versions of everything that make run and make test install. Made by: make lock"; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > constraints.txt
	rm -rf $(VENV)-lock

clean:           ## Remove the environment and all runs
	rm -rf $(VENV) mlruns/*

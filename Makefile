# make setup | demo | test | test-fast | lint | format. As root on Debian `make test` first installs what the cluster tests
# need (Slurm, a JDK), and says so: tests/cluster/packages.sh.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
# Two processes, whatever the machine: each of the models in them computes on all cores.
PYTEST := $(BIN)/python -m pytest
TOGETHER := -n 2 --dist loadfile

.PHONY: setup demo test test-fast lint format

setup: .venv/ready

.venv/ready: requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(BIN)/fake-gcs-server: .venv/ready
	tests/cloud/packages.sh $(BIN)

demo: setup
	$(BIN)/python -m examples.demo --output $(DEMO)

test: setup $(BIN)/fake-gcs-server
	tests/cluster/packages.sh
	$(PYTEST) $(TOGETHER) --ignore tests/cluster
	$(PYTEST) $(TOGETHER) tests/cluster

test-fast: setup $(BIN)/fake-gcs-server
	$(PYTEST) $(TOGETHER) -m "not slow"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint runners/dataflow/Dockerfile
	$(BIN)/yamllint --strict -d "{extends: default, rules: {line-length: {max: 120}}}" runners/dataflow

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

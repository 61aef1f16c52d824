# make demo   trains the quickstart study and prints its table
# make test   the default test suite
# make help   everything else
#
# Each command first makes what it needs in $(VENV). Wants: make, Python 3.10 to 3.12 with venv, pip; no compiler.

VENV   ?= .venv
PYTHON ?= python3
# Processes of `make test`. Each runs torch with one thread.
TEST_WORKERS ?= 2

# Which torch: the pin of constraints.txt, installed first. On a machine without a GPU, TORCH_ARGS can name torch's index of CPU
# builds (make demo TORCH_ARGS="--index-url URL"); the default build brings CUDA with it.
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
TORCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test slow gpu lint format clean

help:
	@echo "make demo     train the quickstart study ($(VENV) is made first) and print its table"
	@echo "make test     default tests: everything but slow and gpu, $(TEST_WORKERS) processes"
	@echo "make slow     tests that take minutes"
	@echo "make gpu      tests that need a CUDA device"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make format   ruff format"
	@echo "make install  only $(VENV)"
	@echo "make clean    remove $(VENV) and caches; results in runs/ stay"
	@echo "Variables: PYTHON=python3.12 VENV=.venv TEST_WORKERS=2 TORCH_ARGS='--index-url ...'"

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 10) <= v < (3, 13) and "%s is Python %d.%d; the lab wants 3.10 to 3.12: make PYTHON=python3.12 ..." % ("$(PYTHON)", v[0], v[1]))'
	@echo "[1/3] making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "no venv for $(PYTHON): install python3-venv or set PYTHON"; exit 1; }
	@echo "[2/3] installing $(TORCH)"
	@$(PIP) $(TORCH_ARGS) -c constraints.txt $(TORCH)
	@echo "[3/3] installing the lab, Ray, MLflow and the mm packages (about 3 GB on disk, two minutes or so)"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "ready: $(BIN)/salt-lab"

demo: $(READY)
	@echo "training experiments/quickstart.yaml: {FCOS, ATSS, GFL} x {SALT off, on} on the embedded data set"
	@$(BIN)/salt-lab run experiments/quickstart.yaml

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not gpu"

gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache salt_lab.egg-info

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

# Where the benchmarks write, and mmcv's compiled extension (a file, folder or wheel) to measure beside; empty = without it.
BENCH  ?= benchmarks/results
MMCV_EXT ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test slow gpu lint bench bench-gpu format clean

help:
	@echo "make demo     train the quickstart study ($(VENV) is made first) and print its table"
	@echo "make test     default tests: everything but slow and gpu, $(TEST_WORKERS) processes"
	@echo "make slow     tests that take minutes"
	@echo "make gpu      tests that need a CUDA device"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make bench    speed on this CPU, about ten minutes; MMCV_EXT=PATH measures mmcv's compiled operators beside"
	@echo "make bench-gpu  speed on a CUDA device, without Ray, under nine minutes"
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

# The machine should have nothing else to do. A result of another kind of machine is never replaced: then name another folder, BENCH=FOLDER.
COMPILED = $(if $(MMCV_EXT),--compiled $(MMCV_EXT))
bench: $(READY)
	$(BIN)/python benchmarks/point_conv.py $(COMPILED) --output $(BENCH)/point_conv
	$(BIN)/python benchmarks/nms.py $(COMPILED) --output $(BENCH)/nms
	$(BIN)/python benchmarks/training_step.py $(COMPILED) --rounds 2 --output $(BENCH)/training_step
	$(BIN)/python benchmarks/data.py --output $(BENCH)/data
	$(BIN)/python benchmarks/start.py --output $(BENCH)/start
	$(BIN)/python benchmarks/scaling_train.py --output $(BENCH)/scaling_train
	$(BIN)/python benchmarks/scaling_study.py --output $(BENCH)/scaling_study

# Uses $(PYTHON) as it is, since a GPU's machine brings its own torch; salt_lab must be importable there.
bench-gpu:
	$(PYTHON) benchmarks/point_conv_gpu.py $(COMPILED) --output $(BENCH)/point_conv_gpu
	$(PYTHON) benchmarks/training_step.py $(COMPILED) --output $(BENCH)/training_step_gpu

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache salt_lab.egg-info

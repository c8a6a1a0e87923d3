# Two commands to know: `make demo` (the main job) and `make test`. Each sets itself up in .venv and never needs root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WEIGHTS := $(VENV)/.weights
TTSEM := $(VENV)/ttsem/.installed
TRITONS := $(addprefix .cache/triton-,$(addsuffix /.installed,3.6.0 3.9.0))
CONSTRAINTS ?= constraints.txt
STARTED := $(shell date +%s)
# The first Python of at least 3.11 that can make an environment; the pinned set was resolved with 3.11.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 /usr/bin/python3; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-crash test-long test-kernels kernel-facts planted-faults lint types wheel bench install weights tree clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) $(WEIGHTS) ## the main job: recipes/pharmacy.yaml end to end, with its time and memory budget
	@$(BIN)/python tools/demo.py recipes/pharmacy.yaml --started $(STARTED) --stamp $(INSTALLED) --stamp $(WEIGHTS) $(ARGS)

test: $(INSTALLED) $(WEIGHTS) $(TTSEM) ## every test but the slow ones; needs no network once set up (ARGS='-k name' to choose)
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-crash: $(INSTALLED) $(WEIGHTS) ## kill the run at every write, fsync and rename (minutes)
	@TERCET_CRASH_POINTS=all $(BIN)/python -m pytest tests/core/crash --timeout=7200 $(ARGS)

test-long: $(INSTALLED) $(WEIGHTS) ## the slow tests
	@$(BIN)/python -m pytest -m slow --timeout=7200 $(ARGS)

test-kernels: $(INSTALLED) $(TTSEM) $(TRITONS) ## the kernels' proofs in full: more examples, every compile, every planted fault
	@mkdir -p .cache; export TERCET_LONG=1; result=0; \
	$(BIN)/python -m pytest tests/kernels/proof --timeout=7200 $(ARGS) >.cache/proof.log 2>&1 & proof=$$!; \
	$(BIN)/python -m pytest tests/kernels --ignore=tests/kernels/proof --timeout=7200 $(ARGS) || result=$$?; \
	wait $$proof || result=$$?; cat .cache/proof.log; \
	exit $$((result == 5 ? 0 : result)) # 5: ARGS chose no test there

kernel-facts: $(INSTALLED) $(TRITONS) ## registers, spills and instructions of every kernel (ARGS=--write for the lock)
	@$(BIN)/python -m tools.kernel_facts $(ARGS)

planted-faults: $(INSTALLED) $(TTSEM) ## break each kernel on purpose, and say which proof turns red
	@$(BIN)/python -m tools.planted_faults $(ARGS)

lint: $(INSTALLED) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy, strict
	@$(BIN)/mypy

wheel: $(INSTALLED) ## build dist/*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation .

bench: $(INSTALLED) $(WEIGHTS) ## the pipeline benchmarks; results go to benchmarks/results
	@for script in benchmarks/pipeline/*.py; do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

install: $(INSTALLED) $(TTSEM) ## set up .venv

weights: $(WEIGHTS) ## fetch the model weights that tests and demo use

tree: $(INSTALLED) ## write the README's tree from the packages' own first lines
	@$(BIN)/python tools/tree.py --write

clean: ## remove .venv, build output and caches; model weights and runs stay
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(INSTALLED): $(CONSTRAINTS) pyproject.toml tools/fix_torchaudio.py
	@[ -n "$(PYTHON)" ] || { echo "no Python >= 3.11 with the venv module; install one (Debian: python3 and python3-venv), or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "== install: the pinned packages into $(VENV) (about 2 minutes and 3 GB; more with a CUDA build of torch)"
	@start=$$(date +%s); \
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install -qq -c $(CONSTRAINTS) -e '.[all,dev]'; \
	$(BIN)/python tools/fix_torchaudio.py; \
	echo $$(( $$(date +%s) - start )) > $@

# ttsem asks for Python 3.12 and for packages of its own choice; 0.1.0 runs with ours. Beside the environment, not in it.
$(TTSEM): | $(INSTALLED)
	@echo "== ttsem: kernel tests without a GPU"
	@rm -rf $(@D)
	@$(BIN)/python -m pip install -qq --no-deps --ignore-requires-python --target $(@D) ttsem==0.1.0
	@touch $@

.cache/triton-%/.installed: | $(INSTALLED)
	@echo "== triton $*: the kernels must compile with it too (about 1 GB)"
	@rm -rf $(@D)
	@$(BIN)/python -m pip install -qq --no-deps --target $(@D) triton==$*
	@touch $@

$(WEIGHTS): $(INSTALLED) tools/weights.txt
	@echo "== weights: model weights for tests and demo, into tercet's cache (about 300 MB to fetch)"
	@start=$$(date +%s); \
	$(BIN)/tercet models get $$(grep -v '^#' tools/weights.txt); \
	echo $$(( $$(date +%s) - start )) > $@

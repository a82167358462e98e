# cmafs: see README.md. Every target sets the machine up first; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.cmafs-setup
# -n 2: the suite is made for the two cores of a CI machine; one file stays on one worker, so that a mounted
# fixture is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help setup demo shell test soak mutants bench lint

help:
	@echo 'make demo    the walkthroughs of README.md on mounted machines, printed as a transcript'
	@echo 'make test    lint, then the whole test suite'
	@echo 'make shell   a shell on the bundled board (ARGS="--dts rpi4 --kernel 5.10" for another)'
	@echo 'make lint    ruff, mypy --strict, shellcheck'
	@echo 'make bench   every budget, measured as ratios in one run'
	@echo 'make soak    the property tests with new examples and the stress tests, much longer'
	@echo 'make mutants a sample of changes of the program: do the fast tests notice?'
	@echo 'make setup   system packages where missing, then .venv with cmafs in it'

setup: $(STAMP)

$(STAMP): pyproject.toml .ci/setup
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh .ci/setup
	@touch $@

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/scripts/demo.sh

shell: setup
	@$(BIN)/cmafs shell $(ARGS)

lint: setup
	$(BIN)/ruff check cmafs tests
	$(BIN)/ruff format --check --exclude tests/scripts cmafs tests
	$(BIN)/mypy
	shellcheck .ci/setup .ci/run tests/scripts/*.sh cmafs/run/shims/* cmafs/board/record.sh

test: lint
	$(PYTEST) tests $(ARGS)

soak: setup
	CMAFS_SOAK=1 $(PYTEST) tests --timeout 3600 $(ARGS)

mutants: setup
	$(BIN)/python tests/mutants.py $(ARGS)

bench: setup
	$(BIN)/python tests/bench.py $(ARGS)

# cmafs: see README.md. Every target sets the machine up first; `make` alone lists them.
PYTHON ?= python3
HOURS ?= 1
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.cmafs-setup
# -n 2: the suite is made for the two cores of a CI machine; one file stays on one worker, so that a mounted
# fixture is made once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# What `make oracle` and `make oracle-fuzz` ask a real kernel about (docs/oracle.md).
KERNEL ?= 6.12
ARCH ?= arm64
CONFIG ?= tiny
N ?= 100
SEED ?= 0
ORACLE := PYTHONPATH=tests $(BIN)/python -m oracle

.PHONY: help setup demo shell test soak mutants bench lint dist oracle oracle-fuzz

help:
	@echo 'make demo    the walkthroughs of README.md on mounted machines, printed as a transcript'
	@echo 'make test    lint, then the whole test suite'
	@echo 'make shell   a shell on the bundled board (ARGS="--dts rpi4 --kernel 5.10" for another)'
	@echo 'make lint    ruff, mypy --strict, shellcheck'
	@echo 'make bench   every budget, measured: one table (docs/performance.md; ARGS=--scale: its plots)'
	@echo 'make soak    the property tests with new examples, fuzzers and faults for HOURS=1'
	@echo 'make mutants a sample of changes of the program: do the fast tests notice?'
	@echo 'make oracle  a real kernel built, booted in QEMU, recorded, compared (KERNEL= ARCH= CONFIG=: docs/oracle.md)'
	@echo 'make oracle-fuzz  N= random machines, the real kernel against cmafs (and SEED=)'
	@echo 'make dist    wheel and source archive in dist/, checked, installed and tried outside the tree'
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
	CMAFS_SOAK='$(HOURS)' $(PYTEST) --dist worksteal tests $(ARGS)

mutants: setup
	$(BIN)/python tests/mutants.py $(ARGS)

bench: setup
	$(BIN)/python tests/bench.py $(ARGS)

oracle: setup
	@$(ORACLE) record --kernel '$(KERNEL)' --arch '$(ARCH)' --config '$(CONFIG)' $(ARGS)

oracle-fuzz: setup
	@$(ORACLE) fuzz --kernel '$(KERNEL)' --arch '$(ARCH)' --config '$(CONFIG)' --boots '$(N)' --seed '$(SEED)' $(ARGS)

# In an environment of its own: building takes nothing from .venv, and the wheel is tried without the tree.
dist:
	rm -rf dist build
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(PYTHON) -m venv "$$tmp/tools" && \
	"$$tmp/tools/bin/pip" install -q build twine && "$$tmp/tools/bin/python" -m build && \
	"$$tmp/tools/bin/twine" check --strict dist/* && \
	$(PYTHON) -m venv "$$tmp/installed" && "$$tmp/installed/bin/pip" install -q dist/*.whl && cd "$$tmp" && \
	installed/bin/cmafs --version && installed/bin/cmafs check rpi4 --format brief && \
	ls installed/share/man/man1/cmafs.1 installed/share/bash-completion/completions/cmafs

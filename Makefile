# Each target makes .venv in the checkout, installs what it needs when pyproject.toml has changed, and goes.
# Needed: python3 (3.11 or later) with venv, make, and a package registry.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run quick test check format docs bench fuzz soak clean

help:
	@echo 'make run      a mesh: a control plane, three services with a sidecar each, customers; Ctrl-C ends it all'
	@echo 'make quick    the checks, then the tests that a change breaks most often; under 2 minutes'
	@echo 'make test     the checks, then all tests'
	@echo 'make check    ruff, mypy and the laws of the layout'
	@echo 'make format   the code as ruff formats it'
	@echo 'make docs     the pages that the code knows best, and the site; open site/index.html'
	@echo 'make bench    against Envoy and HAProxy; about 9 minutes'
	@echo 'make fuzz     a million hostile inputs, and the control plane by its own description'
	@echo 'make soak     long loads, outages and kills; what is used must come back, and nothing be lost'
	@echo 'make clean    away with .venv and all caches'
	@echo 'make bench AGAINST=REV   against another revision of this project, in the same rounds'
	@echo 'BENCH_PYTHON=... is what make bench measures with; /usr/bin/python3 where it is there'
	@echo 'PYTHON=... names another interpreter, for the first of these that makes .venv'

run: .venv/installed-run
	@$(BIN)/python examples/run.py

quick: check
	$(BIN)/python -m tests.lanes --quick

test: check
	$(BIN)/python -m tests.lanes

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: bench/.venv-own/installed
	bench/.venv-own/bin/python -m bench $(if $(AGAINST),--against $(AGAINST))

fuzz: .venv/installed-dev
	$(BIN)/python -m tests.hostile.fuzz --count 1000000
	$(BIN)/python -m tests.control.schemathesis_run --examples 300

soak: .venv/installed-dev
	$(BIN)/python -m tests.soak

clean:
	rm -rf .venv bench/.venv* .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment whose making was cut short has no working pip, and is made anew.
.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/installed-run: pyproject.toml .venv/made
	$(PIP) install --editable '.[control,ctl]'
	@touch $@

.venv/installed-dev: pyproject.toml .venv/made
	$(PIP) install --editable '.[dev]'
	@touch $@

# What is measured is the interpreter that people run, the distribution's: one that was built without optimizations, as
# version managers do by default, costs a fifth more.
BENCH_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

bench/.venv-own/installed: pyproject.toml
	@$(BENCH_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make bench BENCH_PYTHON=... (3.11 or later)")'
	@$(BENCH_PYTHON) -m venv --clear bench/.venv-own
	@bench/.venv-own/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[bench]'
	@touch $@

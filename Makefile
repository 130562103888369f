# Few verbs. `make demo` and `make test` each do their own set-up, so either is enough on its own.
PYTHON := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help setup demo test test-unit test-kernel test-e2e lint bench scale picture clean \
	test-kernels test-guest

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup:  ## everything demo, tests and benchmarks need (Debian 12 or 13)
	@./deploy/setup-debian.sh

demo: setup  ## a VPC in network namespaces, a noisy task, and eni53 watching it go over 1024
	@$(SUDO) $(PYTHON) -m tests.lab.demo

test: setup test-libraries lint test-unit test-kernel test-e2e  ## the tests; the last two need root

test-libraries: .venv/.test-libraries  # what only the tests of deploy/ need: 120 MB

.venv/.test-libraries: pyproject.toml | setup
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,deploy]'
	@touch $@

test-unit:  ## no root, no network, seconds
	$(PYTHON) -m pytest tests/unit

test-kernel:  ## real programs and real packets, in namespaces of their own
	$(SUDO) $(PYTHON) -m pytest tests/kernel

test-e2e:  ## the installed command in the lab, with a real dockerd and resolver
	$(SUDO) $(PYTHON) -m pytest tests/e2e

test-kernels: setup  ## kernel tests under Linux 5.10, 6.1 and 6.12, emulated; test-kernel-6.1 for one
	@./deploy/setup-guests.sh
	$(PYTHON) -m tests.guests

test-kernel-%: setup
	@./deploy/setup-guests.sh
	$(PYTHON) -m tests.guests --kernel $*

test-guest: setup  # one kernel, the short way: silent unless something fails
	@./deploy/setup-guests.sh
	$(PYTHON) -m tests.guests --kernel 6.1 --quick --quiet

image-test: setup  ## builds the container image and runs it on containerd and dockerd: some five minutes
	@command -v mmdebstrap >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends mmdebstrap
	$(SUDO) $(PYTHON) -m pytest -m image tests/e2e/test_image.py

lint:  ## ruff and mypy
	$(PYTHON) -m ruff check agent tests
	$(PYTHON) -m ruff format --check agent tests
	$(PYTHON) -m mypy

bench: setup  ## what it costs: kernel, memory, processor, start
	@$(SUDO) $(PYTHON) -m tests.bench

scale: setup  ## 300 simulated nodes scraped by a real Prometheus; writes docs/scale.md
	@$(SUDO) $(PYTHON) -m tests.bench.scale --write docs/scale.md

picture: setup  ## docs/top.svg from a real run in the lab
	@$(SUDO) $(PYTHON) -m tests.lab.demo --picture docs/top.svg

clean:  ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info

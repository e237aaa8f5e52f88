# The two commands of a newcomer: make run, make test. Both need Python 3.11 to 3.13 and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test bench lint types format reference clean

run: $(VENV)/installed
	$(BIN)/twistd -n --pidfile= pushd $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -rs tests

lint: $(VENV)/installed-lint
	$(BIN)/ruff check pushd twisted tests bench
	$(BIN)/ruff format --check pushd twisted tests bench

types: $(VENV)/installed-lint $(VENV)/installed-test
	$(BIN)/mypy

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix pushd twisted tests bench
	$(BIN)/ruff format pushd twisted tests bench

# Measures pushd beside its peers, which it installs: nginx with nchan from Debian, others from npm and PyPI.
# The report goes to docs/benchmarks; with ARGS=--quick, to build/bench.
bench: $(VENV)/installed-bench
	bench/install
	$(BIN)/python -m bench $(ARGS)

# The files that are made from the table of options.
reference: $(VENV)/installed
	$(BIN)/python -m pushd.config.reference ini > etc/pushd.ini
	$(BIN)/python -m pushd.config.reference rst > docs/configuration.rst

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "pushd needs Python 3.11 to 3.13; say which with make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@

$(VENV)/installed-lint: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[lint]'
	@touch $@

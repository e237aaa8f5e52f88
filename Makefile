# The two commands of a newcomer: make run, make test. Both need Python 3.11 or later and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCANNERS := build/scanners

IN_MEMORY := tests/unit tests/component tests/contract tests/conformance
QUICK := tests/unit tests/test_layers.py tests/test_docs.py
PARALLEL := -n $(shell nproc) --dist worksteal

# For install-systemd: where pushd is installed, with twistd in its bin; where the files go; and what stands before all
# of it in a package that is being built.
PREFIX ?= /opt/pushd
LIBDIR ?= /usr/local/lib
DESTDIR ?=

UNITS := pushd.service pushd@.service pushd.socket pushd-https.socket pushd@.socket

.PHONY: help run check test cov dist torture scan scanners bench lint types format docs reference clean install-systemd uninstall-systemd

run: $(VENV)/installed  ## start the server
	$(BIN)/twistd -n --pidfile= pushd $(ARGS)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

check: $(VENV)/installed-lint $(VENV)/installed-test  ## lint, types and unit tests, at once
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint types quick

.PHONY: quick
quick:
	HYPOTHESIS_PROFILE=dev $(BIN)/python -m pytest -q $(PARALLEL) -m 'not slow' $(QUICK)

# T is a path, or path::Class. Only tests of whole processes measure time, so they run one after the other.
ifdef T
test: $(VENV)/installed-test  ## all tests, or those of T=path::Class
	$(BIN)/python -m pytest -rs $(T)
else
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -rs -q $(PARALLEL) $(IN_MEMORY)
	$(BIN)/python -m pytest -rs tests/e2e $(wildcard tests/test_*.py)
endif

cov: $(VENV)/installed-test  ## branch coverage of the tests in memory, and its minimums
	$(BIN)/python -m pytest -q $(PARALLEL) --cov=pushd --cov-branch --cov-report=term-missing:skip-covered \
		tests/unit tests/component tests/contract
	$(BIN)/coverage report --format=total --precision=2 --fail-under=100 --include='pushd/wire/*,pushd/auth/*'
	$(BIN)/coverage report --format=total --precision=2 --fail-under=99 --include='pushd/bus/*'
	$(BIN)/coverage report --format=total --precision=2 --fail-under=97

dist: $(VENV)/installed-test  ## the wheel and the source archive, in dist
	$(BIN)/python -m build

# The largest legal and illegal inputs for every endpoint, beside 100,000 channels; prints the longest turns of the
# reactor and fails if one took more than 20 ms of CPU time. Takes ten minutes or so; ARGS='--only batch' runs a part.
torture: $(VENV)/installed-test
	$(BIN)/python -m tests.torture $(ARGS)

# Other people's scanners against pushd, for longer with PUSHD_SCAN_SECONDS=60. They have environments of their own,
# because what they need is not what pushd needs. docs/scans.rst says more.
scan: $(VENV)/installed-test scanners
	$(BIN)/python -m pytest -s -rs tests/e2e/test_scanners.py

scanners: $(SCANNERS)/wapiti/installed $(SCANNERS)/sslyze/installed

lint: $(VENV)/installed-lint  ## ruff
	$(BIN)/ruff check pushd twisted tests bench docs
	$(BIN)/ruff format --check pushd twisted tests bench docs

types: $(VENV)/installed-lint $(VENV)/installed-test  ## mypy
	$(BIN)/mypy

format: $(VENV)/installed-lint  ## format the code
	$(BIN)/ruff check --fix pushd twisted tests bench docs
	$(BIN)/ruff format pushd twisted tests bench docs

# Measures pushd beside its peers, which it installs: nginx with nchan from Debian, others from npm and PyPI.
# The report goes to docs/benchmarks; with ARGS=--quick, to build/bench.
bench: $(VENV)/installed-bench  ## measure pushd beside its peers
	bench/install
	$(BIN)/python -m bench $(ARGS)

# The documents as pages, in build/docs. A warning is an error.
docs: $(VENV)/installed-docs  ## the documents as pages, in build/docs
	$(BIN)/sphinx-build -q -E -n -W --keep-going -b html docs build/docs

# The files that are made from the table of options, and from the description of the HTTP interface.
reference: $(VENV)/installed-docs  ## files made from the table of options
	$(BIN)/python -m pushd.config.reference ini > etc/pushd.ini
	$(BIN)/python -m pushd.config.reference rst > docs/configuration.rst
	$(BIN)/python docs/reference.py > docs/endpoints.rst
	$(BIN)/python -m tests.test_layers > docs/floors.txt

# Units, the user and directories; docs/systemd.rst says what comes next. A configuration that is there stays. twistd is
# run because Twisted writes a list of its plugins beside them, which the service may not.
install-systemd:
	@[ -n "$(DESTDIR)" ] || [ -x "$(PREFIX)/bin/twistd" ] \
		|| { echo "there is no $(PREFIX)/bin/twistd: install pushd first, or say where it is with PREFIX="; exit 1; }
	[ -n "$(DESTDIR)" ] || "$(PREFIX)/bin/twistd" --help >/dev/null
	install -d "$(DESTDIR)$(LIBDIR)/systemd/system" "$(DESTDIR)$(LIBDIR)/sysusers.d" "$(DESTDIR)$(LIBDIR)/tmpfiles.d"
	for unit in $(UNITS); do \
		sed 's#/opt/pushd/#$(PREFIX)/#' "etc/systemd/$$unit" \
			> "$(DESTDIR)$(LIBDIR)/systemd/system/$$unit" || exit 1; \
		chmod 0644 "$(DESTDIR)$(LIBDIR)/systemd/system/$$unit" || exit 1; \
	done
	install -m 0644 etc/sysusers.d/pushd.conf "$(DESTDIR)$(LIBDIR)/sysusers.d/pushd.conf"
	install -m 0644 etc/tmpfiles.d/pushd.conf "$(DESTDIR)$(LIBDIR)/tmpfiles.d/pushd.conf"
	install -d "$(DESTDIR)/etc/pushd"
	[ -e "$(DESTDIR)/etc/pushd/pushd.ini" ] \
		|| install -m 0644 etc/pushd.ini "$(DESTDIR)/etc/pushd/pushd.ini"

# The configuration, the events and the user stay.
uninstall-systemd:
	for unit in $(UNITS); do rm -f "$(DESTDIR)$(LIBDIR)/systemd/system/$$unit"; done
	rm -f "$(DESTDIR)$(LIBDIR)/sysusers.d/pushd.conf" "$(DESTDIR)$(LIBDIR)/tmpfiles.d/pushd.conf"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pushd needs Python 3.11 or later; say which with make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

$(SCANNERS)/wapiti/installed: PACKAGE := wapiti3==3.2.3
$(SCANNERS)/sslyze/installed: PACKAGE := sslyze==6.3.1
$(SCANNERS)/%/installed: Makefile
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet $(PACKAGE)
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/installed-lint: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[lint]'
	@touch $@

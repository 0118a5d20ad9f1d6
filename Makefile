PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint bench bench-peers chaos install install-dev services clean

run: install  ## start the service on this machine, and print what to try
	@$(BIN)/packtrail serve --first-steps

install: $(VENV)/installed  ## make .venv, with the packtrail command in it

install-dev: $(VENV)/installed-dev

test: install-dev  ## run the tests (with CI=true the slow ones, too)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(if $(CI),,-m "not slow")

lint: install-dev  ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: install-dev  ## kill one thing after another while clients upload (minutes)
	$(BIN)/python -m pytest tests/chaos -s --timeout 1200

bench: install-dev  ## measure, beside limits of the same run
	$(BIN)/python -m benchmarks.uploads
	$(BIN)/python -m benchmarks.downloads
	$(BIN)/python -m benchmarks.reads
	$(BIN)/python -m benchmarks.small_uploads
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.hashing
	$(BIN)/python -m benchmarks.api_processes
	$(BIN)/python -m benchmarks.role_lists
	$(BIN)/python -m benchmarks.slow_clients
	$(BIN)/python -m benchmarks.verify
	$(BIN)/python -m benchmarks.million
	$(BIN)/python -m benchmarks.rebuild
	$(BIN)/python -m benchmarks.replay_beside
	$(BIN)/python -m benchmarks.chain
	$(BIN)/python -m benchmarks.summary

bench-peers:  ## install the programs that benchmarks compare with, on Debian, as root
	./.ci/install-peers

services:  ## install the programs that tests use, on Debian, as root
	./.ci/install-services

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Packtrail needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

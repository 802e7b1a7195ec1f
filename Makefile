# Everything runs in a virtual environment; only Python 3.11+ and pip are required.

VENV := .venv
PYTHON := $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: run test lint types interop bench soak fuzz clean

run: $(VENV)/.installed
	$(BIN)/quicedge demo

test: $(VENV)/.installed-test
	$(PYTEST) $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

interop: $(VENV)/.installed-test
	$(BIN)/python -m interop run $(ARGS)

bench: $(VENV)/.installed-test
	$(BIN)/python -m bench.run $(ARGS)

# SOAK_SECONDS: duration of the first phase (default 300).
soak: $(VENV)/.installed-test
	$(BIN)/python -m bench.soak $(ARGS)

# Where atheris is not available, a plain mutator is used.
fuzz: $(VENV)/.installed-test
	-$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "quicedge requires Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info

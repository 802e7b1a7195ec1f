# Everything runs in a virtual environment of its own; Python 3.11+ and pip are all it takes.

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

# SOAK_SECONDS is how long the first part takes: 300 unless set.
soak: $(VENV)/.installed-test
	$(BIN)/python -m bench.soak $(ARGS)

# atheris has no wheels for some systems; a plain mutator takes its place there.
fuzz: $(VENV)/.installed-test
	-$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "quicedge needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info

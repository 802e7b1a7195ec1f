# Everything runs in a virtual environment; only Python 3.11+ and pip are required.

VENV := .venv
PYTHON := $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

# The compiled core is built where cargo is. QUICEDGE_PURE=1 does without: no build, and Python at
# run time.
CORE := quicedge/_native.abi3.so
CORE_SOURCES := native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs)
CORE_LOG := native/build.log
BUILD_CORE := $(MAKE) --no-print-directory core
CORE_WANTED := $(if $(filter-out 0,$(QUICEDGE_PURE)),,$(shell command -v cargo 2>/dev/null))

.PHONY: run test core core-if-possible wheels lint types interop bench soak fuzz clean

# The demo answers at once: a core that has still to be built is for the next start.
run: $(VENV)/.installed
	@if [ -n "$(CORE_WANTED)" ] \
		&& { [ ! -e $(CORE) ] || [ -n "$$(find $(CORE_SOURCES) -newer $(CORE))" ]; }; then \
		echo "building the compiled core in the background ($(CORE_LOG)); the next start uses it"; \
		{ nice $(BUILD_CORE) >$(CORE_LOG) 2>&1 \
			&& echo "compiled core built: the next start uses it" \
			|| echo "compiled core not built, see $(CORE_LOG); Python does its work"; } & \
	fi; \
	$(BIN)/quicedge demo

# JOBS: processes that share the test files; most tests wait more than they compute.
# Tests that measure time under load run alone afterwards.
JOBS ?= 3
test: $(VENV)/.installed-test core-if-possible
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	$(PYTEST) -q -n $(JOBS) --dist loadfile -m "not alone"
	$(PYTEST) -q -m alone
endif

core: $(CORE)

core-if-possible: | $(VENV)/bin/python
	@[ -z "$(CORE_WANTED)" ] || $(MAKE) --no-print-directory core \
		|| echo "compiled core not built: Python does its work"

$(CORE): $(CORE_SOURCES) | $(VENV)/bin/python
	@echo "building the compiled core ..."
	PYO3_PYTHON=$(abspath $(BIN)/python) PYO3_BUILD_EXTENSION_MODULE=1 \
		cargo build --release --locked --manifest-path native/Cargo.toml --target-dir native/target
	@cp native/target/release/lib_native.so $@.new && mv $@.new $@

# Wheels for every Python from 3.11 on, on x86_64 and aarch64 with glibc 2.17 or newer, and the source
# distribution. zig links for both; rustup adds the targets' standard libraries.
WHEEL_TARGETS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
wheels: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet 'setuptools>=77' 'setuptools-rust>=1.12' \
		'maturin>=1.9,<2' 'ziglang>=0.14'
	$(BIN)/python setup.py --quiet sdist --dist-dir dist
	@for target in $(WHEEL_TARGETS); do \
		rustup target add $$target && PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin build --release \
			--zig --target $$target --compatibility manylinux2014 --out dist || exit 1; \
	done
	@ls -l dist

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

interop: $(VENV)/.installed-test core-if-possible
	$(BIN)/python -m interop run $(ARGS)

bench: $(VENV)/.installed-test core-if-possible
	$(BIN)/python -m bench.run $(ARGS)

# SOAK_SECONDS: duration of the first phase (default 300).
soak: $(VENV)/.installed-test core-if-possible
	$(BIN)/python -m bench.soak $(ARGS)

# Where atheris is not available, a plain mutator is used.
fuzz: $(VENV)/.installed-test
	-QUICEDGE_PURE=1 $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "quicedge requires Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	QUICEDGE_PURE=1 $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	QUICEDGE_PURE=1 $(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info native/target native/build.log $(CORE)

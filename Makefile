# Everything runs from .venv, which the targets make and keep up to date by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

# Empty files that are as old as the last installation with these extras.
DEMO_STAMP := $(VENV)/.installed-demo
TEST_STAMP := $(VENV)/.installed-test

# Further arguments for the program (demo), for pytest (test), for the suites of faults (faults, soak) or
# for the comparison (bench).
ARGS ?=

# How many processes run the tests; 0 runs them in pytest's own. They wait more than they compute, hence more than cores.
JOBS ?= 3

# How long to soak, and the seed that the faults come from; a random one if empty.
MINUTES ?= 10
SEED ?=

# A line such as "Leaving directory" must not follow the last line of a program whose output is read by another.
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test check faults soak bench bench-guard format servers contract clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: ARGS="..." for demo, test, faults, soak, bench and bench-guard; JOBS=... for test; PYTHON=python3.12 to choose the interpreter of a new $(VENV).'

demo: $(DEMO_STAMP) ## Run the whole pipeline in one process on made-up events (ARGS="--seconds 20 --json")
	@$(BIN)/xidmet demo $(ARGS)

test: $(TEST_STAMP) check ## Set up, check and test everything (ARGS="-k name" for some of it, JOBS=0 one by one)
	@echo 'Fetching Apache Kafka and ClickHouse unless they are there ...' >&2
	@$(BIN)/python -m tests.support --fetch >&2 || echo 'Tests that need the missing server are skipped.' >&2
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

check: $(TEST_STAMP) ## Lint, formatting, types and the layers between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p tests.support
	$(BIN)/mypy -p tests.faults
	$(BIN)/mypy -p benchmarks.compare
	$(BIN)/mypy -p benchmarks.rig
	$(BIN)/lint-imports

faults: $(TEST_STAMP) ## Kill, stall, cut off and fill up everything, and count afterwards (ARGS="--seed 7 --only zombie")
	@$(BIN)/python -m tests.faults $(ARGS)

soak: $(TEST_STAMP) ## Random faults under load, repeatable (MINUTES=10 SEED=7)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(TEST_STAMP) ## Compare with ClickHouse's Kafka engine, Faust, quixstreams (ARGS="--rounds 1 --events 200000")
	@$(BIN)/python -m benchmarks.compare --steady --write-results $(ARGS)

bench-guard: $(TEST_STAMP) ## Is the hot path slower than that of another commit? (ARGS="--against HEAD~3")
	@$(BIN)/python benchmarks/guard.py $(ARGS)

format: $(TEST_STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

servers: $(TEST_STAMP) ## Start a real Apache Kafka and a real ClickHouse until Ctrl-C
	@$(BIN)/python -m tests.support

contract: $(TEST_STAMP) ## Write the published event contract (JSON Schema, AsyncAPI) from the types
	$(BIN)/python -m pipeline.contract.generate

clean: ## Remove build output and caches, but not .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . \( -name .git -o -name $(VENV) -o -name node_modules \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# The interpreter's own date says nothing, hence "|": it only has to be there.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	@echo 'Installing xidmet into $(VENV) (about a minute the first time) ...' >&2
	@$(PIP) --editable '.[embedded]'
	@touch $@

# What the demonstration needs is among this, so that it need not be installed again for it.
$(TEST_STAMP): pyproject.toml | $(BIN)/python
	@echo 'Installing xidmet and its development tools into $(VENV) (a minute or two the first time) ...' >&2
	@$(PIP) --editable '.[embedded,test,dev]'
	@touch $(DEMO_STAMP) $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) is not installed; name another with PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another with PYTHON=..." >&2; exit 1; }
	@echo 'Making $(VENV) with $(PYTHON) ...' >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'No virtual environment could be made; on Debian and Ubuntu install python3-venv.' >&2; exit 1; }

# Everything runs inside .venv, made from requirements.lock; `make help` lists what there is.
PYTHON ?= python3
BIN := .venv/bin
SHADOW := $(BIN)/bnpl-shadow
# The system is many processes: each would compile every module again where the environment forbids to keep them compiled.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo season test lint format bench faults soak fuzz screenshots up down status lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv from the lock file and fetch Kafka's jars (the others call this first)

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "error: this Python cannot make virtual environments (on Debian: the package python3-venv)" >&2; exit 1; }
	@echo "installing the locked dependencies into .venv (once; 2 GB on disk, a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(SHADOW) fetch
	@touch $@

demo: setup ## Run the whole system on simulated checkouts and prove the result
	@$(SHADOW) demo

season: setup ## Play six weeks of checkouts and outcomes to a verdict and a promotion (three minutes)
	@$(SHADOW) season

test: setup ## Run the whole test suite on a real Kafka and ClickHouse
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup ## Check style and types; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## Measure what docs/benchmarks.md shows, on a stack of its own
	@$(SHADOW) bench

faults: setup ## Break everything on purpose under traffic, and prove that nothing is lost (half an hour)
	@$(SHADOW) faults

soak: setup ## Run steadily for half an hour, and see whether anything grows
	@$(SHADOW) soak

screenshots: setup ## Take the pictures of docs/images from a running dashboard (make up)
	@PYTHONPATH=tests:tests/dashboard $(BIN)/python -m screenshots

fuzz: setup ## Fuzz the decode path with a million payloads in both codecs
	@PYTHONPATH=tests:tests/contracts $(BIN)/python -m fuzz

up: setup ## Keep Kafka, ClickHouse and all services running until Ctrl-C; OPTIONS="--own --without drift"
	@$(SHADOW) run $(OPTIONS)

down: setup ## Stop a stack that `bnpl-shadow up` started
	@$(SHADOW) down

status: setup ## Show what of the local stack runs
	@$(SHADOW) status

lock: ## Resolve the dependencies again into requirements.lock
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

clean: ## Remove .venv, the local stack's data and caches
	@! test -x $(SHADOW) || $(SHADOW) down
	@rm -rf .venv .bnpl build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

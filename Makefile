# Every target does its own set-up: it needs Python 3.11+, make and git, nothing else.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
BIN := .venv/bin
BASELINE := protos/baseline.binpb
# Folders with hand-written Python.
CODE := server clients/python protos scripts tests

# Where to stop, what to select: make test PYTEST_ARGS="-x tests/unit"
PYTEST_ARGS ?=
# Rows to measure (empty: all), and further options: make bench ROW=get BENCH_ARGS="--rounds 9"
ROW ?=
BENCH_ARGS ?=
# make test WORKERS= runs one test after the other.
WORKERS ?= -n 3 --dist loadfile --no-loadscope-reorder
# make load LOAD_ARGS="--minutes 5": a try.
LOAD_ARGS ?=
# make fuzz FUZZ_ARGS="--seed 7 --lives 10"
FUZZ_ARGS ?=
# make verify-year YEAR_ARGS="--seed 7 --runs 50"
YEAR_ARGS ?=
# make lock LOCK_ARGS=--upgrade moves every version to the newest that fits.
LOCK_ARGS ?=

.PHONY: help demo test lint format bench load stubs verify-crash verify-cancel verify-watch verify-secrets verify-year fuzz lock baseline clean setup setup-demo

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

demo: setup-demo ## Provision, bind, use, crash, recover and give back a real PostgreSQL database
	@$(PY) scripts/demo.py

test: lint ## Lint, then every test but the benchmarks; the last line is pytest's
	@$(PY) -m pytest -m "not benchmark" $(WORKERS) $(PYTEST_ARGS)

lint: stubs ## Style, types, contract and layers; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(PY) -m mypy $(CODE)
	@$(BIN)/buf lint
	@$(BIN)/buf format -d --exit-code
	@if [ -f $(BASELINE) ]; then $(BIN)/buf breaking --against $(BASELINE); fi
	@$(BIN)/lint-imports --no-logo

format: setup ## Rewrite Python and protos in the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet . && $(BIN)/buf format -w

bench: stubs ## Measure (build/bench.json); make bench ROW=provision for one row
	@$(PY) -m tests.benchmarks $(if $(ROW),--row $(ROW)) $(BENCH_ARGS)

load: stubs ## 30 minutes at 70 percent of capacity with 1,000 watches, then three times the capacity
	@$(PY) -m tests.benchmarks.sustained $(LOAD_ARGS)

stubs: setup ## Generate clients/python/purveyor/v1 from protos/ (quick when up to date)
	@$(PY) protos/build_stubs.py

verify-crash: stubs ## Kill a real server at every point, restart, compare listings
	@$(PY) scripts/verify_crash.py

verify-cancel: stubs ## 20,000 client cancels per kind of RPC, with the slope of memory
	@$(PY) scripts/verify_cancel.py

verify-watch: stubs ## Watch a real server that is killed, stopped, compacted; every event once
	@$(PY) scripts/verify_watch.py

verify-secrets: stubs ## A whole life of a real broker, then a search for every secret, everywhere
	@$(PY) scripts/verify_secrets.py

verify-year: stubs ## A year in a minute: whole brokers in simulated time, thousands of stories
	@$(PY) scripts/verify_year.py $(YEAR_ARGS)

fuzz: stubs ## Any input to parsers, a real broker and a real PostgreSQL server; 10 minutes
	@$(PY) scripts/fuzz.py $(FUZZ_ARGS)

lock: setup ## Resolve requirements/*.txt again: versions and hashes, no addresses
	@$(PY) scripts/lock.py $(LOCK_ARGS)

baseline: setup ## Store the contract that later versions must not break (at a release)
	@$(BIN)/buf build -o $(BASELINE)

clean: ## Remove environment, generated stubs and caches
	@rm -rf .venv clients/python/purveyor/v1 build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .tmp
	@find server clients protos scripts tests \( -name __pycache__ -o -name .ruff_cache \) -type d -prune -exec rm -rf {} +

setup:
	@./scripts/setup.sh dev

# The demo generates its stubs too: an edited .proto must not meet old ones.
setup-demo:
	@./scripts/setup.sh demo
	@$(PY) protos/build_stubs.py

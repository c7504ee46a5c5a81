# Every target does its own set-up. Needs Python 3.11+ and a C++17 compiler. `make help` lists the targets.
#   PYTHON=...  interpreter to start from     VENV=...   where the environment goes
#   TORCH=...   which torch to install          WORKERS=...  how many processes test (2; each needs about 2 GB)

VENV ?= .venv
TORCH ?= torch==2.13.0
WORKERS ?= 2
EXTRAS := test,dev
BIN := $(VENV)/bin
# The environment's CMake comes before the system's, which may be too old.
WITH_CMAKE := PATH="$(abspath $(BIN)):$$PATH"

# One stamp a step: a second call is instant, and only what changed is done again.
VENV_STAMP := $(VENV)/.stamp-venv
TORCH_STAMP := $(VENV)/.stamp-torch
DEPENDS_STAMP := $(VENV)/.stamp-depends
PACKAGE_STAMP := $(VENV)/.stamp-package
# Folders too: they change when a file in them is added or removed.
SOURCES := CMakeLists.txt README.md LICENSE $(shell find src csrc -not -name '*.pyc' -not -name __pycache__)

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench sanitize arm web fuzz verify audit dist clean install

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(PACKAGE_STAMP) ## train, diagnose, compress, index and serve real text (minutes, then seconds)
	$(BIN)/leanmatch demo

test: $(PACKAGE_STAMP) ## tests and doctests of the installed package, with coverage
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
		tests --pyargs leanmatch --doctest-modules \
		-o asyncio_default_fixture_loop_scope=function \
		--cov=leanmatch --cov-report=term --cov-fail-under=90 $(PYTEST_ARGUMENTS)

lint: $(PACKAGE_STAMP) ## ruff (rules and format), mypy --strict, the workflows' schema, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/hadolint Dockerfile

docs: $(PACKAGE_STAMP) ## the documentation, into build/docs; warnings are errors
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

bench: $(PACKAGE_STAMP) ## every benchmark in benchmarks/
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

sanitize: ## C++ kernels under the address and undefined-behaviour sanitizers (needs a compiler and CMake 3.26+)
	@$(WITH_CMAKE) scripts/sanitize.sh build/sanitize

arm: ## C++ kernels for AArch64 under emulation (needs CMake, g++-aarch64-linux-gnu, qemu-user)
	@$(WITH_CMAKE) scripts/arm.sh build/arm

web: ## runtime and scripts of web pages into the package, and their tests (Clang 19 for WebAssembly, Node 20+; network)
	@$(WITH_CMAKE) scripts/wasm.sh build/wasm
	cd web && npm ci && npm run check && npm run build
	$(MAKE) install
	$(BIN)/python -m pytest -q tests/web tests/runtime/test_web_runtime.py tests/runtime/test_web_odd_codes.py

fuzz: $(PACKAGE_STAMP) ## damaged model folders and catalogues, FUZZ_ROUNDS of each (default 3000), from FUZZ_SEED
	HF_HUB_OFFLINE=1 LEANMATCH_FUZZ_ROUNDS=$(or $(FUZZ_ROUNDS),3000) LEANMATCH_FUZZ_SEED=$(or $(FUZZ_SEED),1) \
		$(BIN)/python -m pytest -q tests/runtime/test_fuzzed_artifact.py tests/runtime/test_loading.py \
		tests/index/test_fuzzed_catalogue.py -k "fuzz or damage"

verify: $(PACKAGE_STAMP) ## other people's programs: older sentence-transformers, MTEB, BEIR, pytrec_eval, ranx (network)
	@scripts/verify.sh $(BIN)/python build/verify

audit: $(PACKAGE_STAMP) ## known weaknesses and licences of everything installed (network)
	@scripts/audit.sh $(BIN)/python build/audit

dist: $(PACKAGE_STAMP) ## sdist and wheel in dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

install: $(PACKAGE_STAMP) ## only the set-up

clean: ## remove builds, caches and .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage coverage.xml htmlcov .venv
	find src tests benchmarks research -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV_STAMP):
	@scripts/setup.sh venv $(VENV)
	@touch $@

$(TORCH_STAMP): $(VENV_STAMP)
	@scripts/setup.sh torch $(VENV) "$(TORCH)"
	@touch $@

$(DEPENDS_STAMP): $(TORCH_STAMP) pyproject.toml
	@scripts/setup.sh depends $(VENV) "$(EXTRAS)"
	@touch $@

$(PACKAGE_STAMP): $(DEPENDS_STAMP) $(SOURCES)
	@scripts/setup.sh package $(VENV)
	@touch $@

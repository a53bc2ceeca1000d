# Each target starts from nothing but Python and a C++ compiler; later calls reuse the virtual environment.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
CPP := $(shell find csrc -name '*.cc' -o -name '*.h')
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(CPP)

# Triton comes with the CUDA builds of torch; a CPU build needs it for the tests, which interpret and compile kernels.
TRITON := triton==3.9.0

# Without its own requirements (numpy below 2, gym): they are of its Python code, which is not imported. An extra
# cannot say so.
PROCGEN := procgen-mirror==0.10.7 ; python_version >= "3.11" and python_version < "3.13"

# Suites in JAX, and what the grid world is held against, without what they need to train and to draw, nor Gymnax's older
# gymnasium; JAX has left Python 3.10 behind.
JAX_SUITES := xminigrid gymnax jax jaxlib flax ml_dtypes opt_einsum seaborn

.PHONY: help train test lint cpp-test arm64 fuzz fuzz-build format bench gpu gpu-rehearsal gpu-wheels read-exports readme wheel wheels \
    release-rehearsal resolve clean examples site site-look

help:
	@echo "make train   train the quickstart agent (about 5 minutes on two cores) and write its report"
	@echo "make test    lint, C++ tests and Python tests"
	@echo "make fuzz    random calls of native code, under AddressSanitizer"
	@echo "make format  format the sources"
	@echo "make bench   measure what takes minutes, into bench/results"
	@echo "make gpu     test and measure the kernels on the GPU of this machine, in 8 minutes; PYTHON=python3: with that one"
	@echo "make gpu-rehearsal  all of it that needs neither GPU nor network"
	@echo "make readme  write the tables of README and docs from bench/results and studies"
	@echo "make examples  run all examples and both notebooks with a wheel and no compiler, into build/examples, some minutes"
	@echo "make site    build the documentation into build/site and check it; make site-look: pictures of it"
	@echo "make read-exports  read exported replays with Hugging Face datasets and LeRobot"
	@echo "make wheel   build a wheel into dist/"
	@echo "make wheels  an sdist and manylinux_2_28 wheels for each Python here, examined and tried without a compiler"
	@echo "make release-rehearsal  from a tag over a local index to a trained agent, in a clone"
	@echo "make arm64   compile the C++ for arm64 and run its tests under qemu-user"
	@echo "make resolve ask whether the extras go together on each Python, and what they leave out there"
	@echo "make clean   remove the virtual environment and all build products"

# What C++ is built with, some megabytes: its builds need not wait for torch.
$(VENV)/.tools: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check cmake ninja pybind11
	touch $@

$(VENV)/.ready: $(SOURCES) $(VENV)/.tools
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	test "$$(uname)" != Linux || $(BIN)/python -c "import triton" 2> /dev/null || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check $(TRITON)
	$(BIN)/python -c "import importlib.util as u; exit(u.find_spec('procgen') is None)" || \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps '$(PROCGEN)'
	$(BIN)/python -c "import importlib.util as u, sys; exit(sys.version_info > (3, 11) and None in map(u.find_spec, ('xminigrid', 'gymnax')))" || \
	    PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(JAX_SUITES)
	touch $@

train: $(VENV)/.ready
	$(BIN)/twohot train quickstart

test: lint cpp-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/pyright

# Once as it ships, once under AddressSanitizer and UndefinedBehaviourSanitizer, once under ThreadSanitizer.
cpp-test: cpp-test-plain cpp-test-address,undefined cpp-test-thread

# Ninja has as many jobs as there are cores; of make's, it could not take any.
cpp-build-%: $(VENV)/.tools
	$(BIN)/cmake -S . -B build/cpp-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DTWOHOT_PYTHON=OFF \
	    -DTWOHOT_TESTS=ON -DTWOHOT_EMULATED_TILES=ON -DTWOHOT_WERROR=ON \
	    -DTWOHOT_SANITIZE=$(if $(filter plain,$*),,$*) > /dev/null
	MAKEFLAGS= $(BIN)/cmake --build build/cpp-$* > /dev/null

cpp-test-%: cpp-build-%
	$(BIN)/ctest --test-dir build/cpp-$* --parallel $(WORKERS) --output-on-failure

# On Debian: dpkg --add-architecture arm64, apt-get update, then apt-get install g++-aarch64-linux-gnu qemu-user
# libstdc++6:arm64 liblz4-1:arm64 libzstd1:arm64.
ARM64_CXX ?= aarch64-linux-gnu-g++
ARM64_RUN ?= qemu-aarch64
arm64: $(VENV)/.tools
	$(BIN)/cmake -S . -B build/cpp-arm64 -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DTWOHOT_PYTHON=OFF \
	    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER="$(ARM64_CXX)" \
	    -DCMAKE_CROSSCOMPILING_EMULATOR="$(ARM64_RUN)" -DTWOHOT_TESTS=ON -DTWOHOT_WERROR=ON > /dev/null
	MAKEFLAGS= $(BIN)/cmake --build build/cpp-arm64 > /dev/null
	$(BIN)/ctest --test-dir build/cpp-arm64 --parallel $(WORKERS) --output-on-failure

# The Python module, of the objects of those C++ tests. What torch and the interpreter keep is no leak of ours.
FUZZ_SECONDS ?= $(or $(TWOHOT_FUZZ_SECONDS),60)
SANITIZED := build/cpp-address,undefined

fuzz-build: cpp-build-address,undefined
	$(BIN)/cmake "$(SANITIZED)" -DTWOHOT_PYTHON=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	    -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" > /dev/null
	MAKEFLAGS= $(BIN)/cmake --build "$(SANITIZED)" --target _native > /dev/null

fuzz: fuzz-build $(VENV)/.ready
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	    TWOHOT_FUZZ_NATIVE="$(SANITIZED)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(BIN)/python tests/helpers/native_fuzz.py --seconds $(FUZZ_SECONDS)

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP)

# The benchmarks run beside other libraries, which nothing else needs.
bench: $(VENV)/.ready
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	$(BIN)/python -m bench.run

# With PYTHON=... it takes that interpreter as it is: nothing is installed and nothing is downloaded.
GPU_PYTHON := $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON))

gpu: $(if $(filter file,$(origin PYTHON)),$(VENV)/.ready)
	$(GPU_PYTHON) -m bench.gpu

gpu-rehearsal: $(if $(filter file,$(origin PYTHON)),$(VENV)/.ready)
	$(GPU_PYTHON) -m bench.gpu --rehearse

# Run where there is a network: what bench/gpu.py needs and a machine without one often lacks goes there with the checkout.
gpu-wheels:
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	    --dest build/gpu-wheels gymnasium Farama-Notifications

# Their own readers, in an environment of their own, which a second call finds there.
read-exports: $(VENV)/.ready
	$(BIN)/python -m bench.read_exports build/readers

readme: $(VENV)/.ready
	$(BIN)/python -m bench.readme

# The extra alone, apart from what the package needs: the reference is read from the sources. Links, names, search and widths
# are checked; Chromium helps where it is.
$(VENV)-docs/.ready: pyproject.toml
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	sed -n '/^docs = /p' pyproject.toml | grep -o '"[^"]*"' | \
	    xargs $(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check
	touch $@

site: $(VENV)-docs/.ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet
	$(VENV)-docs/bin/python website/check.py

# WHEEL=dist/...whl: with that one; by default with one that is built here.
examples: $(if $(WHEEL),,wheel)
	$(PYTHON) release/examples.py $(or $(WHEEL),"$$(ls -t dist/*.whl | head -1)")

site-look: site
	$(VENV)-docs/bin/python website/check.py --look build/site-look

wheel: $(VENV)/.tools
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# What wheels are built and examined with, apart from what the package is developed with.
build/wheels/tools/.ready: release/tools.txt
	$(PYTHON) -m venv build/wheels/tools
	build/wheels/tools/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# PYTHONS="python3.10 python3.13": with those; by default with each supported one on PATH.
wheels: build/wheels/tools/.ready
	build/wheels/tools/bin/python release/wheels.py $(PYTHONS)

release-rehearsal: build/wheels/tools/.ready
	build/wheels/tools/bin/python release/rehearse.py

# Nothing is installed but uv, which asks the package index; each package has to have a wheel.
resolve: build/wheels/tools/.ready
	build/wheels/tools/bin/python release/resolve.py

clean:
	rm -rf $(VENV) $(VENV)-* build dist

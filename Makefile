# `make demo` and `make test` set up everything they need in .venv; nothing else has to be installed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-full bench gpu-check .gpu-check docs clean

define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -f $(VENV)/.$(1) -a $(VENV)/.$(1) -nt pyproject.toml || \
		($(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(2)]' && touch $(VENV)/.$(1))
endef

demo:
	$(call install,demo,demo)
	$(BIN)/python -m tutorials.demo

test:
	$(call install,test,demo$(comma)notebook$(comma)test)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

# `make test-full SHARD=3/16` runs the third of 16 parts; MARKS=slow only what `make test` leaves out
test-full:
	$(call install,test,demo$(comma)notebook$(comma)test)
	$(BIN)/python -m pytest -q -n 2 --fuzz-seconds 300 $(if $(SHARD),--shard $(SHARD)) $(if $(MARKS),-m "$(MARKS)")

bench:
	$(call install,test,demo$(comma)notebook$(comma)test)
	$(BIN)/python -m benchmarks.peak
	$(BIN)/python -m benchmarks.figures
	$(BIN)/python -m benchmarks.matmul
	$(BIN)/python -m benchmarks.winograd
	$(BIN)/python -m benchmarks.table

# for a machine with a GPU; with the packages of `python3` where that has CuPy, else in .venv
gpu-check:
	@if $(PYTHON) -c "import cupy, llvmlite, ml_dtypes, safetensors" 2>/dev/null; then \
		$(PYTHON) -m benchmarks.gpu; \
	else \
		$(MAKE) .gpu-check; \
	fi

.gpu-check:
	$(call install,cuda13,cuda13)
	$(BIN)/python -m benchmarks.gpu

docs:
	$(call install,test,demo$(comma)notebook$(comma)test)
	$(BIN)/python -m tests.support_table

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

comma := ,

# Everything starts from here. Needs make and Python 3.11 or newer with its venv module; the rest is
# installed into .venv, once. `make` alone prints this list:
#
#   make demo     train softmax regression as native code and show the kernels
#   make test     the test suite (ARGS='-k softmax' is passed to pytest)
#   make lint     ruff and mypy
#   make bench    benchmarks against the rivals that are installed (ARGS='matmul --rounds 5')
#   make docs     run every page of docs/
#   make clean    remove .venv and caches

SHELL := /bin/sh
VENV  := .venv
PY    := $(VENV)/bin/python
ARGS  ?=

# PYTHON=... on the command line wins; otherwise the first of these that is new enough.
PYTHON ?=
PYTHON_NAMES := python3 python3.11 python3.12 python3.13 python3.14 python

# Tests use the real MNIST files where there are some: TINYFLOW_DATA, else a folder beside the clone.
ifeq ($(strip $(TINYFLOW_DATA)),)
ifneq ($(wildcard ../shared/data),)
TINYFLOW_DATA := $(abspath ../shared/data)
endif
endif
ifneq ($(strip $(TINYFLOW_DATA)),)
export TINYFLOW_DATA
endif

.PHONY: help demo test lint bench docs clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.run-ready
	$(PY) -m tinyflow demo $(ARGS)

test: $(VENV)/.test-ready
	$(PY) -m pytest $(ARGS)

lint: $(VENV)/.test-ready
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(VENV)/.run-ready
	$(PY) -m benchmarks.run $(ARGS)

docs: $(VENV)/.test-ready
	$(PY) -m pytest tests/docs $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml when what pyproject.toml asks for is installed.
$(VENV)/.run-ready: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.run-ready

$(PY):
	@found=; seen=; \
	for name in $(or $(PYTHON),$(PYTHON_NAMES)); do \
	  version=$$($$name -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
	    || continue; \
	  seen="$$seen $$name ($$version)"; \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    found=$$name; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "tinyflow needs Python 3.11 or newer; found:$${seen:- no Python at all}" >&2; \
	  echo "  hint: install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
	  exit 1; \
	fi; \
	$$found -m venv $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$$found cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; \
	}

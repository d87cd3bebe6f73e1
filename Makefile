# Set-up in one command each; both can be run again and again.
#   make demo            install, measure the embedded organisms with every probe, print the top heads, serve the dashboard
#   make demo SERVE=no   the same, without the dashboard at the end
#   make test            install with the test extra, run every test that needs no GPU
#   make lint            ruff and pyright (dev extra)

PYTHON ?= python3
VENV   ?= .venv
STORE  ?= runs
SERVE  ?= yes
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint clean

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headatlas needs Python 3.11 or newer; name one with PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	rm -rf build
	$(PIP) torch && $(PIP) -e .
	touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.installed
	$(PIP) -e '.[$*]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/headatlas measure organism:pico-sink --store $(STORE)
	$(BIN)/headatlas measure organism:pico-sink --data bigram_backcopy --store $(STORE)
	$(BIN)/headatlas measure organism:pico-lm --store $(STORE)
	for run in $$(ls $(STORE) | grep organism); do $(BIN)/headatlas show $$run --store $(STORE); done
	@if [ "$(SERVE)" = yes ]; then $(BIN)/headatlas serve --store $(STORE); fi

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not slow"

lint: $(VENV)/.installed-test $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf build $(VENV)

# `make install`, `make demo` and `make test` each work alone on a machine with Python >= 3.11 and apt.
# PYTHON and TORCH can be overridden, e.g. TORCH="torch" for the build that a GPU machine wants.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
OUT ?= out/demo

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Stamps are named after what they hold, so that a change of pyproject.toml installs again.
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed

HOST ?= 127.0.0.1
PORT ?= 8080

.PHONY: install install-dev demo serve test lint clean

install: $(RUNTIME)
install-dev: $(DEVELOPMENT)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python >= 3.11 is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)

# Torch first: once its CPU build is there, nothing below pulls another.
$(RUNTIME): pyproject.toml setup.py models/portrait/raster.c | $(BIN)/python
	$(PIP) install "$(TORCH)"
	$(PIP) install --editable ".[say,serve]"
	@touch $@

$(DEVELOPMENT): pyproject.toml $(RUNTIME)
	$(PIP) install --editable ".[say,serve,kernels,training,evaluation,dev]"
	.ci/system-packages libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri chromium
	@touch $@

demo: $(RUNTIME)
	@$(BIN)/python -m streamer.demo --folder $(OUT)

serve: $(RUNTIME)
	@$(BIN)/infinity-avatar serve --host $(HOST) --port $(PORT)

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/mypy

# A browser beside a busy machine may miss a moment: its tests get a second chance, and an end.
test: lint
	$(BIN)/python -m pytest --ignore=tests/browser
	$(BIN)/python -m pytest tests/browser --reruns 2 --timeout 180

clean:
	rm -rf out build *.egg-info .pytest_cache .mypy_cache .ruff_cache

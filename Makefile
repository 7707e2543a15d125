# Set-up in two commands: `make serve` runs the service, `make test` the tests. Everything lands in .venv.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
# CPU wheels of torch: PyPI's own bring gigabytes of CUDA. Empty to take whatever your index has.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: serve test train-setup check fix clean

serve: $(VENV)/.runtime
	$(VENV)/bin/posewright-serve --host $(HOST) --port $(PORT)

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest

train-setup: $(VENV)/.dev

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime clients/python/pyproject.toml
	$(VENV)/bin/python -c 'import torch' 2>/dev/null || $(PIP) --no-deps --retries 1 torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(PIP) --editable '.[training,dev]' --editable ./clients/python
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

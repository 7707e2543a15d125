# Set-up in two commands: `make serve` runs the service, `make test` the tests. Everything lands in .venv.
# `make docs` builds the manuals as a site, in site/.
# `make train-demo` renders people, distils a tiny student, scores it on strangers and serves it; ten minutes, in demo/.
PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
# CPU wheels of torch: PyPI's own bring gigabytes of CUDA. Empty to take whatever your index has.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt

# More processes than CI machines usually have cores, because many tests mostly wait. Those that measure time or memory
# are marked serial and run by themselves afterwards.
TEST_PROCESSES ?= 3

TRAIN = $(VENV)/bin/posewright-train
DEMO ?= demo
RENDER = --framing crop --size 192x256 --samples 1 --processes 2

.PHONY: serve test train-setup train-demo check house fix docs clean

serve: $(VENV)/.runtime
	$(VENV)/bin/posewright-serve --host $(HOST) --port $(PORT)

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -p xdist --numprocesses $(TEST_PROCESSES) --dist loadfile -m 'not slow and not serial'
	$(VENV)/bin/python -m pytest -m 'serial and not slow' $$(grep -rl --include='*.py' mark.serial tests)

train-setup: $(VENV)/.dev

train-demo: $(VENV)/.dev
	$(TRAIN) render --out $(DEMO)/people --count 1000 --identities 0-149 $(RENDER)
	$(TRAIN) render --out $(DEMO)/strangers --count 200 --identities 9000-9029 $(RENDER)
	$(TRAIN) crops --annotations $(DEMO)/people/annotations.json --images $(DEMO)/people/images \
		--out $(DEMO)/crops --height 192
	mkdir -p $(DEMO)/models
	cp -r service/models/detector service/models/teacher $(DEMO)/models/
	$(TRAIN) train training/recipes/demo.toml --data $(DEMO) --out $(DEMO)/run --threads 2
	$(TRAIN) export $(DEMO)/run/last.pt --out $(DEMO)/models/student-demo
	$(TRAIN) evaluate $(DEMO)/models/student-demo --annotations $(DEMO)/strangers/annotations.json \
		--images $(DEMO)/strangers/images
	$(VENV)/bin/posewright-serve --models-dir $(DEMO)/models --student student-demo --host $(HOST) --port $(PORT)

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m tests.audit

house: $(VENV)/.dev
	$(VENV)/bin/python -m tests.house

fix: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/.docs
	$(VENV)/bin/zensical build --clean --strict

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime clients/python/pyproject.toml
	$(VENV)/bin/python -c 'import torch' 2>/dev/null || $(PIP) --no-deps --retries 1 torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(PIP) --editable '.[training,synthetic,openvino,otel,dev]' --editable ./clients/python
	touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

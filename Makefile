# Every target that needs an environment makes it first. Python 3.11 to 3.13; override with make PYTHON=…
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PYTHON_PRESENT = $(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=/path/to/python))
VENV ?= .venv
# test: what the tests need; dev: also what `make lint` and a developer need.
EXTRA ?= dev
VENV5 ?= .venv-transformers5
READY := $(VENV)/.ready
READY5 := $(VENV5)/.ready
VENV_CLIENTS ?= .venv-clients
READY_CLIENTS := $(VENV_CLIENTS)/.ready
NODE_CLIENTS := tests/clients/node/node_modules/.ready
# Runs a command with an encoder of sentences on a local Hub.
ON_HUB = OMP_NUM_THREADS=1 FOLDER=.clients $(VENV)/bin/python -m tests.clients.on_hub .clients
PYTEST_ARGS ?=
# One more than two cores: tests wait for servers and processes.
WORKERS ?= 3
# Tests of pages and pictures, of the house and of the wheel meet no transformers.
WITHOUT_MODELS := $(addprefix --ignore=,tests/benchmarks/test_reference_experiment.py tests/test_house.py tests/test_wheel.py) \
	--ignore-glob='*/tests/model_card/test_ca*'
# A file stays together, for what its tests share; slow files come first (tests/conftest.py).
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-transformers5 test-clients test-clients-python test-clients-node \
	clients-folder node-present test-quickstart first-hour lint format clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: $(READY)  ## make the environment .venv

demo: $(READY)  ## distil, export, measure and card the demo model: runs/demo/hub
	$(VENV)/bin/python publish.py

test: $(READY)  ## run the tests; DISTILRUBERT_DATA=FOLDER adds those on the reference data
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(IN_PARALLEL) $(PYTEST_ARGS)

test-fast: $(READY)  ## run the tests that neither export models nor are slow
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(IN_PARALLEL) -m "not export and not slow" $(PYTEST_ARGS)

test-transformers5: $(READY5)  ## run with transformers 5 what neither exports nor is slow
	OMP_NUM_THREADS=1 $(VENV5)/bin/python -m pytest $(IN_PARALLEL) -m "not export and not slow" $(WITHOUT_MODELS) $(PYTEST_ARGS)

test-clients: test-clients-python test-clients-node  ## open a published folder and its page in every client that people use

test-clients-python: $(READY_CLIENTS) clients-folder  ## the part in sentence-transformers 6, transformers 5, OpenVINO and what loads encoders of sentences
	OMP_NUM_THREADS=1 FOLDER=.clients $(VENV_CLIENTS)/bin/python -m pytest --confcutdir=tests/clients tests/clients/check_folder.py tests/clients/check_families.py tests/clients/check_tasks.py
	OMP_NUM_THREADS=1 FOLDER=.clients $(VENV)/bin/python -m pytest --confcutdir=tests/clients tests/clients/check_folder.py tests/clients/check_tasks.py -k onnx
	$(ON_HUB) $(VENV_CLIENTS)/bin/python -m pytest --confcutdir=tests/clients tests/clients/check_encoder.py
	$(ON_HUB) $(VENV)/bin/python -m pytest --confcutdir=tests/clients tests/clients/check_encoder.py -k onnx

test-clients-node: $(NODE_CLIENTS) clients-folder  ## the part in transformers.js and, where there is one, in Chromium
	FOLDER=.clients node --test tests/clients/node/folder.test.mjs tests/clients/node/families.test.mjs tests/clients/node/tasks.test.mjs
	$(ON_HUB) node --test tests/clients/node/encoder.test.mjs
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/clients/make_pages.py .clients $(dir $(NODE_CLIENTS))
	FOLDER=.clients node --test tests/clients/node/page.test.mjs

clients-folder: $(READY)
	rm -rf .clients && OMP_NUM_THREADS=1 $(VENV)/bin/python tests/clients/make_folder.py .clients
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/clients/make_families.py .clients/families
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/clients/make_tasks.py .clients/tasks

test-quickstart: $(READY)  ## run docs/quickstart.ipynb to its end, with a small teacher
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/check_quickstart.py

first-hour:  ## do what README and docs/quickstart.ipynb say, in an empty environment, from git clone to a Space
	$(PYTHON_PRESENT)
	$(PYTHON) tests/first_hour.py

lint: $(READY)  ## style, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)  ## put right what can be put right by a machine
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove environments and caches; the runs stay
	rm -rf $(VENV) $(VENV5) $(VENV_CLIENTS) .clients tests/clients/node/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON_PRESENT)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRA)]"
	touch $@

$(READY5): pyproject.toml constraints-transformers5.txt
	$(PYTHON_PRESENT)
	$(PYTHON) -m venv $(VENV5)
	$(VENV5)/bin/python -m pip install --quiet -c constraints-transformers5.txt -e . pytest pytest-xdist hypothesis tensorboard zstandard
	touch $@

# optimum-intel asks for torchvision, which breaks transformers unless its build matches that of torch; text needs none.
$(READY_CLIENTS): constraints-clients.txt
	$(PYTHON_PRESENT)
	$(PYTHON) -m venv $(VENV_CLIENTS)
	$(VENV_CLIENTS)/bin/python -m pip install --quiet -c constraints-clients.txt torch sentence-transformers optimum-intel openvino nncf \
		langchain-huggingface llama-index-embeddings-huggingface mteb pytest
	$(VENV_CLIENTS)/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

# In one line, because what a missing or old Node says by itself does not tell what to do.
node-present:
	@npm --version >/dev/null 2>&1 && node -e 'process.exit(+(parseInt(process.versions.node) < 20))' \
		|| { echo "test-clients-node needs Node 20 or later with npm (https://nodejs.org); test-clients-python does not" >&2; exit 2; }

# Without the variable, onnxruntime-node downloads CUDA's libraries.
$(NODE_CLIENTS): tests/clients/node/package.json | node-present
	cd tests/clients/node && ONNXRUNTIME_NODE_INSTALL=skip npm install --no-audit --no-fund --no-package-lock
	touch $@

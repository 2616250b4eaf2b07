# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# One process per core for tests; each keeps to one thread, so that they do not trample one another.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test check campaign results clean

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "viper_e2e needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[dev,demo]'
	touch $@

demo: .venv/installed  ## generate, pack, train, evaluate, infer
	$(BIN)/python datasets/run_demo.py

test: .venv/installed  ## lint and run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TEST) -m "not campaign"

check: .venv/installed  ## what to run before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TEST) -m "not slow and not campaign"

campaign: .venv/installed  ## the long counts: kills, cuts, mutations
	$(TEST) -m campaign

clean:
	rm -rf .venv build demo *.egg-info .pytest_cache .ruff_cache

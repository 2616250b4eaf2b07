# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# One process per core for tests, which take work from one another; each keeps to one thread. What Python compiles
# is kept even where the environment says otherwise: doing it again takes each process 20 s.
TEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations=25 --durations-min=2

.PHONY: demo docs test check test-pythons campaign results clean

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "viper_e2e needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[dev,demo]'
	touch $@

# One stage after the other, each with a command of its own. What is finished is not made again;
# `rm -r demo` starts from nothing.
# Threads sleep while they wait for one another: spinning doubles the time where other work shares the cores.
demo: export OMP_WAIT_POLICY := passive
demo: demo/trained  ## generate, pack, train, evaluate, infer
	$(BIN)/viper eval --checkpoint demo/run/checkpoints/best --shards 'demo/shards/test-*.tar' --out demo/scores
	$(BIN)/python infer.py demo/corpus/new_clip.mp4 --checkpoint demo/run/checkpoints/best \
	    --output demo/new_clip.json --render demo/new_clip.mp4
	@echo 'made by this demo:'
	@echo '  demo/corpus                 clips, labels.csv, and new_clip.mp4, which is in no shard'
	@echo '  demo/shards                 the same clips as WebDataset shards'
	@echo '  demo/run                    settings, metrics, plots and checkpoints of the training'
	@echo '  demo/scores                 predictions, metrics and plots on clips never trained on'
	@echo '  demo/new_clip.json, .mp4    intensities of the new clip, and the clip with them over it'
	@echo 'for the commands in README.md: . .venv/bin/activate'

demo/corpus/labels.csv: | .venv/installed
	$(BIN)/python datasets/demo.py --out demo/corpus --train 240 --val 40 --test 100

demo/packed: demo/corpus/labels.csv
	$(BIN)/viper pack --videos demo/corpus/videos --labels demo/corpus/labels.csv --out demo/shards --overwrite
	@touch $@

demo/trained: demo/packed
	@test -e demo/run/checkpoints/last || rm -rf demo/run
	$(BIN)/python train.py --preset tiny --train-shards 'demo/shards/train-*.tar' \
	    --val-shards 'demo/shards/val-*.tar' --run-dir demo/run --reuse-memory 2GB --epochs 7 \
	    $(if $(wildcard demo/run/checkpoints/last),--resume)
	@touch $@

# Minutes wanted on two quiet cores: check 1.5, test 8, campaign 30; each prints what it took (tests/conftest.py).
# On 2026-11-27 the tests of `make test` took 5:39.
test: .venv/installed  ## lint, check types and run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST) -m "not campaign"

check: .venv/installed  ## what to run before each commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST) -m "not slow and not campaign"

test-pythons:  ## fresh environments without constraints, newest and oldest versions: install, pack to infer
	$(PYTHON) -u tests/environments.py newest oldest

campaign: .venv/installed  ## what a run survives, with all counts: kills, cuts, damages, mutations
	$(TEST) -m "campaign or survival"

docs: .venv/docs  ## the site of docs/ into site/: every link checked, nothing fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo 'open site/index.html'

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build site demo *.egg-info .pytest_cache .ruff_cache .mypy_cache

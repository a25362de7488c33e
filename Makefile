# One command locally and in CI. `make help` lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TIME   ?= 90s
DEMO   := runs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo pretrained test test-browser test-gpu fuzz soak kill share dist pictures docs lint format type check bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(READY)  ## make the environment in .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

corpora/shakespeare.txt corpora/python-docs.txt: | $(READY)
	$(BIN)/python corpora/$(subst -,_,$(basename $(notdir $@))).py

demo: $(READY)  ## corpus, a real training run, samples at two temperatures, two scores
	@BIN=$(BIN) TIME=$(TIME) RUN=$(DEMO) sh corpora/demo.sh

pretrained: $(READY)  ## train the model that ships with charrnn anew (up to half an hour)
	$(BIN)/python corpora/shakespeare.py
	$(BIN)/python corpora/pretrained.py

test: $(READY)  ## the whole test suite
	$(BIN)/python -m pytest -n 2

test-browser: $(READY)  ## exported pages in Chromium, part of the suite where it is installed
	$(BIN)/python -m pytest tests/test_browser.py -rs

test-gpu: $(READY)  ## what needs a CUDA GPU: a minute or two where there is one
	$(BIN)/python -m pytest tests/test_gpu.py -rs

fuzz: $(READY)  ## random options of every command on models of every kind (an hour)
	CHARRNN_FUZZ=5000 $(BIN)/python -m pytest tests/test_fuzz.py

soak: $(READY)  ## memory and files stay flat over long runs and samples
	$(BIN)/python tests/soak.py

kill: $(READY)  ## runs killed at random moments lose nothing
	$(BIN)/python tests/kill.py

share: $(READY)  ## the man page and the shell completions, from the program itself
	$(BIN)/python share/generate.py

dist: $(READY)  ## wheel and sdist, in dist/
	$(BIN)/python -m hatchling build

pictures: $(READY)  ## the pictures of the README, from the program itself
	$(BIN)/python docs/pictures.py

docs: $(READY)  ## the documentation as a site in build/site, strictly
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/reference.py
	$(BIN)/zensical build --clean --strict

lint: $(READY)  ## style and mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/oxlint --deny-warnings -A no-unused-vars charrnn

format: $(READY)  ## rewrite the code in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: $(READY)  ## static types
	$(BIN)/mypy

check: lint type test  ## format check, lint, types and tests

bench: $(READY)  ## the speed benchmarks, ratios in one run
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/training.py

clean:  ## remove what was built (never runs/)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache
	find . -name __pycache__ -prune -exec rm -rf {} +

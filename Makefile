# make demo    what is evil made of? (sets up .venv, fetches the model, runs the main job, says where the report is)
# make test    the tests            make lint      ruff and pyright
# make docs    the documentation site, into site/      make docs-serve   the same while you write, on 127.0.0.1:8000
# make stress  the long matrices    make evidence TOPIC=main_job   write docs/evidence/main_job.json again

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
TOPIC ?= main_job
QUICK ?=

BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif
SETUP := pyproject.toml constraints.txt

.PHONY: demo test lint format stress evidence docs docs-serve report-screenshot build clean

demo: $(VENV)/.installed
	$(BIN)/workbench demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .

stress: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m stress; status=$$?; test $$status -eq 0 -o $$status -eq 5  # 5: none are there

evidence: $(VENV)/.installed-dev
	$(BIN)/python scripts/evidence.py $(TOPIC) $(QUICK)

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000

report-screenshot: $(VENV)/.installed-dev
	$(BIN)/python scripts/screenshot.py

build: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis

# The stamps say with which versions of these two files the environment was made: a second `make demo` starts at once.
$(VENV)/.installed: $(SETUP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(SETUP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $(VENV)/.installed $@

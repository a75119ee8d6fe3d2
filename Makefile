# Each target makes .venv by itself: nothing but a Python is needed. `make help` lists them.

# Candidates, the first that works is taken; or `make test PYTHON=python3.13`. (Run, not looked up: a pyenv shim may
# exist for a Python that is not there.)
PYTHON ?= python3 python3.13 python3.12 python3.11
PYTEST_ARGS ?=

# The benchmark's contestants want different packages, so each group has an environment of its own.
BENCH := own post_office celery_email mailer

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test browser lint format types contract migrations messages docs matrix bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo-installed  ## a shop that sends mail: embedded broker, worker, SMTP server
	$(BIN)/python example_project/manage.py demo

test: $(VENV)/.test-installed  ## the tests; PYTEST_ARGS="-k deliver -x"
	$(BIN)/python -m pytest $(PYTEST_ARGS)

browser: $(VENV)/.browser-installed  ## the tests in a real browser; needs Chromium: apt-get install chromium
	CELERY_MAILER_SERVICES=required $(BIN)/python -m pytest -m browser $(PYTEST_ARGS)

lint: $(VENV)/.lint-installed  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint-installed  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.lint-installed  ## mypy, strict
	$(BIN)/python -m mypy

contract: $(VENV)/.lint-installed  ## the floors of the package: who may import whom
	$(BIN)/lint-imports --no-logo --config setup.cfg

migrations: $(VENV)/.test-installed  ## the migrations match the models
	$(BIN)/python -m django makemigrations celery_mailer --check --dry-run --settings tests.settings

messages: $(VENV)/.test-installed  ## bring the translations up to date, and tell what is left to translate
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m tests.messages

docs: $(VENV)/.docs-installed  ## the documentation, as a site in docs/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file docs/mkdocs.yml

matrix: $(VENV)/.ci-installed  ## tox: every Django on every Python found
	$(BIN)/tox run

bench: $(BENCH:%=.venv-bench/%/.installed)  ## the benchmark beside the peers, 20 minutes; ARGS=--quick: 2
	.venv-bench/own/bin/python -m tests.bench.run $(ARGS)

clean:  ## remove .venv and everything generated
	rm -rf $(VENV) docs/site .venv-bench .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@for python in $(PYTHON); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) && touch $@; exit; \
		fi; \
	done; \
	echo "No Python 3.11 or newer that can make a venv; tried: $(PYTHON). Name one: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.demo-installed: EXTRAS = demo
$(VENV)/.test-installed: EXTRAS = test
$(VENV)/.browser-installed: EXTRAS = test,browser
$(VENV)/.lint-installed: EXTRAS = test,lint
$(VENV)/.docs-installed: EXTRAS = docs
$(VENV)/.ci-installed: EXTRAS = ci
$(VENV)/.%-installed: pyproject.toml $(VENV)/.made
	@echo "Installing celery_mailer[$(EXTRAS)] into $(VENV)"
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

.venv-bench/%/.installed: tests/bench/requirements/%.txt tests/bench/requirements/common.txt $(VENV)/.made
	@echo "Making .venv-bench/$*"
	@$(BIN)/python -m venv .venv-bench/$*
	@.venv-bench/$*/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

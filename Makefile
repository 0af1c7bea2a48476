# `make` lists what there is to do.
# Every rule installs what it needs by itself.

.DEFAULT_GOAL := help

# The part of the generated project that is Python as it stands; only the package's name is none.
# ruff would leave a cache there, and cookiecutter would take it for a part of the project.
SOURCE := '{{cookiecutter.project_slug}}/src'

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 18

demo: ## generate the default project and serve it on http://127.0.0.1:8000
	@exec bin/demo

test: ## run the tests
	@exec bin/test

lint: install ## format, lint, types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/ruff format --no-cache --check $(SOURCE)
	.venv/bin/ruff check --no-cache --ignore N999 $(SOURCE)
	.venv/bin/mypy

check: lint test ## all of it: what CI runs

format: install ## format the code and mend what lint can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/ruff check --no-cache --fix --ignore N999 $(SOURCE)
	.venv/bin/ruff format --no-cache $(SOURCE)

lock: install ## pin what each pyproject.toml allows, newest first (needs uv)
	.venv/bin/python bin/lock

install: ## make .venv
	@bin/install

.PHONY: help demo test lint check format lock install

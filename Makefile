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

test: ## test the questions, generate a project and run its tests: minutes
	@exec bin/test -m "not matrix"

lint: install ## check format, lint, types and wording
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/ruff format --no-cache --check $(SOURCE)
	.venv/bin/ruff check --no-cache --ignore N999 $(SOURCE)
	.venv/bin/mypy
	bin/words

check: lint ## run lint and every test, with every set of answers, as CI does
	@exec bin/test

format: install ## format the code and fix what lint can fix
	.venv/bin/ruff check --fix --exit-zero
	.venv/bin/ruff format
	.venv/bin/ruff check --no-cache --fix --exit-zero --ignore N999 $(SOURCE)
	.venv/bin/ruff format --no-cache $(SOURCE)

lock: install ## pin new dependencies of each pyproject.toml
	@.venv/bin/python bin/lock

upgrade: install ## pin the newest versions that each pyproject.toml allows
	@.venv/bin/python bin/lock --upgrade

bench: install ## bake the default project, measure it and print tables (ONLY="memory boot", ARGS=--help)
	@.venv/bin/python -m benchmarks $(ONLY) $(ARGS)

release: install ## date the changelog, set the version, commit and tag (VERSION=0.2.0)
	@.venv/bin/python bin/release '$(VERSION)'

install: ## make .venv
	@bin/install

.PHONY: help demo test lint check format lock upgrade bench release install

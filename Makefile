# make help says what there is. Everything runs in .venv, which scripts/setup makes and keeps up to date.
SHELL := /bin/bash
ROS := kilted
VENV := .venv$(filter-out -kilted,-$(ROS))
JOBS := 2
.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz soak lint format clean distclean

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 18
	@echo '  Variables: INPUT=images, folder, video or bag and FOV=degrees (demo), ARGS=more options (demo, test), JOBS=workers (test),'
	@echo '  SECONDS=length (fuzz, soak), PYTHON=python3.12, TORCH_INDEX=index with CPU wheels of torch (setup),'
	@echo '  ROS=jazzy (demo, test, fuzz, soak): with the wheels of Jazzy, in .venv-jazzy, in place of those of Kilted'

setup:  ## make or update .venv: Python libraries, ROS 2 as wheels, the messages
	@ROS=$(ROS) scripts/setup

demo: setup  ## camera bag -> node -> out/demo; INPUT= for your own images
	$(VENV)/bin/lotus2 demo $(if $(INPUT),--input $(INPUT)) $(if $(FOV),--fov "$(FOV)") $(ARGS)

test: setup  ## run the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: setup  ## mutated messages, images and bags against what reads them; SECONDS=120, MESSAGES=10000 to a node
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.fuzz --seconds $(or $(SECONDS),120)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.fuzz_node --messages $(or $(MESSAGES),10000)
	LOTUS2_FUZZ_ROUNDS=400 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q test/bags/test_fuzz.py

soak: setup  ## the node under load: memory, threads and counts must stay right; SECONDS=1800
	$(VENV)/bin/python -m benchmarks.soak --seconds $(or $(SECONDS),1800)

lint: setup  ## ruff, mypy, layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH $(VENV)/bin/lint-imports

format: setup  ## let ruff rewrite what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove what was built and written, keep .venv
	rm -rf build dist install log out *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	rm -f .venv*/stamps/package

distclean: clean  ## remove .venv and .venv-jazzy too
	rm -rf .venv .venv-jazzy

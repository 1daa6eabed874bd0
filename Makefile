# Set-up and checks in one command each, on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-all lint clean

demo: $(INSTALLED)  ## Train on drawn scenes with few labels, score, and draw what the networks see.
	$(RUN)/python -m warpseg.benchmarks.demo demo

test: lint  ## Everything that CI checks.
	$(RUN)/python -m pytest -n 2

test-all: lint  ## Also the checks that take minutes each.
	$(RUN)/python -m pytest -n 2 -m "slow or not slow"

lint: $(INSTALLED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright --pythonpath $(RUN)/python

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dali,tensorboard,test,dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo build *.egg-info

# Set-up and checks in one command each, on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-all lint clean

WARPSEG := $(RUN)/warpseg
TINY := synthetic-swiftnet18-tiny

demo: $(INSTALLED)  ## Train on drawn scenes with 8 masks, score, and draw what the networks see.
	$(WARPSEG) convert synthetic demo/data
	$(WARPSEG) split demo/data few --labeled 8 --seed 0
	$(WARPSEG) show demo/data --recipe consistency-$(TINY) --split few --out demo/views.png
	$(WARPSEG) train supervised-$(TINY) --data demo/data --split few --out demo/supervised --resume
	$(WARPSEG) train consistency-$(TINY) --data demo/data --split few --out demo/consistency --resume
	mkdir -p demo/images && tar -xf demo/data/val-000000.tar -C demo/images --exclude='*.seg.png'
	$(WARPSEG) predict demo/consistency demo/images --out demo/predictions --overwrite
	$(WARPSEG) report demo/supervised demo/consistency --html demo/report.html
	@echo
	@echo "Views, predictions and the report lie in demo/. Another method on the same data:"
	@echo "  $(WARPSEG) train mkd-$(TINY) --data demo/data --split few --out demo/mkd"

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
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dali,tensorboard,pretrained,test,dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo build *.egg-info

# Set-up and checks in one command each, on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# Tests of pages that are made of result files: seconds, and easily forgotten.
PAGES := $(addprefix tests/benchmarks/, test_results.py test_which_method.py test_demo.py)

.PHONY: demo demo-scores test test-all lint results docs notebook screenshots clean

WARPSEG := $(RUN)/warpseg
DEMO := synthetic-dusk-swiftnet-lite0-tiny
SIDES := supervised-$(DEMO) fixmatch-$(DEMO)
COMPARE := $(WARPSEG) compare $(SIDES) --data demo/data --split day --out demo/compared --jobs 2

demo: $(INSTALLED)  ## Train with 16 masks by day, without and with unlabeled images, also at dusk, side by side; score, draw.
	$(WARPSEG) convert synthetic demo/data --dusk 0.5
	$(WARPSEG) split demo/data day --labeled 16 --by scene --no-masks-of dusk
	$(WARPSEG) show demo/data --recipe fixmatch-$(DEMO) --split day --out demo/views.png
	$(COMPARE) --evaluate-every 200
	mkdir -p demo/images && tar -xf demo/data/val-000000.tar -C demo/images --exclude='*.seg.png'
	$(WARPSEG) predict demo/compared/fixmatch-$(DEMO)/seed-0 demo/images --out demo/predictions --overwrite
	$(WARPSEG) report $(SIDES:%=demo/compared/%/seed-0) --html demo/report.html --open
	@echo
	@echo "Views, predictions, the comparison and the report (demo/report.html) lie in demo/. Three seeds:"
	@echo "  $(COMPARE) --seeds 0 1 2"

demo-scores: demo  ## The demo's two scores over three seeds, benchmarks/results/demo-cpu.json.
	$(COMPARE) --seeds 0 1 2
	$(RUN)/python -m warpseg.benchmarks.demo demo/compared/comparison.json benchmarks/results/demo-cpu.json

test: lint  ## Everything that CI checks.
	$(RUN)/python -m pytest -n 2

test-all: lint  ## Also the checks that take minutes each.
	$(RUN)/python -m pytest -n 2 -m "slow or not slow"

lint: $(INSTALLED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/python -m pytest -q $(PAGES)
	$(RUN)/pyright --pythonpath $(RUN)/python

results: $(INSTALLED)  ## Make docs/results.md of the files in benchmarks/results: after one came or changed.
	$(WARPSEG) bench report --out docs/results.md

docs: $(INSTALLED)  ## Build the pages under docs/ as a site, build/site/index.html.
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

notebook: $(INSTALLED)  ## Run docs/tour.py and keep what it printed and drew, docs/tour.ipynb.
	PATH=$(abspath $(RUN)):$$PATH $(RUN)/python docs/notebook.py

screenshots: demo  ## Draw docs/pictures from the demo, with Chromium.
	$(RUN)/python docs/screenshots.py demo docs/pictures

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dali,tensorboard,pretrained,docs,test,dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo build *.egg-info

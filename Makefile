# `make demo` and `make test` are the README's two commands: each first builds $(VENV), once.
# Another Python: make demo PYTHON=python3.12      Arguments for the demo: make demo ARGS='--out runs/demo'
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
META := settings.ini setup.py pyproject.toml
# A worker on each core beats one worker on all of them; every worker imports torch, hence the ceiling.
ONE := OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore::FutureWarning
XDIST := -n auto --maxprocesses=8 --dist=loadfile

.PHONY: help demo test bench peers export clean docs readme dist bump cov
help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed ## render vehicles, train PANet and PMNet, rank the test vehicles: a table, a model and pictures in demo/
	$(BIN)/vehicle-reid demo $(ARGS)
test: $(VENV)/.installed-dev ## run every notebook, then every test
	$(ONE) $(BIN)/nbdev-test
	$(ONE) $(BIN)/python -m pytest -q $(XDIST)

bench: $(VENV)/.installed-dev ## time everything beside its alternatives, small problems: one JSON line a case in _build/bench.jsonl
	@test -d _build/peers || echo "Without FastReID and Open Metric Learning: 'make peers' fetches them"
	rm -f _build/bench.jsonl && mkdir -p _build
	for o in benchmarks/[a-z]*.py; do PYTHONWARNINGS=ignore $(BIN)/python $$o --quick --json _build/bench.jsonl || exit 1; done
peers: $(VENV)/.installed-dev ## fetch the libraries that `make bench` compares with, into _build/peers
	$(BIN)/pip install -q cython setuptools
	$(BIN)/pip install -q --no-deps --target _build/peers fastreid open-metric-learning pytorch-metric-learning omegaconf antlr4-python3-runtime

export: $(VENV)/.installed-dev ## notebooks -> modules, notebooks cleaned
	$(BIN)/nbdev-export && $(BIN)/nbdev-clean
readme: $(VENV)/.installed-dev ## nbs/index.ipynb -> README.md
	$(BIN)/python nbs/_web/pages.py --readme
docs: $(VENV)/.installed-dev ## notebooks -> docs/, a site that opens from disk
	$(BIN)/python nbs/_web/pages.py
	rm -rf _build/html && $(BIN)/python -m sphinx -q -W --keep-going -b html -c nbs/_web -d _build/doctrees _build/pages _build/html
	rm -rf docs _build/html/.buildinfo _build/html/_sources && mv _build/html docs && touch docs/.nojekyll
	$(BIN)/python nbs/_web/pages.py --fingerprint > docs/built_from.txt
dist: $(VENV)/.installed-dev ## sdist and wheel in dist/
	rm -rf build dist && $(BIN)/python -m build -q && ls dist
bump: $(VENV)/.installed-dev ## next version, in both places it is written
	$(BIN)/nbdev-bump-version
	sed -i.bak "s/^version = .*/version = $$($(BIN)/python -c 'import vehicle_reid; print(vehicle_reid.__version__)')/" settings.ini && rm settings.ini.bak
cov: $(VENV)/.installed-dev ## lines that notebooks and tests together never reach
	rm -f .coverage .coverage.*
	$(ONE) $(BIN)/coverage run $(BIN)/nbdev-test
	$(ONE) $(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q && $(BIN)/coverage report
clean: ## strip notebooks of run-time noise; delete what builds leave behind
	@if test -x $(BIN)/nbdev-clean; then $(BIN)/nbdev-clean; fi
	rm -rf build dist _build/html _build/pages _build/doctrees .coverage .coverage.* .pytest_cache .hypothesis

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; v=sys.version_info; sys.exit(v<(3,10) and f"vehicle_reid needs Python 3.10 or newer; $(PYTHON) is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
$(VENV)/.installed: $(META) | $(BIN)/pip
	@echo "Installing into $(VENV): once, about 3 minutes and 6 GB, most of it PyTorch"
	$(BIN)/pip install -q -e .
	@touch $@
$(VENV)/.installed-dev: $(META) | $(BIN)/pip
	@echo "Installing into $(VENV): once, about 3 minutes and 6 GB, most of it PyTorch"
	$(BIN)/pip install -q -e '.[dev]'
	@touch $(VENV)/.installed $@

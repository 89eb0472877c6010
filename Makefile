# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint type format check bench clean

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Secateur needs Python 3.11 or newer, but $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing Secateur; torch alone is large, so this takes some minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,export]'
	@touch $@

demo: $(VENV)/.core
	$(BIN)/secateur search --data digits --target macs=0.3..0.7 --episodes 120 --export export/digits

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint type test

# With SECATEUR_DATA (CIFAR-10 as Parquet and weights) on ResNet-20 and ResNet-56, else on the embedded default.
bench: $(VENV)/.dev
ifdef SECATEUR_DATA
	for net in resnet20 resnet56; do \
	  $(BIN)/secateur bench speed --net $$net --weights $(SECATEUR_DATA)/weights/$$net-cifar10-jpeg.pt \
	    --data parquet:$(SECATEUR_DATA)/cifar10-jpeg --search-from test:0.5 --search-images 2000 \
	    --out docs/figures/speed-$$net.json || exit 1; \
	done
else
	$(BIN)/secateur bench speed --data digits
endif

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

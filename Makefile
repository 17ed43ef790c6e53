# Everything runs in $(VENV); `make install` makes it. Own choices: make install PYTHON=python3.12 TORCH=torch==2.11.0
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export KINETO_LOG_LEVEL ?= 6

.PHONY: characterize install install-dev test lint format benchmark wheel clean

characterize: install
	$(BIN)/moeprof characterize

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# torch comes first and alone, so that no dependency can bring another build of it: the pinned version, from a CPU wheel
# where pip is configured to find one (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL). A torch that is already there is left alone;
# one that belongs to $(PYTHON) is used from where it lies.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "moeprof needs Python 3.11 to 3.13, $(PYTHON) is `$(PYTHON) --version 2>&1`" >&2; \
		     echo "Name another: make install PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) `$(PYTHON) -c \
		'import importlib.util as u; print("--system-site-packages" if u.find_spec("torch") else "")'`
	$(BIN)/python -c 'import importlib.util as u; exit(not u.find_spec("torch"))' || $(PIP) install "$(TORCH)"
	$(PIP) install --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --editable '.[dev]'
	touch $@

test: install-dev
	$(BIN)/python -m pytest

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: install-dev
	$(BIN)/python benchmarks/static_fairness.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/command_time.py
	$(BIN)/python benchmarks/region_overhead.py
	$(BIN)/python benchmarks/analysis_speed.py
	$(BIN)/python benchmarks/dispatch_memory.py
	$(BIN)/python benchmarks/compare_power.py
	$(BIN)/python benchmarks/max_throughput.py
	$(BIN)/python benchmarks/ranks.py

wheel: install-dev
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

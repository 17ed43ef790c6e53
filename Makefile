# Everything runs in $(VENV), which `make install` creates. To choose versions: make install PYTHON=python3.12 TORCH=torch==2.11.0
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export KINETO_LOG_LEVEL ?= 6

.PHONY: characterize install install-dev test test-slow test-cuda test-hf-floor fuzz lint gate gate-runs gate-baseline format benchmark picture wheel clean

characterize: install
	$(BIN)/moeprof characterize

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# torch is installed first, so that no dependency installs another build of it: the pinned version, as a CPU wheel if pip is
# configured to find one (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL). An installed torch is kept, and so is that of $(PYTHON).
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "moeprof needs Python 3.11 to 3.13, $(PYTHON) is `$(PYTHON) --version 2>&1`" >&2; \
		     echo "Choose another: make install PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) `$(PYTHON) -c \
		'import importlib.util as u; print("--system-site-packages" if u.find_spec("torch") else "")'`
	$(BIN)/python -c 'import importlib.util as u; exit(not u.find_spec("torch"))' || $(PIP) install "$(TORCH)"
	$(PIP) install --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --editable '.[dev]'
	touch $@

# The tests of a file run in one process, because they share fixtures, with one thread each, because the processes share cores.
# Budget on two cores: 12 minutes for `test`, 20 for `test-slow` (marker `slow`).
JOBS ?= 2
PARALLEL := --numprocesses $(JOBS) --dist loadfile

test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-slow: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m 'slow and not cuda and not fuzz'

# Random inputs, FUZZ_EXAMPLES of each kind, and signals at random points.
FUZZ_EXAMPLES ?= 1000

fuzz: install-dev
	OMP_NUM_THREADS=1 FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest $(PARALLEL) -m 'not cuda' tests/fuzz

test-cuda: install-dev
	$(BIN)/python -m pytest -m cuda

# The regression gate compares numbers that do not depend on the machine, with routing replayed from the committed traces: a
# change that moves more bytes, drops more tokens or gives experts more rows fails. Means are sums of floats, whose last digit
# may differ between processors. After an intended change, run `make gate-baseline` and state the reason in the commit.
BASELINES := reports/baselines
GATE := build/gate
GATED := num_parameters memory_static flops_per_token capacity step_rows step_tokens expert_slots waste_factor \
	dropped_fraction dropped_tokens memory_dynamic_peak memory_total_peak memory_peak expert_accesses misses bytes_loaded
GATED_MEANS := step_rows step_tokens capacity expert_slots waste_factor dropped_fraction dropped_tokens
GATE_OPTIONS := --strict $(addprefix --only ,$(GATED)) $(foreach mean,$(GATED_MEANS),--threshold $(mean)=0.0001%)
GATE_RUN := --expert-buffering --buffer all --no-sweep --kernel loop --set load.batches=1 --set measure.warmup=0 --set measure.rounds=5 --force --quiet

gate: gate-runs
	$(BIN)/moeprof compare $(BASELINES)/gate.json $(GATE) $(GATE_OPTIONS) --format terminal

gate-runs: install
	for recipe in lm-tiny mt-tiny; do \
		$(BIN)/moeprof optimize $$recipe $(GATE_RUN) --set routing.source=trace:$(BASELINES)/$$recipe \
			--out $(GATE)/$$recipe > /dev/null || exit 1; \
	done

gate-baseline: gate-runs
	$(BIN)/moeprof baseline save $(BASELINES)/gate.json $(GATE) $(addprefix --only ,$(GATED)) --force

# The tests of Hugging Face models under the oldest transformers that moeprof allows, in front of the packages of $(VENV).
HF_FLOOR := build/hf-floor
PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

test-hf-floor: install-dev
	$(BIN)/python -m venv --system-site-packages $(HF_FLOOR)
	echo "import site; site.addsitedir('`$(BIN)/python $(PACKAGES)`')" > "`$(HF_FLOOR)/bin/python $(PACKAGES)`/project.pth"
	$(HF_FLOOR)/bin/python -m pip --disable-pip-version-check --quiet install --ignore-installed --no-deps \
		"transformers==`$(BIN)/python -c 'from moeprof.huggingface.folder import OLDEST; print(*OLDEST, "*", sep=".")'`"
	OMP_NUM_THREADS=1 $(HF_FLOOR)/bin/python -m pytest $(PARALLEL) tests/huggingface tests/models/test_nllb.py

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest tests/test_house.py
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
	$(BIN)/python benchmarks/replay_speed.py
	$(BIN)/python benchmarks/ranks.py
	$(BIN)/python benchmarks/buffering.py
	$(BIN)/python benchmarks/balancing.py
	$(BIN)/python benchmarks/hook_cost.py
	$(BIN)/python benchmarks/english.py

# The page in the README, of a run on this machine; needs chromium.
CHROMIUM ?= chromium --headless --no-sandbox --disable-gpu --hide-scrollbars
PICTURE := build/picture

picture: install
	$(BIN)/moeprof optimize lm-tiny --dynamic-gating --out $(PICTURE) --force
	$(CHROMIUM) --window-size=1200,1560 --virtual-time-budget=8000 --screenshot=docs/images/report.png \
		"file://$(CURDIR)/$(PICTURE)/report.html"

wheel: install-dev
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis

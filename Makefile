# Everything here is idempotent. Needs git, make and Python >= 3.11; uses uv where it is installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
CHROMIUM ?= chromium

.PHONY: env reproduce report docs picture test test-all lint types clean-env

env: $(STAMP)

# The stamp is written last, so that a half-made environment is built anew. The lock is complete, hence --no-deps: older pips
# look for a hash of every extra (coverage[toml]) while they resolve.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "espalier needs Python >= 3.11; set PYTHON=..." >&2; exit 1; }
	rm -rf $(VENV)
	if command -v uv >/dev/null; then \
	  uv venv -q --python $(PYTHON) $(VENV) && \
	  uv pip install -q -p $(BIN)/python --no-deps --require-hashes -r requirements.lock && \
	  uv pip install -q -p $(BIN)/python --no-deps -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install -q --no-deps -e . ; \
	fi
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

reproduce: env
	DVC_NO_ANALYTICS=1 $(BIN)/dvc repro -q
	$(BIN)/espalier report
	@echo "Done. Open report/index.html"

report: env
	$(BIN)/espalier report

# docs/knobs.md and docs/names.md, from the configs, the docstrings and espalier/metrics.py.
docs: env
	env -u ESPALIER_CONFIG $(BIN)/python -m espalier.reference docs

# The picture in README: the top of the report's first page. Needs chromium.
picture: report
	mkdir -p docs
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1240,1040 \
	  --screenshot=docs/report.png "file://$(CURDIR)/report/index.html" 2>/dev/null
	@test "$$(wc -c < docs/report.png)" -lt 200000 || { echo "docs/report.png is larger than 200 kB" >&2; exit 1; }

# A worker a core. Tests of one file stay together: they share what they train.
test: env
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not gpu"

# Coverage is that of the quick ones; the tracer would only slow the others. Those that compare times have the machine to themselves.
test-all: env
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m "not slow and not gpu" \
	  --cov --cov-report=term:skip-covered --cov-fail-under=85
	$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal -m "slow and not timed and not gpu"
	$(BIN)/python -m pytest -q -m "timed and not gpu"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/codespell README.md CONTRIBUTING.md src conf experiments tests

types: env
	$(BIN)/mypy src

clean-env:
	rm -rf $(VENV)

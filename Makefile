# make check   verdicts on the built-in methods (sets up .venv the first time)
# make test    all tests of this repository
# make lint    ruff and mypy
# make docs    the documentation, into build/site

BOOT   := $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(name)),$(name))))
PYTHON ?= $(BOOT)
BIN    := .venv/bin
READY  := .venv/.ready
# Workers for pytest-xdist: one per core, not more than four (each one loads torch).
PARALLEL ?= -n auto --maxprocesses=4
REPORT ?= build/saliency.json
comma := ,

.PHONY: check test lint docs clean
.DEFAULT_GOAL := check

# A ticking line while one long command runs quietly: $(call live,what happens,command)
define live
	@printf '%s\n' '$(1)'; \
	if [ -t 1 ]; then \
	  (s=0; while sleep 1; do s=$$((s + 1)); printf '\r  %s s ' $$s; done) & tick=$$!; \
	  trap "kill $$tick 2>/dev/null; printf '\r\033[K'" EXIT; \
	fi; \
	$(2)
endef

check: $(READY)
	@$(BIN)/saliency-checks warm --profile quick
	@$(BIN)/python -m pytest --pyargs saliency_checks.checks -q --no-header -r fE $(PARALLEL) \
	  --saliency-profile quick --saliency-report $(REPORT)

test: $(READY)
	@$(BIN)/python -m pytest -q -r fE $(PARALLEL) --dist worksteal

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(READY)
	@$(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'no python3.11 or newer on PATH: install one, or make PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON) is older than Python 3.11: make PYTHON=/path/to/a/newer/python3'; exit 1; }
	@test -x $(BIN)/python || { echo 'making .venv'; $(PYTHON) -m venv .venv; }
	$(call live,installing torch$(comma) captum and the rest into .venv (about two minutes),\
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' 'torch==2.13.0' \
	    --constraint constraints.txt)
	@touch $@

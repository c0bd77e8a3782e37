# make train, make test, make lint, ...: `make` alone explains. Everything is installed into VENV (pip only, exact versions); a target
# installs what is missing or outdated first and nothing otherwise.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?=
VENV ?= .venv
CONFIG ?= configs/digits_vae.py
ARGS ?=
JOBS ?= 2

# Empty: the one that experiments.train chooses, runs/NAME_ROW with +KEY=VALUE for what ARGS overrides
WORKDIR ?=

# An environment stays with the accelerator that it was made for.
ACCELS := cpu cuda12 cuda13 tpu
DONE := $(VENV)/.installed
ACCEL ?= $(or $(firstword $(foreach a,$(filter-out cpu,$(ACCELS)),$(if $(wildcard $(DONE)-$a),$a))),cpu)
ifeq ($(filter $(ACCEL),$(ACCELS)),)
$(error ACCEL=$(ACCEL) is unknown; known: $(ACCELS))
endif

PY := $(VENV)/bin/python
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)

.PHONY: help train test test-all lint format install install-dev clean FORCE

help:
	@cat <<'EOF'
	make train      train the default experiment, a VAE on real 8x8 digits, and show its table and figures (3 minutes on 2 cores)
	make test       all tests but the long matrix; test-all adds that
	make lint       ruff and pyright;  make format lets ruff rewrite
	make install    only the environment;  make clean removes it, with every cache (not runs/)

	CONFIG=configs/x.py:row      what to train        WORKDIR=runs/x      where to        ARGS="--config.seed=1"  more flags
	ACCEL=cuda12|cuda13|tpu      install the accelerator's jax too (docs/launch.md)
	PYTHON=python3.12            the interpreter of a new environment (3.11 to 3.13)      VENV=.venv312           its folder
	JOBS=2                       test processes       ARGS="-k flow"      more flags for pytest
	EOF

train: install
	@$(PY) -m experiments.train --config=$(CONFIG) $(if $(WORKDIR),--workdir=$(WORKDIR)) $(ARGS)

# The tests run on CPU, on fake devices too, wherever they run; JAX_PLATFORMS=cuda lets them see a GPU. What they compile is kept
# between processes and between runs.
test test-all: export JAX_PLATFORMS ?= cpu
test test-all: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
test: install-dev
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: install-dev
	@$(PY) -m pytest -n $(JOBS) --dist worksteal -m "" $(ARGS)

lint: install-dev
	@status=0
	$(VENV)/bin/ruff check . || status=1
	$(VENV)/bin/ruff format --check . || status=1
	$(VENV)/bin/pyright --pythonpath $(PY) || status=1
	exit $$status

format: install-dev
	@$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

install: $(DONE)-$(ACCEL)

install-dev: install $(DONE)-dev

# The environment of the interpreter that was asked for: made where there is none, made anew where it is of another version. (A file
# that changes only then, so that everything is installed again; make looks at stamps before it runs a phony prerequisite.)
$(VENV)/.made: FORCE
	@for name in $(PYTHONS); do
	    version=$$("$$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
	    case $$version in 3.11|3.12|3.13) found=$$name; break;; esac
	done
	have=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
	if [ -n "$(PYTHON)" ] && [ -z "$${found:-}" ]; then
	    echo "error: PYTHON=$(PYTHON) is $${version:+Python }$${version:-not an interpreter that starts}; known: Python 3.11, 3.12, 3.13" >&2; exit 2
	fi
	if [ -n "$$have" ] && { [ -z "$(PYTHON)" ] || [ "$$have" = "$$version" ]; }; then exit 0; fi
	if [ -z "$${found:-}" ]; then
	    echo "error: no Python 3.11, 3.12 or 3.13 here; install python3.11 or name one, make PYTHON=/path/to/python3.11" >&2; exit 2
	fi
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then
	    echo "error: $$found cannot make environments; on Debian or Ubuntu: apt install python$$version-venv" >&2; exit 2
	fi
	echo "making $(VENV) with $$found ($$version)"
	"$$found" -m venv --clear $(VENV)
	touch $@

$(DONE)-cpu: requirements.txt $(VENV)/.made
	@echo "installing requirements.txt into $(VENV) (a minute or two)"
	$(PY) -m pip install -q "$$(sed -n 's/^\(setuptools==[^ ]*\).*/\1/p' requirements.txt)"
	$(PY) -m pip install -q --no-build-isolation -r requirements.txt
	touch $@

$(DONE)-dev: requirements-dev.txt $(DONE)-cpu
	@echo "installing requirements-dev.txt into $(VENV)"
	$(PY) -m pip install -q --no-build-isolation -r requirements-dev.txt
	touch $@

# jax for one accelerator, with the versions that the comments at the end of requirements.txt pin
$(filter-out %-cpu,$(ACCELS:%=$(DONE)-%)): $(DONE)-cpu
	@accel=$(@:$(DONE)-%=%)
	for other in $(filter-out cpu,$(ACCELS)); do
	    if [ $$other != $$accel ] && [ -e $(DONE)-$$other ]; then
	        echo "error: $(VENV) is for $$other; make clean, or another folder: make train ACCEL=$$accel VENV=.venv-$$accel" >&2; exit 2
	    fi
	done
	echo "installing jax for $$accel into $(VENV)"
	sed -n "s/^# $$accel: //p" requirements.txt > $(VENV)/$$accel.txt
	$(PY) -m pip install -r $(VENV)/$$accel.txt
	touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +

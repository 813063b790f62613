# Every command sets itself up: `make demo` on a fresh clone needs git, make and Python 3.11, 3.12 or 3.13.
# Works with the make of macOS (3.81) and any POSIX sh.

VENV := .venv
PY   := $(VENV)/bin/python
# Stamps live in the environment, so that they go with it. RUN: what users need; DEV: that and the tests' tools.
RUN  := $(VENV)/.installed-run
DEV  := $(VENV)/.installed-dev
# Choose another interpreter with `make demo PYTHON=/path/to/python`, another port with `make dev PORT=3001`,
# and hand options to pytest or the benchmarks with `make test ARGS='-k catalog'`.
PYTHON ?=
PORT   ?= 3000
ARGS   ?=

# `dagster` and `dg` report usage to their vendor otherwise, even where no instance says so.
export DAGSTER_DISABLE_TELEMETRY := yes
# What activating the environment would set; `dg` warns without it.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.DEFAULT_GOAL := help
.PHONY: help demo demo-warehouses dev run test test-live doctor lint format validate bench setup setup-dev constraints clean reset

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Using it -------------------------------------------------------------------------------------------------

# Dagster wants an absolute path. Tests and linters do without it: they must never touch the user's instance.
demo demo-warehouses dev run doctor validate: export DAGSTER_HOME := $(CURDIR)/dagster_home

demo: $(RUN) ## Materialize the whole shipped lakehouse and show what was written
	$(PY) -m dwh_assets.orchestration.demo

demo-warehouses: $(DEV) ## The same, with replicas in emulators of Snowflake and BigQuery too
	$(PY) -m dwh_tests.servers.demo_warehouses

dev: $(RUN) ## Serve the Dagster UI and its daemon on http://127.0.0.1:3000
	@$(PY) -m dwh_assets.orchestration.runs
	$(PY) -m dagster_dg_cli.cli dev -w workspace.yaml --host 127.0.0.1 --port $(PORT)

run: $(RUN) ## Materialize one table and its replicas: make run TABLE=nyc.weather
	@test -n "$(TABLE)" || { echo "Which table? For example: make run TABLE=nyc.weather" >&2; exit 1; }
	$(PY) -m dagster_dg_cli.cli launch --job '$(subst .,_,$(TABLE))' $(if $(PARTITION),--partition '$(PARTITION)')

doctor: $(RUN) ## Check what the configuration names, and say what to do about the rest
	$(PY) -m dwh_assets.orchestration.doctor_job

# --- Working on it --------------------------------------------------------------------------------------------

# By file, so that a server a file starts is started once, and in the order of dwh_tests/conftest.py; four at
# most, because each may start processes.
test: $(DEV) ## Run the tests
	env -u DAGSTER_HOME $(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-live: $(DEV) ## Run the replicas' suite in the real MotherDuck, Snowflake and BigQuery that the environment names
	env -u DAGSTER_HOME DWH_TEST_LIVE=1 $(PY) -m pytest dwh_tests/warehouses/conformance -rs $(ARGS)

lint: $(DEV) ## Check style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEV) ## Mend style and formatting where that needs no thought
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The first is superseded by the third, says Dagster, but it alone reads workspace.yaml.
validate: $(RUN) ## Load the definitions the three ways Dagster does
	$(PY) -W ignore::FutureWarning -m dagster definitions validate
	$(PY) -m dagster_dg_cli.cli check yaml
	$(PY) -m dagster_dg_cli.cli check defs

bench: $(DEV) ## Run the benchmarks
	env -u DAGSTER_HOME $(PY) -m dwh_tests.benchmarks $(ARGS)

# --- Setting it up --------------------------------------------------------------------------------------------

setup: $(RUN) ## Install what users need into .venv
	@echo "$(VENV) is ready: $$($(PY) --version)"

setup-dev: $(DEV) ## Install that and the tools of the tests into .venv
	@echo "$(VENV) is ready: $$($(PY) --version), with the tools for development"

# The venv itself is made only when there is none, or when the Python it points to is gone.
define MAKE_VENV
found=; seen=; \
for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	case $$version in \
		3.11|3.12|3.13) ;; \
		*) seen="$$seen $$candidate is $$version,"; continue;; \
	esac; \
	if ! command -v uv >/dev/null 2>&1 && ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
		seen="$$seen $$candidate has no venv module (Debian, Ubuntu: apt install python$$version-venv),"; continue; \
	fi; \
	found=$$candidate; break; \
done; \
if command -v uv >/dev/null 2>&1; then \
	uv venv --quiet --clear --seed --python "$${found:->=3.11,<3.14}" $(VENV); \
elif [ -n "$$found" ]; then \
	"$$found" -m venv --clear $(VENV); \
else \
	echo "No usable Python: dwh_assets needs 3.11, 3.12 or 3.13.$${seen:+ Found:$${seen%,}.}" >&2; \
	echo "Install one of them (or uv, which brings its own), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	exit 1; \
fi
endef

define INSTALL
@$(PY) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("$(VENV) has Python %d.%d, and 3.11 to 3.13 are supported: remove $(VENV), then run make again" % v)'
@echo "Installing dwh_assets$(1) into $(VENV) (the first time, that takes a minute or two)"
@if command -v uv >/dev/null 2>&1; then \
	uv pip install --quiet --python $(PY) --constraint constraints.txt --editable '.$(1)'; \
else \
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.$(1)'; \
fi
endef

$(PY):
	@$(MAKE_VENV)

$(RUN): pyproject.toml constraints.txt $(PY)
	$(call INSTALL,)
	@touch $@

$(DEV): pyproject.toml constraints.txt $(PY)
	$(call INSTALL,[dev])
	@touch $(RUN) $@

constraints: ## Resolve constraints.txt anew, for all supported Pythons at once (needs uv)
	{ sed '/^#/!d' constraints.txt; uv pip compile --quiet --universal --python-version 3.11 --all-extras \
		--upgrade --no-header --no-annotate --no-emit-index-url pyproject.toml; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

# --- Cleaning up ----------------------------------------------------------------------------------------------

clean: ## Remove the environment, caches and build output (never data)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find dwh_assets dwh_tests -name __pycache__ -type d -prune -exec rm -rf {} +

reset: ## Remove the local lakehouse and the history of the local Dagster instance
	rm -rf lakehouse
	find dagster_home -mindepth 1 -maxdepth 1 ! -name dagster.yaml -exec rm -rf {} +

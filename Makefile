# Every target does all its own set-up: a bare clone needs Python 3.11 or later and make, nothing else.
# uv is used where it is installed, else venv and pip. The set-up is stamped, so the second run is instant.
#
#   make demo ARGS="--orders 50"            more arguments for the command behind a target
#   make test PYTHON=/opt/python3.12        another interpreter; the environment is rebuilt for it

.DEFAULT_GOAL := help
SHELL := /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BENCH := .venv-bench
RUN := $(VENV)/bin
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
# Tests wait for databases and for each other: three processes keep two cores busy.
JOBS := 3

# The name of a stamp tells the interpreter that was asked for; asking for none accepts whichever there is.
stamp = $(1)/.made-by-$(if $(PYTHON),$(notdir $(PYTHON)),$(or $(patsubst $(1)/.made-by-%,%,$(firstword $(wildcard $(1)/.made-by-*))),default))
READY := $(call stamp,$(VENV))
BENCH_READY := $(call stamp,$(BENCH))

# The dependency group of pyproject.toml as a list that every pip can read: `pip install --group` needs pip 25.1.
GROUP := import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")

# $(call environment,folder,group,minimum as "3, 11") makes $@, the stamp. Each interpreter is run, not only found:
# version switchers put commands on the PATH that then refuse to start. A uv that cannot install (it does not read pip's
# settings: a mirror, a certificate) is no reason to give up, so pip is tried after it.
define environment
@set -e; \
chosen=; \
for python in $(PYTHONS); do \
  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < ($(3)))' >/dev/null 2>&1; then chosen=$$python; break; fi; \
done; \
if [ -z "$$chosen" ]; then \
  echo "make: this target needs Python $(subst $(comma) ,.,$(3)) or later, with its venv module (Debian: python3-venv). Tried: $(PYTHONS)." >&2; \
  echo "make: name one that you have: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi; \
[ -f "$@" ] || rm -rf $(1); \
echo "Setting up $(1) with $$("$$chosen" --version), once ..."; \
if command -v uv >/dev/null 2>&1 \
  && { [ -x $(1)/bin/python ] || uv venv --quiet --seed --python "$$chosen" $(1); } \
  && "$$chosen" -c '$(GROUP)' $(2) >$(1)/group.txt \
  && uv pip install --quiet --python $(1)/bin/python --requirements $(1)/group.txt --editable .; then :; \
else \
  [ -x $(1)/bin/pip ] || "$$chosen" -m venv --clear $(1); \
  "$$chosen" -c '$(GROUP)' $(2) >$(1)/group.txt; \
  $(1)/bin/pip install --quiet --requirement $(1)/group.txt --editable .; \
fi; \
touch $@
endef
comma := ,

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml
	$(call environment,$(VENV),dev,3$(comma) 11)

$(BENCH_READY): pyproject.toml
	$(call environment,$(BENCH),bench,3$(comma) 12)

.PHONY: demo
demo: $(READY) ## Run 200 orders through sagas, kill a worker half way, audit the money and the stock
	@$(RUN)/saga demo $(ARGS)

.PHONY: test
test: $(READY) ## Run every test and every example in the docs, on SQLite and on a real PostgreSQL
	$(RUN)/pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

.PHONY: check
check: lint docs-check coverage ## Run what a change must pass besides the tests

.PHONY: lint
lint: $(READY) ## Check style, types and layers
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

.PHONY: docs-check
docs-check: $(READY) ## Run the examples of README, docs and docstrings
	$(RUN)/pytest --quiet README.md docs saga_orchestrator

.PHONY: coverage
coverage: $(READY) ## Ask for every branch of the definition and the kernel
	$(RUN)/coverage erase
	$(RUN)/coverage run -m pytest --quiet --numprocesses $(JOBS) --dist worksteal tests/unit tests/laws
	$(RUN)/coverage combine --quiet
	$(RUN)/coverage report --fail-under=100

.PHONY: simulation
simulation: $(READY) ## Crash the whole engine at every commit and await, 1000 seeds
	$(RUN)/python -m tests.simulation $(or $(ARGS),--seeds 1000)

.PHONY: chaos
chaos: $(READY) ## Kill workers and PostgreSQL for 60 seconds, then audit an external ledger
	$(RUN)/python -m tests.chaos $(or $(ARGS),--seconds 60)

.PHONY: matrix
matrix: $(READY) ## Run the tests with every Python, library and PostgreSQL that is supported and found
	$(RUN)/python -m tests.matrix $(ARGS)

.PHONY: bench
bench: $(BENCH_READY) ## Measure against raw floors and two peers (Python 3.12 or later)
	$(BENCH)/bin/python -m benches $(ARGS)

.PHONY: clean
clean: ## Remove the environments and everything that tools left behind
	rm -rf $(VENV) $(BENCH) .venv-matrix build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

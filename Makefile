# Every target makes .venv by itself, with `headrace` in it; the second time it is there already.
# PY names the Python to make it with, ARGS goes to the command: make demo ARGS=--once
PY ?= python3
CXX ?= c++
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.headrace-installed
# What is applied as it stands; patches are parts, and are checked once they are applied (tests/infra/test_kubernetes.py).
KUBERNETES = $(filter-out %/kustomization.yaml %-patch.yaml,$(wildcard infra/kubernetes/base/*.yaml infra/kubernetes/overlays/*/*.yaml))
BENCHMARKS := ingest restore freshness memory recall learning quality coldstart serving workers scaling

.DEFAULT_GOAL := help
.PHONY: help setup demo test check manifests bench docs clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-9s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## make .venv with everything that Headrace needs

demo: $(STAMP) ## replay real logs through Kafka and watch it learn (ARGS=--once ends by itself)
	@$(BIN)/headrace demo $(ARGS)

test: $(STAMP) ## run all tests; ARGS='-m "not broker"' leaves out those that start Kafka
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## formatting, lint, types and manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory manifests

manifests: $(STAMP) ## image, compose, Kubernetes, Terraform and workflows, by their schemas (part of check)
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/kubernetes-validate --strict --quiet $(KUBERNETES)
	@for file in infra/terraform/aws/*.tf; do $(BIN)/hcl2tojson "$$file" >/dev/null 2>&1 || { echo "$$file is no HCL" >&2; exit 1; }; done

bench: $(STAMP) ## run the benchmarks, two hours (serving needs wrk); ARGS=--json prints one object each
	@for name in $(BENCHMARKS); do echo "bench/$$name.py" >&2 && $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

docs: $(STAMP) ## build the site into build/docs/site, without the network
	@$(BIN)/python -m docs.build

clean: ## remove .venv and what tools cached; .headrace (your state and Kafka's log) stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PY) >/dev/null || { \
		echo "Headrace needs Python 3.11 to 3.13, and there is no '$(PY)': install it, or name yours: make $(MAKECMDGOALS) PY=python3.12" >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "Headrace needs Python 3.11 to 3.13, and '$(PY)' is $$($(PY) -V 2>&1): name another: make $(MAKECMDGOALS) PY=python3.12" >&2; exit 1; }
	@$(PY) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv module is missing: install it (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }
	@command -v $(firstword $(CXX)) >/dev/null || { \
		echo "A C++ compiler is missing ('$(CXX)'), and hnswlib is built with one: install it (on Debian and Ubuntu: g++; on macOS: xcode-select --install), or set CXX" >&2; exit 1; }
	@$(PY) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || { \
		echo "Python's headers are missing, and hnswlib is built with them: install them (on Debian and Ubuntu: python3-dev)" >&2; exit 1; }
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then echo "Making .venv (once, about two minutes)"; $(PY) -m venv --clear .venv; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

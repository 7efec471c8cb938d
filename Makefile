# Every target works on a fresh machine that has Python 3.11 or newer with venv and pip, and nothing else.

PORT ?= 8000
HOST ?= 127.0.0.1
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$each; break; }; done)
BIN := .venv/bin
# One more than processors: tests wait for databases and clocks.
WORKERS ?= $(shell $(or $(PYTHON),python3) -c 'import os; print((os.cpu_count() or 1) + 1)')

.DEFAULT_GOAL := help
.PHONY: help run install test deployment check fuzz timing bench faults rotation audit format lock clean

help:  ## Tell what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: .venv/run.stamp  ## Install, migrate and serve on http://127.0.0.1:8000 (PORT=9000 HOST=…)
	@exec $(BIN)/usermgmt serve --dev --host $(HOST) --port $(PORT)

install: .venv/run.stamp  ## Create .venv with .venv/bin/usermgmt

test: .venv/test.stamp  ## Run every test on SQLite and PostgreSQL
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --ignore=tests/deployment $(ARGS)

deployment: .venv/test.stamp  ## Test deploy/ with the real nginx, haproxy, pgbouncer and a standby (needs Debian's packages)
	$(BIN)/python -m pytest tests/deployment -n $(WORKERS) --dist loadfile -rP $(ARGS)

check: .venv/test.stamp  ## Static checks: style, types (SLOW=1: also that no request costs three times as much at a million accounts as at a hundred thousand; minutes)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
ifdef SLOW
	$(BIN)/python -m benchmarks.growth --users 100000,1000000 --at-most 3
endif

fuzz: .venv/test.stamp  ## Fuzz every operation on both databases at length (COUNT=60: some minutes; without it 10,000 examples each: a day)
	FUZZ_COUNT=$(or $(COUNT),10000) $(BIN)/python -m pytest tests/fuzz -n 2 --timeout=0

timing: .venv/test.stamp  ## Measure whether the time of a refused sign-in tells anything
	$(BIN)/python -m benchmarks.sign_in_timing $(ARGS)

bench: .venv/test.stamp  ## Build everything from nothing, load it, print one table (ARGS="--quick", "--users 1000000", "--soak 60")
	$(BIN)/python -m benchmarks $(ARGS)

faults: .venv/test.stamp  ## Let PostgreSQL, SQLite, Valkey and workers fail under load, print what came of it (ARGS="--quick", "--only hung", "--list")
	$(BIN)/python -m benchmarks.faults $(ARGS)

rotation: .venv/test.stamp  ## Replace root secret, pepper and signing key under load, and count who was signed out
	$(BIN)/python -m benchmarks.rotation $(ARGS)

audit: .venv/test.stamp  ## Known holes in what is locked, dangerous code, and build/sbom.json
	$(BIN)/python requirements/audit.py

format: .venv/test.stamp  ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m usermgmt.http.route_table README.md

lock: .venv/test.stamp  ## Renew the locked dependencies
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --extra valkey \
		pyproject.toml requirements/build.in -o requirements/run.lock
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes --no-header --all-extras \
		pyproject.toml requirements/build.in -o requirements/test.lock

clean:  ## Remove .venv and caches; data/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "usermgmt needs Python 3.11, 3.12 or 3.13; none is on the PATH (PYTHON=… names one)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/python requirements/run.lock pyproject.toml
	@echo "installing usermgmt into .venv"
	@$(call install,requirements/run.lock)
	@touch $@

.venv/test.stamp: .venv/run.stamp requirements/test.lock
	@echo "installing the test tools into .venv"
	@$(call install,requirements/test.lock)
	@touch $@

# Locked versions with their hashes; then this project itself, in place. uv does it faster where it is present.
define install
if command -v uv >/dev/null 2>&1; then \
	uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1) && \
	uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
else \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r $(1) && \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
fi
endef

# Lablet. `make help` lists what there is; `make demo` and `make test` need nothing prepared but Python 3.11+, make and a package index.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := libs/common libs/client services/api-gateway services/scheduler services/worker-controller services/artifact-service deploy/local
SOURCES := libs/common/lablet_common libs/client/lablet_client services/api-gateway/lablet_gateway services/scheduler/lablet_scheduler services/worker-controller/lablet_workers services/artifact-service/lablet_artifacts deploy/local/lablet_local
READY := $(VENV)/.ready
DIST := dist
# Three processes (most of a test is waiting), whole files each; meshes one after another, first (conftest.py).
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help

.PHONY: help setup demo test test-all chaos soak fuzz simulate golden up down lint format bench performance lock proto reference docs dist validate-prereqs audit clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment in .venv (every other target does this by itself, once)

$(READY): requirements.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Lablet needs Python 3.11 or newer: '$(PYTHON)' is not (choose another with: make PYTHON=python3.12 …)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || echo "this Python is newer than those that were tried (3.11 to 3.13): if it does not work, choose another with: make PYTHON=python3.13 …" >&2
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Lablet needs Python's venv module: install it with 'apt-get install python3-venv'" >&2; exit 2; }
	@test -x $(BIN)/python && $(BIN)/python -c '' 2>/dev/null || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "setting up .venv (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	@$(BIN)/python bench/interpreter.py
	@touch $@

demo: $(READY) ## a morning of classes and exams on real local servers, checked to the last seat
	@$(BIN)/lablet demo

test: $(READY) ## every test but the long tier (under ten minutes)
	$(BIN)/python -m pytest $(SPREAD) -m "not long"

test-all: $(READY) ## the long tier too
	$(BIN)/python -m pytest $(SPREAD)

chaos: $(READY) ## fault runs: four seeds under load, everything killed, paused and cut off (SEEDS=n for more, AGENTS=n hosts that run jobs, HA=1 for three of etcd and NATS, RECORD=file to go on where it stopped)
	@$(BIN)/lablet chaos --seeds $(or $(SEEDS),4) --agents $(or $(AGENTS),2) $(if $(filter 1,$(HA)),--ha) $(if $(RECORD),--record $(RECORD))

soak: $(READY) ## two hours under a steady load: nothing is lost, nothing grows (HOURS=n); the report is out/soak-report.html
	@$(BIN)/lablet soak --hours $(or $(HOURS),2)

fuzz: $(READY) ## hostile input at every reader (CASES=n; a million took half an hour)
	@$(BIN)/python -m lablet_local.fuzz --cases $(or $(CASES),100000)

simulate: $(READY) ## simulated worlds, a seed each, on every processor (SEEDS=n, FIRST=n, or WEEKS=n of teaching in one)
	@$(BIN)/python -m lablet_local.simulation --seeds $(or $(SEEDS),500) --first $(or $(FIRST),1) --weeks $(or $(WEEKS),0)

up: $(READY) ## the whole mesh on this machine; Ctrl-C stops it
	@$(BIN)/lablet up

down: $(READY) ## stops a mesh that `make up` left running
	@$(BIN)/lablet down

lint: $(READY) ## ruff, mypy (strict), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) bench
	$(BIN)/lint-imports --no-cache

format: $(READY) ## ruff's own order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## every benchmark in its short form, then docs/performance.md (each in full: make bench-NAME)
	@$(BIN)/python bench/run.py --brief; status=$$?; $(BIN)/python bench/page.py --adopt && exit $$status

bench-%: $(READY)
	@$(BIN)/python bench/run.py $*

performance: $(READY) ## docs/performance.md from bench/records and bench/prose (RECORDS=new takes out/bench over)
	@$(BIN)/python bench/page.py $(if $(RECORDS),--adopt)

validate-prereqs: $(READY) ## what this machine has and lacks (lablet doctor)
	@$(BIN)/lablet doctor

proto: $(READY) ## the messages of etcd's API, from their .proto file
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I libs/common --python_out=libs/common \
	  --mypy_out=quiet:libs/common lablet_common/store/proto/etcd.proto

lock: $(READY) ## solve the dependencies anew into requirements.lock (needs uv)
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --upgrade \
	  $(PACKAGES:%=--no-emit-package $$(sed -n 's/^name = "\(.*\)"/\1/p' %/pyproject.toml)) \
	  pyproject.toml $(PACKAGES:%=%/pyproject.toml) --group dev --output-file requirements.lock

golden: $(READY) ## what this release stores, kept for the upgrade test of all later ones (RELEASE=x.y.z)
	@$(BIN)/python -m pytest -q tests/twins/test_upgrade.py -k writing --golden $(RELEASE)

reference: $(READY) ## docs/reference (OpenAPI, AsyncAPI, JSON Schemas, pages of commands, settings, metrics) from the code
	@env -u CLOUDEVENTS_SCHEMA_BASE $(BIN)/python -m lablet_gateway.reference docs/reference
	@$(BIN)/python docs/site/write_reference.py docs/reference

docs: $(READY) ## the documentation as a site in out/site; a link or an anchor that leads nowhere ends it
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -j auto -c docs/site -d out/site.cache docs out/site
	@echo "out/site/index.html"

dist: $(READY) ## a wheel of each package, with the SBOM and the checksums of all, in dist/
	@rm -rf $(DIST) && mkdir -p $(DIST)
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) $(PACKAGES:%=./%)
	@$(BIN)/python deploy/docker/sbom.py --site "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --version "$$($(BIN)/python -c 'from lablet_common.version import __version__ as v; print(v)')" \
	  --only $(foreach package,$(PACKAGES),$$(sed -n 's/^name = "\(.*\)"/\1/p' $(package)/pyproject.toml)) > $(DIST)/sbom.cdx.json
	@cd $(DIST) && sha256sum *.whl sbom.cdx.json > SHA256SUMS && cat SHA256SUMS

audit: $(READY) ## PyPI's advisories about every line of the lock (needs the network of PyPI itself; without it, it fails and says 'left out')
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(BIN)/python .ci/audit.py .venv-audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

clean: ## removes .venv and caches
	rm -rf $(VENV) .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

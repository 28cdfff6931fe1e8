# Everything that is done with emunet from a clone. `make` alone says what there is.
#
# The environment in .venv is made when first needed, and again when pyproject.toml
# or constraints.txt changes; nothing outside this folder is touched, except by
# `make deps`.

T ?= topologies/two-hosts.yaml
W ?= capture.pcapng
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/base
READY := $(VENV)/ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# `make topology` names the lab after its file; shell, capture take the only running lab unless LAB is given.
LAB_OF_T := $(or $(LAB),$(basename $(notdir $(firstword $(T)))))
OF_LAB := $(if $(LAB),--lab $(LAB))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help topology shell capture down test rules soak check fmt site bench bench-quick bench-deps deps clean

help: ## say what there is
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

topology: $(BASE) ## start a lab, ping all pairs, explain one ping   [T=FILE] [LAB=NAME]
	@# Run again, it starts afresh. There may be no such lab: then `down` has nothing to do, and `up` has the last word.
	@$(BIN)/emunet down --lab $(LAB_OF_T) >/dev/null 2>&1 || true
	$(BIN)/emunet up $(T) --lab $(LAB_OF_T)
	@$(BIN)/emunet tour --lab $(LAB_OF_T)

shell: $(BASE) ## a Scapy prompt on the running lab   [LAB=NAME]
	@$(BIN)/emunet shell $(OF_LAB)

capture: $(BASE) ## write what ports carry to a file until Ctrl-C   P="web-1 host1:eth0" [W=FILE] [LAB=NAME]
	@test -n '$(P)' || { echo 'name a port, as in: make capture P=web-1' >&2; exit 2; }
	$(BIN)/emunet capture $(OF_LAB) $(P) -w $(W)

down: $(BASE) ## stop every lab and remove all it made
	@$(BIN)/emunet down --all

test: $(READY) ## run the tests, but for those that take long   [ALL=1] [ARGS="-k vxlan"]
	@# Three workers: one for kernel tests that measure time, one for clients of others, one for other labs; the rest fills in.
	$(BIN)/python -m pytest -n 3 --dist loadgroup $(if $(ALL),,-m 'not slow') $(ARGS)

rules: $(READY) ## each rule of how frames behave, its tests, its verdict; rules.json   [ALL=1] [ARGS="-k arp"]
	@# A tenth of the rules, another each day, is put to the test: without its element its tests must fail. ALL=1: all.
	@$(BIN)/python -m tests.rules $(if $(ALL),--all) $(ARGS)

soak: $(READY) ## an hour of traffic while five pods a second come and go: memory, descriptors, the law   [SECONDS=3600]
	@PYTHONPATH=. $(BIN)/python tests/kernel/soak.py $(SECONDS)

check: $(READY) ## look for faults: lint, format, types; changes nothing
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

fmt: $(READY) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

site: $(VENV)/site ## the pages of docs/ as a site in build/site, every link checked; it is read from there, without a server
	$(BIN)/zensical build --strict --clean

bench: $(READY) ## how fast it is, beside others, in a quarter of an hour: tables and bench.json   [ARGS="--only VXLAN"]
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(READY) ## the figures with a target only, three short rounds
	@$(BIN)/python -m benchmarks --quick $(ARGS)

bench-deps: ## install the Debian packages that `make bench` compares with
	@bash .ci/install-packages bench-packages.txt

deps: ## install the Debian packages that pods and tests use
	@bash .ci/install-packages

clean: ## remove the environment and all caches (labs: `make down` first)
	rm -rf $(VENV) build .cache dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The generator is 90 MB, so it is there only for whoever builds the site.
$(VENV)/site: $(READY)
	@$(PIP) --no-build-isolation --editable '.[docs]'
	@touch $@

# The first Python that is new enough and can make an environment. Exact versions come from
# constraints.txt, setuptools included: nothing is resolved twice, nothing drifts.
$(BASE): pyproject.toml constraints.txt
	@set -e; \
	if ! '$(BIN)/python' -c '' 2>/dev/null; then \
	    for python in '$(PYTHON)' python3.14 python3.13 python3.12 python3.11 none; do \
	        if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	    done; \
	    if [ "$$python" = none ]; then \
	        echo 'emunet needs Python 3.11 or newer with its venv module: apt-get install python3-venv   (or: make deps)' >&2; exit 1; \
	    fi; \
	    echo "making $(VENV) with $$python"; \
	    "$$python" -m venv --clear '$(VENV)'; \
	fi; \
	$(PIP) setuptools; \
	$(PIP) --no-build-isolation --editable '.[png]'
	@touch $@

# What the tests and checks need beside it.
$(READY): $(BASE)
	@$(PIP) --no-build-isolation --editable '.[test,dev,png]'
	@touch $@

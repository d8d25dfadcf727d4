# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The tests start hundreds of processes: without compiled modules, each compiles all of ours.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test coverage test-slow lint advisories security-test docs house ohif bench bench-load wheel wheel-test release clean

# PyPI's torch for Linux brings several GB of CUDA along; this index has the one for processors.
# For a GPU: make TORCH_INDEX=https://pypi.org/simple
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --progress-bar off -c constraints.txt
# pip's lines as a count; its warnings and errors go past it.
COUNT := awk -v live="$$(test -t 2 && echo 1)" \
    '/^ *(Collecting|Processing|Obtaining)/ { n++; if (live) printf "\r    %d packages, now %-50.50s", n, $$2 } \
     /^ *Downloading/ { if (live) printf "\r    %d packages, now %-50.50s", n, $$2 " " $$3 $$4 } { fflush() } \
     END { printf "%s    %d packages%55s\n", live ? "\r" : "", n, "" }'

$(VENV)/.installed: SHELL := bash
$(VENV)/.installed: .SHELLFLAGS := -o pipefail -ec
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python " + sys.version.split()[0] + ", required: 3.11 or newer")'
	@echo "Installing into $(abspath $(VENV)), once; nothing outside of it changes. About 2.5 GB, 3 to 10 minutes."
	@echo "1 of 3: a virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade -c constraints.txt pip
	@echo "2 of 3: PyTorch for CPUs, about 200 MB"
	@$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch | $(COUNT)
	@echo "3 of 3: Thoracle, what its tests use, and linters: about 150 packages"
	@$(PIP) -e '.[evaluate,oidc,openvino,parquet,s3]' --group test --group lint --group release --group train | $(COUNT)
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python tests/demo.py $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/pip-licenses --packages $$(cut -d= -f1 constraints.txt) >/dev/null
	@echo "licences: all that is pinned has one of the list in pyproject.toml"

# Published advisories on what is pinned. Says so where PyPI's and OSV's data cannot be reached.
advisories: $(VENV)/.installed
	$(BIN)/python tests/advisories.py

# Tests wait for sockets, servers and browsers more than they compute: four processes even on two
# cores. A file stays in one process, because its tests share a gateway.
WORKERS ?= 4
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

# Counting lines takes a third more time, so it is not part of `test`.
coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) --cov --cov-report= $(ARGS)
	@echo "coverage: $$($(BIN)/coverage report --format=total) % of the lines ran in the tests' own processes"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow $(ARGS)

# The tests that the threat model names (docs/security/threat-model.md); one that lacks its peer fails.
security-test: $(VENV)/.installed
	THORACLE_REQUIRE_PEERS=1 $(BIN)/python tests/security_pages.py -m "not slow" $(PARALLEL) $(ARGS)

docs: $(VENV)/.installed
	$(BIN)/python tests/documents.py

# Rooms, modules, lines, pairs of rooms that import each other, circles.
house: $(VENV)/.installed
	$(BIN)/python tests/house.py

# The viewer that results are opened with in the tests.
ohif: $(VENV)/.installed
	$(BIN)/python tests/ohif.py

# The wheel of the last commit, built twice: two that differ are an error.
wheel: $(VENV)/.installed
	$(BIN)/python tests/release.py --wheel-only dist

# The wheel, not the checkout: installed where nothing else is, it must find its bundle.
wheel-test: wheel
	rm -rf build/wheel
	$(PYTHON) -m venv --clear build/wheel
	build/wheel/bin/python -m pip install -qq --upgrade pip
	build/wheel/bin/python -m pip install -qq -c constraints.txt --extra-index-url $(TORCH_INDEX) torch
	build/wheel/bin/python -m pip install -qq -c constraints.txt dist/*.whl
	cd build/wheel && bin/python -m thoracle check | tee check.txt; grep -q "OK *classify.bundle" check.txt

# Wheel, constraints, SBOM and their digests in dist/; signed with MINISIGN_KEY=FILE (docs/security/releases.md).
release: $(VENV)/.installed
	$(BIN)/python tests/release.py dist --minisign-key "$(MINISIGN_KEY)"

bench: $(VENV)/.installed
	$(BIN)/python tests/bench.py $(ARGS)

bench-load: $(VENV)/.installed
	$(BIN)/python tests/bench_load.py $(or $(ARGS),--together --burst 5000 --minutes 30 --studies 1000000)

clean:
	rm -rf $(VENV) build dist plugin/*.egg-info

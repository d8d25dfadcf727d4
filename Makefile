# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint docs house ohif bench wheel-test clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python " + sys.version.split()[0] + ", required is 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade -c constraints.txt pip
	@echo "Installing (a few minutes the first time; torch is large) ..."
	$(BIN)/python -m pip install -qq -c constraints.txt torch
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[evaluate,oidc,openvino,parquet]' --group test --group lint --group train
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python tests/demo.py $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests wait for sockets, servers and browsers more than they compute: three processes even on two
# cores. A file stays in one process, because its tests share a gateway.
WORKERS ?= 3

test: lint
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --cov --cov-report= $(ARGS)
	@echo "coverage: $$($(BIN)/coverage report --format=total) % of the lines ran in the tests' own processes"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow $(ARGS)

docs: $(VENV)/.installed
	$(BIN)/python tests/documents.py

# Rooms, modules, lines, pairs of rooms that import each other, circles.
house: $(VENV)/.installed
	$(BIN)/python tests/house.py

# The viewer that results are opened with in the tests.
ohif: $(VENV)/.installed
	$(BIN)/python tests/ohif.py

# The wheel, not the checkout: installed where nothing else is, it must find its bundle.
wheel-test: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --clear build/wheel
	build/wheel/bin/python -m pip install -qq --upgrade pip
	build/wheel/bin/python -m pip install -qq -c constraints.txt torch
	build/wheel/bin/python -m pip install -qq -c constraints.txt dist/*.whl
	cd build/wheel && bin/python -m thoracle check | tee check.txt; grep -q "well *classify.bundle" check.txt

bench: $(VENV)/.installed
	$(BIN)/python tests/bench.py $(ARGS)

clean:
	rm -rf $(VENV) build dist plugin/*.egg-info

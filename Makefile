# Each target works as the first command on a fresh machine with make and Python 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := cpu,openvino,convert,report,serve,dev

# What `make wheelhouse` gathers.
WHEELHOUSE ?= wheelhouse
WHEELHOUSE_MACHINE ?= aarch64
WHEELHOUSE_PYTHONS ?= 3.10 3.11 3.12 3.13
WHEELHOUSE_EXTRAS ?= cpu,onnx

.PHONY: demo test test-pythons lint format bench zoo docs wheelhouse clean

demo: .venv/.installed
	$(BIN)/edgekit demo --output demo

test: lint
	$(BIN)/python -m pytest $(PYTEST)

test-pythons:
	ci/test-pythons

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed
	$(BIN)/python -m benchmarks

# TensorRT-RTX is proprietary and x86-64 only: beside the environment, and without it its cells stay open.
zoo: .venv/.installed
	test -d build/tensorrt-rtx || $(BIN)/pip install --quiet --target build/tensorrt-rtx \
	    "$$(sed -n 's/^PACKAGE = "\(.*\)"/\1/p' tests/vendor.py)" || true
	$(BIN)/python -m benchmarks.zoo $(ZOO)

# The docs are Markdown; this follows every link in them and checks that every command and option exists.
docs: .venv/.installed
	$(BIN)/python -m pytest tests/test_docs.py

# EdgeKit and all that it needs as wheels, a folder a Python, to install from without a network. The old
# build/lib is removed because setuptools would put what is left in it into the wheel.
wheelhouse:
	rm -rf build/lib build/wheel
	$(PYTHON) -m venv --clear build/venv-wheelhouse
	build/venv-wheelhouse/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	set -e; for python in $(WHEELHOUSE_PYTHONS); do \
	    folder="$(WHEELHOUSE)/cp$$(echo $$python | tr -d .)-$(WHEELHOUSE_MACHINE)"; \
	    rm -rf "$$folder"; \
	    build/venv-wheelhouse/bin/python ci/pip_for.py $$python $(WHEELHOUSE_MACHINE) download --quiet \
	        --constraint constraints.txt --dest "$$folder" \
	        "$$(echo build/wheel/*.whl)[$(WHEELHOUSE_EXTRAS)]"; \
	    du -sh "$$folder"; \
	done

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv demo build dist wheelhouse *.egg-info

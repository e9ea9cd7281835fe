# Each target works as the first command on a fresh machine with make and Python 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := cpu,openvino,convert,report,dev

.PHONY: demo test lint format bench docs clean

demo: .venv/.installed
	$(BIN)/edgekit demo --output demo

test: lint
	$(BIN)/python -m pytest $(PYTEST)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed
	$(BIN)/python -m benchmarks

# The docs are Markdown; this runs every command and follows every link in them.
docs: .venv/.installed
	$(BIN)/python -m pytest tests/test_docs.py

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv demo build dist *.egg-info

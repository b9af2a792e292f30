# Two commands set everything up: `make demo` runs the main job, `make test` what the continuous integration runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test lint types pytest clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(BIN)/formers demo --out $(RUN) $(if $(DATA),--data $(DATA))

test: lint types pytest

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready-dev
	$(BIN)/mypy

# One thread a process: two processes on two cores are faster than threads that wait for each other.
pytest: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar on -c constraints.txt -e .
	touch $@

# Not behind the other: native code would be compiled twice.
$(VENV)/.ready-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar on -c constraints.txt -e '.[dev]'
	touch $(VENV)/.ready $@

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info

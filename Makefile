# Everything a newcomer needs: make demo, make up, make test.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export CELLABEL_HOME ?= .cellabel
export DAGSTER_GRPC_TIMEOUT_SECONDS ?= 180
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false

.PHONY: install demo up test lint bench kill damage clean
.DEFAULT_GOAL := install

install: $(INSTALLED)

# uv does not read pip's find-links; where none is set, torch comes without its gigabytes of CUDA. Bytecode is
# compiled here: every run is a process of its own, and imports take half as long.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cellabel needs Python 3.11 or newer: install it, or name it with make PYTHON=…"; exit 2; }
	@echo "Setting up $(VENV) (once; a minute or two) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}}"; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; else export UV_TORCH_BACKEND="$${UV_TORCH_BACKEND:-cpu}"; fi; \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	@touch $@

demo: install ## the whole loop on simulated plates, or on real images with DATA=folder
	@$(BIN)/cellabel demo $(if $(DATA),--data "$(DATA)") $(if $(FRESH),--fresh)

up: install ## the Dagster UI and MLflow over what lies in CELLABEL_HOME
	@$(BIN)/cellabel up

test: install lint ## the whole suite
	@$(BIN)/pytest -q -m "not benchmark" -n 2 --dist loadfile

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint deployment/Dockerfile
	@if command -v docker-compose >/dev/null; then docker-compose -f deployment/compose.yaml config --quiet; fi

bench: install ## speed as ratios against named alternatives
	@$(BIN)/pytest -q -m benchmark tests/benchmarks -s

kill: install ## kill -9 at many random moments
	@CELLABEL_KILLS=50 $(BIN)/pytest -q tests -k killed

damage: install ## a thousand real files changed at random bytes
	@CELLABEL_MUTATIONS=1000 $(BIN)/pytest -q -s tests/plates/test_damage.py -k mutated

clean: ## forget the state of the demo (not the environment)
	@rm -rf "$(CELLABEL_HOME)"

# Two commands: `make lab` sets everything up and opens the workbench, `make test` sets everything up and runs the tests.
# You can run both commands again: they keep what is already installed, so they then need no network.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell $(p) -c '' 2>/dev/null && echo $(p))))  # pyenv may offer a python that doesn't run
BIN := .venv/bin
HAS = $(BIN)/python -c 'import sys, $(1); sys.exit(sys.version_info < (3, 11))' 2>/dev/null
BENCH := --disable-pip-version-check -q --retries 0 -e '.[bench]'
ARGS ?= $(if $(CI),--check)
MATRIX ?= 3.11=lowest-direct 3.11=highest 3.12=highest 3.13=highest
ROOMS ?= tests/methods tests/training tests/accounting tests/widgets

.PHONY: lab test small demo notebooks bench reference wheelhouse lint fetch numbers api pictures site matrix again

lab: fetch
	@echo "opening JupyterLab with the lessons; Ctrl+C stops it"
	$(BIN)/python -m lora_course lab $(ARGS)

test: .venv/.test fetch
	@echo "running the tests: about 10 minutes on two cores"
	$(BIN)/python -m tests.budgets
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Run each lesson in a kernel that is stopped if it uses more memory than an 8 GB machine has left (docs/install.md).
small: .venv/.test fetch
	$(BIN)/python -m pytest -m memory

demo: fetch
	$(BIN)/python -m lora_course demo

notebooks: .venv/.test fetch
	$(BIN)/python notebooks/build.py

# The other tools in .[bench] may be missing, for example without a network; then their columns stay empty.
bench: .venv/.test fetch
	-@$(BIN)/python -c "import fitcheck, peft_doctor, torch_preflight" 2>/dev/null || $(BIN)/python -m pip install $(BENCH)
	$(BIN)/python -m benchmarks

# Make `lora-lab reproduce`'s reference results. This takes hours, but can be resumed. The runs don't ship with the lab.
reference: fetch
	$(BIN)/python -m lora_course reproduce --out runs/reference
	mkdir -p data/results/reproduce
	cd runs/reference && tar cf - report.md report.png */result.json | tar xf - -C ../../data/results/reproduce

lint: .venv/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Update the numbers that lessons and pages quote from stored runs.
numbers: .venv/.test
	$(BIN)/python docs/quoted.py

# Write the API reference, made from the docstrings, into build/api.
api: .venv/.test
	$(BIN)/python docs/api.py

# Build the site in site/build/html: lessons, docs and live panels as pages that need no kernel and no network.
site: .venv/.test
	$(BIN)/python site/build.py

# Test with the lowest and the newest versions that pyproject.toml allows, each in its own environment in build/matrix.
# ROOMS=tests runs all tests; MATRIX=3.11=lowest-direct uses one environment; UV_TORCH_BACKEND=cpu uses the CPU build.
matrix: .venv/.test fetch
	@failed=; for one in $(MATRIX); do \
	    python=$${one%=*} made=build/matrix/$${one%=*}-$${one#*=}; \
	    if ! $(BIN)/uv python find -q --no-python-downloads $$python >/dev/null; then \
	        echo "matrix: Python $$python isn't installed on this machine, so it is skipped"; continue; \
	    fi; \
	    echo "matrix: Python $$python, $${one#*=} versions"; \
	    $(BIN)/uv venv -q --clear --no-python-downloads --python $$python $$made \
	    && $(BIN)/uv pip install -q --python $$made --resolution $${one#*=} -e '.[test]' \
	    && $$made/bin/python -m pytest -q $(ROOMS) || failed="$$failed $$one"; \
	done; [ -z "$$failed" ] || { echo "matrix: failed:$$failed"; exit 1; }

# Take screenshots of panels for docs/. This takes some minutes, because one panel trains a model.
pictures: .venv/.test fetch
	$(BIN)/python docs/pictures.py

# Write the installation files for a class, for example with FOR="--platform windows --python 3.11" (docs/install.md).
wheelhouse: .venv/.lab
	@$(BIN)/python -c "import uv" 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check -q -e '.[wheelhouse]'
	$(BIN)/python -m lora_course wheelhouse $(FOR)

fetch: .venv/.lab
	@echo "models and data: this downloads 200 MB the first time, and later only checks the files"
	$(BIN)/python -m lora_course fetch

# If .venv has no pip (uv adds none), add pip and keep the other packages. If pip can't be added, or if the
# environment has an older Python, create the environment again.
# Running `pip install -e .` again would need the network; the stamp files make this unnecessary.
.venv/.lab: pyproject.toml $(if $(realpath $(BIN)/python),,again)  # an update may have removed its Python
	@echo "installing Python packages into .venv (once): 3 to 10 minutes without output, 2 GB of disk (more with CUDA)"
	$(call HAS,pip) || if $(call HAS,ensurepip); then $(BIN)/python -m ensurepip; else $(PYTHON) -m venv --clear .venv; fi
	$(BIN)/python -m pip install --disable-pip-version-check -q -e .
	@touch $@

.venv/.test: .venv/.lab
	@echo "installing the packages that the tests need (once): 1 to 3 minutes, 0.6 GB of disk"
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[test]'
	@touch $@

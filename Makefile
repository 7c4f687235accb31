# Needs python3 ≥ 3.11 with its venv module; everything else goes into .venv. Another build of torch (docs/operations.md):
#   CPU alone                                make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   V100, or a driver before 580 (CUDA 12)   make venv TORCH_INDEX=https://download.pytorch.org/whl/cu126
# and the same TORCH_INDEX for `make scorers`. In an environment that is there already: make clean venv TORCH_INDEX=…
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
STAMP := .venv/.installed
SCORERS := .venv/.scorers
SITE := .venv/.site
BIN := .venv/bin

.PHONY: demo test test-fast test-full-size gpu-check lint docs venv scorers clean
.DEFAULT_GOAL := demo

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $(STAMP)

# What the learned rewards need (docs/scorers.md). torchvision goes into a directory of its own: a build that does not
# fit torch would keep transformers from importing. Its version follows torch's: 2.13 → 0.28.
scorers: $(SCORERS)

$(SCORERS): $(STAMP) scorers-nodeps.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[scorers,ocr,vbench]' -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r scorers-nodeps.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/scorers torchvision==0.28.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -W ignore -c 'from rewards.shared import compat; compat.open_clip(); compat.image_reward()'
	touch $(SCORERS)

demo: $(STAMP)
	$(BIN)/python -m bench run

test: $(STAMP) $(SCORERS)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -r sfE

# For the everyday loop: no training, no process of its own, nothing that takes a third of a second.
test-fast: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow" -q

# The scorers' architectures whole, with random weights: up to 4 GB and, on slow cores, a quarter of an hour each.
test-full-size: $(STAMP) $(SCORERS)
	$(BIN)/python -m pytest --full-size -r sfE

# On a machine with a GPU: minutes, without network or weights (docs/gpu.md).
gpu-check: $(STAMP)
	status=0; $(BIN)/python -m scripts.gpu_check || status=1; $(BIN)/python -m pytest -m gpu -q || status=1; exit $$status

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The documentation as a site in site/; a link that leads nowhere is an error.
docs: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(SITE): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	touch $(SITE)

clean:
	rm -rf .venv

# Everything happens in a virtual environment in this folder; the first call of a target makes it.
PYTHON ?= python3
BIN := .venv/bin

# What `make narrate` narrates, and with what: something known alone, and something new after two narrated clips. The
# name of such a clip is its narration. Or a clip of your own, both ways.
KNOWN := examples/narration/wipes_the_carrot.mp4
FIRST := examples/narration/wams_the_carrot.mp4
SECOND := examples/narration/inserts_the_fedan.mp4
NEW := examples/narration/wams_the_fedan.mp4
CLIP ?=
CHECKPOINT ?= eilev-synthetic-opt
QUESTION := Question: What is the camera wearer doing? Answer:
narration_of = The camera wearer $(subst _, ,$(basename $(notdir $(1)))).
narrate = $(BIN)/transformers-eilev narrate --model "$(CHECKPOINT)"
demonstration = $(1) "$(QUESTION) $(call narration_of,$(1))"

.PHONY: install narrate replicate gallery test test-lowest test-newest style quality check bench clean

install: .venv/installed

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

narrate: install
	@mkdir -p build
	@echo "Alone$(if $(CLIP),,; it shows: $(call narration_of,$(KNOWN)))"
	$(narrate) "$(or $(CLIP),$(KNOWN))" "$(QUESTION)" --frames build/alone.png
	@echo "After two narrated clips$(if $(CLIP),,; it shows what only these two name: $(call narration_of,$(NEW)))"
	$(narrate) $(call demonstration,$(FIRST)) $(call demonstration,$(SECOND)) \
		"$(or $(CLIP),$(NEW))" "$(QUESTION)" --frames build/in_context.png

replicate: install
	$(BIN)/python examples/training/synthetic/run_replication.py build/replication

gallery: install
	$(BIN)/python examples/gallery/make_notebooks.py

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

# With the oldest versions that setup.py admits, and with the newest that there are. Of torch one may be named: by
# default its wheels for Linux bring CUDA.
LOWEST_TORCH ?= 2.6.0
NEWEST_TORCH ?=

test-lowest: .venv-lowest/installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal tests

.venv-lowest/installed: setup.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet uv
	echo "torch==$(LOWEST_TORCH)" > .venv-lowest/torch.txt
	.venv-lowest/bin/uv pip compile --quiet --resolution lowest-direct --override .venv-lowest/torch.txt \
		--extra dev --output-file .venv-lowest/versions.txt setup.py
	.venv-lowest/bin/pip install --quiet --constraint .venv-lowest/versions.txt torch
	.venv-lowest/bin/pip install --quiet --constraint .venv-lowest/versions.txt --editable ".[dev]"
	touch $@

test-newest: .venv-newest/installed
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 --dist worksteal tests

.venv-newest/installed: setup.py
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet torch$(addprefix ==,$(NEWEST_TORCH))
	.venv-newest/bin/pip install --quiet --editable ".[dev]"
	touch $@

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: quality
	$(BIN)/python utils/check_repo.py
	$(BIN)/python utils/check_remote_code.py
	$(BIN)/python utils/check_cards.py
	$(BIN)/python utils/check_docs.py

bench: install
	$(BIN)/python benchmarks/bench_import.py
	$(BIN)/python benchmarks/bench_video_reading.py
	$(BIN)/python benchmarks/bench_extraction.py
	$(BIN)/python benchmarks/bench_loader.py
	$(BIN)/python benchmarks/bench_sampler.py
	$(BIN)/python benchmarks/bench_augmentation.py
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_in_context.py
	$(BIN)/python benchmarks/bench_candidates.py
	$(BIN)/python benchmarks/bench_long_video.py

clean:
	rm -rf .venv .venv-lowest .venv-newest build dist *.egg-info src/*.egg-info .pytest_cache .ruff_cache

# Everything happens in a virtual environment in this folder; the first call of a target makes it.
PYTHON ?= python3
BIN := .venv/bin

# What `make narrate` narrates after one narrated clip, and with what.
CLIP ?= examples/narration/hits_a_cup.mp4
QUESTION := Question: What is the camera wearer doing? Answer:
CHECKPOINT ?= tests/fixtures/golden/t5/checkpoint

.PHONY: install narrate test style quality check bench clean

install: .venv/installed

.venv/installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

narrate: install
	@echo "The weights of $(CHECKPOINT) are random, so its words mean nothing:"
	$(BIN)/transformers-eilev narrate \
		examples/narration/turns_a_mallet.mp4 "$(QUESTION) The camera wearer turns the mallet." \
		$(CLIP) "$(QUESTION)" --model $(CHECKPOINT)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: quality
	$(BIN)/python utils/check_repo.py

bench: install
	$(BIN)/python benchmarks/bench_import.py
	$(BIN)/python benchmarks/bench_video_reading.py
	$(BIN)/python benchmarks/bench_extraction.py
	$(BIN)/python benchmarks/bench_loader.py
	$(BIN)/python benchmarks/bench_sampler.py
	$(BIN)/python benchmarks/bench_augmentation.py
	$(BIN)/python benchmarks/bench_training.py

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info .pytest_cache .ruff_cache

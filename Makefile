# The verbs of daily work. Each sets up what it needs: a bare machine has Python 3.11 and make, and that is enough.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# further flags, as in: make serve FLAGS="--port 9000"
FLAGS ?=

BIN := .venv/bin
READY := .venv/ready

.PHONY: help serve test slow browser manifests images check format bench fuzz soak sbom lock screenshot clean

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(READY) ## serve the models in models/ at http://127.0.0.1:8080
	@exec $(BIN)/sightread serve $(FLAGS)

# two at a time: most of them wait for a process to start
test: $(READY) ## run the tests that need Python alone, but for the slow ones
	@$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not slow and not browser and not manifests and not images" $(FLAGS)

slow: $(READY) ## run the slow tests: whole trainings, force, and what all pages say to type
	@$(BIN)/pytest -m slow $(FLAGS)

browser: $(READY) ## test the page in a browser (needs Chromium)
	@$(BIN)/pytest -m browser $(FLAGS)

manifests: $(READY) ## test k8s/ and compose.yaml (needs kubectl or kustomize, and promtool)
	@$(BIN)/pytest -m manifests $(FLAGS)

# with podman: make images CONTAINERS=podman; with images that are there already: make images BUILD=:
CONTAINERS ?= docker
# podman's own format knows no health check
BUILD ?= BUILDAH_FORMAT=docker $(CONTAINERS) build
VERSION = $(shell $(BIN)/sightread --version)
images: $(READY) ## build the gateway's and the training image, and run them
	@$(BUILD) --target gateway --tag sightread-gateway:$(VERSION) .
	@$(BUILD) --target training --tag sightread-training:$(VERSION) .
	@CONTAINERS=$(CONTAINERS) $(BIN)/pytest -m images $(FLAGS)

check: $(READY) ## lint, check types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(READY) ## put the code into its format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(READY) ## compare speed with other servers (needs wrk; mosec where there is one)
	@$(BIN)/python -m benchmarks $(FLAGS)

fuzz: $(READY) ## fuzz pictures and texts for five minutes each, then 10,000 requests
	$(BIN)/python -m fuzz.images 300
	$(BIN)/python -m fuzz.texts 300
	$(BIN)/python -m fuzz.requests

soak: $(READY) ## ten minutes of good and hostile traffic, while the gateway is watched
	$(BIN)/python -m fuzz.soak 600

# an index of "." keeps the packages' addresses relative: the locks name none
SBOM := PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --short-PURLs --index-url .
sbom: $(READY) ## list what ships, as CycloneDX, in bom/
	@mkdir -p bom
	@$(SBOM) requirements/gateway.lock --output-file bom/gateway.json
	@$(SBOM) requirements/all.lock --output-file bom/all.json

# huggingface-hub is what tokenizers downloads with; the gateway downloads nothing, so its image does without.
# tracing.lock is what the extra needs besides.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: $(READY) ## lock the newest versions that pyproject.toml allows
	@$(LOCK) --upgrade --extra client --extra training --extra development pyproject.toml --output-file requirements/all.lock
	@$(LOCK) --upgrade --constraint requirements/all.lock \
		--excludes requirements/gateway.excludes pyproject.toml --output-file requirements/gateway.lock
	@sed -n 's/==.*//p' requirements/gateway.lock | $(LOCK) --upgrade --constraint requirements/all.lock \
		--excludes - --extra tracing pyproject.toml --output-file requirements/tracing.lock
	@$(LOCK) --upgrade --constraint requirements/all.lock --extra training pyproject.toml \
		--output-file requirements/training-cpu.lock
	@$(LOCK) --upgrade --constraint requirements/all.lock --extra training pyproject.toml requirements/gpu.in \
		--output-file requirements/training-gpu.lock

screenshot: $(READY) ## take the README's picture of the page anew (needs Chromium)
	@$(BIN)/python -m tests.e2e.browser.screenshot

clean: ## remove what these verbs made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

$(READY): requirements/all.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo 'Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --require-hashes --requirement requirements/all.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

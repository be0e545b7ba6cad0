# What a person does with this project; `make` alone lists it. The environment is set up when first needed.
PYTHON ?= python3
VENV := .venv/bin/python
STAMP := .venv/.set-up
export PYTHON
# Machines that tell Python to keep no compiled code would compile FiftyOne and torch anew in every process: 7 s each.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo app python screenshots docs test compat bench lint zips lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole loop on drawn plankton; IMAGES=<folder of class folders> WEIGHTS=<file> for real ones"
	@echo "make app    FiftyOne's App on the demo dataset, with the plugins and a delegated worker; ARGS=\"--port 5152\""
	@echo "make python a prompt on the demo's dataset, with the plugins; SCRIPT=<file> runs a script"
	@echo "make screenshots  the pictures of README and docs anew, after a demo; needs Debian's chromium"
	@echo "make docs   what the READMEs say of operators and parameters, from the code"
	@echo "make test   every test; ARGS=... goes to pytest"
	@echo "make compat the zips and the demo on the oldest FiftyOne and on Python 3.12; half an hour"
	@echo "make bench  the benchmarks, or one: NAME=..."
	@echo "make lint   ruff and mypy"
	@echo "make zips   dist/<plugin>.zip, to upload to FiftyOne"
	@echo "make lock   renew requirements.lock and deploy/worker.lock; ARGS=--upgrade for newer versions"
	@echo "make clean  remove what was built and the demo's database; .venv stays"

$(STAMP): requirements.lock scripts/setup.sh scripts/uv.txt
	@sh scripts/setup.sh

demo: $(STAMP)
	@$(VENV) scripts/demo.py $(if $(IMAGES),--images '$(IMAGES)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(ARGS)

app: $(STAMP)
	@$(VENV) scripts/app.py $(ARGS)

python: $(STAMP)
	@$(VENV) scripts/session.py $(SCRIPT)

screenshots: $(STAMP)
	@$(VENV) scripts/screenshots.py

docs: $(STAMP)
	@$(VENV) scripts/docs.py

test: $(STAMP)
	@$(VENV) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(ARGS)

compat: $(STAMP)
	@$(VENV) scripts/compat.py $(ARGS)

bench: $(STAMP)
	@$(VENV) scripts/bench.py $(NAME)

lint: $(STAMP)
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

zips: $(STAMP)
	@$(VENV) scripts/build_zips.py

lock:
	@sh scripts/setup.sh uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --quiet \
		$(ARGS) --output-file requirements.lock
	@cat plugins/*/requirements.txt | grep -v -e '^#' -e '^fiftyone' | sort -u > build/worker.in
	@printf 'torch\ntorchvision\n' > build/not-in-worker.in
	@sh scripts/setup.sh uv pip compile build/worker.in --constraint requirements.lock --excludes build/not-in-worker.in \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
		--output-file deploy/worker.lock

clean:
	rm -rf build dist

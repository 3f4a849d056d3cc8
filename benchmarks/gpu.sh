#!/usr/bin/env bash
# Everything about a GPU, measured without anybody watching: an environment, two bundles, `python -m benchmarks.gpu`.
# On a machine with an NVIDIA GPU: benchmarks/gpu.sh
#
# Needs the driver (nvidia-smi) and Python 3.11 or newer with venv; as root on Debian or Ubuntu, what is missing is installed.
# PYTHON        the interpreter to use
# PARS_WHEELS   folder of wheels to install from, without any index; docs/operations.md says how to fill it
# BUDGET_S      seconds for everything, installing included (600)
#
# Writes benchmarks/results/gpu.json. Exit code 0: measured; 1: something failed, and the report says what; 2: nothing could be measured.
set -euo pipefail

ROOT=${BASH_SOURCE[0]%/*}
[[ $ROOT != "${BASH_SOURCE[0]}" ]] || ROOT=.
cd "$ROOT/.."

BUDGET_S=${BUDGET_S:-600}
OUT=benchmarks/results/gpu.json
VENV=.venv-gpu

give_up() {
    echo "gpu.sh: $*" >&2
    exit 2
}

left_s() {
    echo $((BUDGET_S > SECONDS ? BUDGET_S - SECONDS : 1))
}

is_new_enough() {
    command -v "$1" > /dev/null && "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# A bare CUDA image has neither Python nor make. Which version its Ubuntu calls python3 depends on the image.
install_tools() {
    [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null || return 0
    local packages=(make git ca-certificates)
    export DEBIAN_FRONTEND=noninteractive
    timeout "$(left_s)" apt-get update -qq >&2 || return 0
    find_python > /dev/null || timeout "$(left_s)" apt-get install -y -qq --no-install-recommends python3 python3-venv >&2 || true
    find_python > /dev/null || packages+=(python3.11 python3.11-venv)
    timeout "$(left_s)" apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2 || true
}

# Before anything is installed: without a GPU there is nothing to do here.
command -v nvidia-smi > /dev/null || give_up "no usable NVIDIA GPU here: nvidia-smi is not installed"
gpus=$(timeout 30 nvidia-smi -L 2>&1) || give_up "no usable NVIDIA GPU here: nvidia-smi failed: ${gpus%%$'\n'*}"
[[ $gpus == *GPU* ]] || give_up "no usable NVIDIA GPU here: nvidia-smi lists none"
echo "$gpus" >&2

if ! find_python > /dev/null || ! command -v make > /dev/null; then
    install_tools
fi
python=$(find_python) || give_up "no Python 3.11 or newer with venv; install one, or name it: PYTHON=/path/to/python3.11"

if [[ -n ${PARS_WHEELS:-} ]]; then
    [[ -d $PARS_WHEELS ]] || give_up "PARS_WHEELS=$PARS_WHEELS is no folder"
    "$python" -m venv "$VENV"
    timeout "$(left_s)" "$VENV/bin/pip" install --quiet --no-index --find-links "$PARS_WHEELS" --constraint .ci/constraints.txt \
        --editable '.[gpu,bench]' || give_up "the wheels in $PARS_WHEELS could not be installed"
else
    command -v make > /dev/null || give_up "make is not installed"
    # Exporting needs no GPU: with PIP_EXTRA_INDEX_URL naming PyTorch's index of builds for CPUs, gigabytes stay where they are.
    timeout "$(left_s)" make setup RUNTIME=gpu VENV="$VENV" PYTHON="$python" || give_up "the environment could not be made in time, or at all"
fi

bundles=()
failed=0
for precision in fp32 fp16; do
    bundle=bundles/default_ranker-$precision
    if [[ -f $bundle/manifest.json ]] ||
        timeout "$(left_s)" "$VENV/bin/python" -m exporter default_ranker --out "$bundle" --precision "$precision"; then
        bundles+=(--bundle "$precision=$bundle")
    else
        echo "gpu.sh: FAILED: the $precision bundle could not be exported" >&2
        failed=1
    fi
done
((${#bundles[@]})) || give_up "no bundle could be exported"

"$VENV/bin/python" -m benchmarks.gpu "${bundles[@]}" --provider cuda --budget-s "$(left_s)" --out "$OUT" || failed=1
exit "$failed"

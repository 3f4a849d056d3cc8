#!/usr/bin/env bash
# Everything about a GPU, measured without anybody watching: an environment, two bundles, `python -m benchmarks.gpu`.
# On a machine with an NVIDIA GPU: benchmarks/gpu.sh
#
# Needs a driver for CUDA 13 (nvidia-smi) and Python 3.11 or newer with venv; as root on Debian or Ubuntu, what is missing is installed.
# PYTHON        the interpreter to use; no other is taken in its place
# PARS_WHEELS   folder of wheels to install from, without any index, as seen from the repository; docs/operations.md says how to fill it
# BUDGET_S      seconds for everything, installing included (600)
#
# Writes benchmarks/results/gpu.json, again after each part. Exit code 0: measured; 1: something failed, and the report says what;
# 2: nothing could be measured, and an old report is left as it was; above 128: stopped by a signal, and the report has what was done.
set -euo pipefail

ROOT=${BASH_SOURCE[0]%/*}
[[ $ROOT != "${BASH_SOURCE[0]}" ]] || ROOT=.
cd "$ROOT/.."

BUDGET_S=${BUDGET_S:-600}
OUT=benchmarks/results/gpu.json
VENV=.venv-gpu
CUDA_MAJOR=13 # of the wheels that `.[gpu]` brings
EXPORT_S=120  # for each bundle: one that hangs is to leave time to measure the other

give_up() {
    echo "gpu.sh: $*" >&2
    exit 2
}

left_s() {
    echo $((BUDGET_S > SECONDS ? BUDGET_S - SECONDS : 1))
}

# In the foreground, so that Ctrl-C reaches it too.
within() {
    timeout --foreground --kill-after=10 "$@"
}

is_new_enough() {
    command -v "$1" > /dev/null && "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

find_python() {
    local candidate candidates=(python3.12 python3.11 python3.13 python3)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Without input: what asks would wait for an answer.
apt_get() {
    DEBIAN_FRONTEND=noninteractive within "$(left_s)" apt-get -qq "$@" < /dev/null >&2
}

# A bare CUDA image has none of these. Each on its own, so that one that cannot be had keeps no other from coming. What is still missing
# afterwards is found out where it is needed.
install_tools() {
    [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null || return 0
    # One repository that cannot be reached, often NVIDIA's own, makes it fail; the others' lists are there then.
    apt_get update || true
    command -v make > /dev/null || apt_get install -y --no-install-recommends make || true
    command -v git > /dev/null || apt_get install -y --no-install-recommends git || true
    # Ubuntu 22.04 calls 3.10 python3 and has 3.11 beside it; where there is no python3.11, python3 is newer.
    find_python > /dev/null || apt_get install -y --no-install-recommends python3.11 python3.11-venv || true
    find_python > /dev/null || apt_get install -y --no-install-recommends python3 python3-venv || true
}

# Before anything is installed: without a GPU there is nothing to do here.
command -v nvidia-smi > /dev/null || give_up "no usable NVIDIA GPU here: nvidia-smi is not installed"
gpus=$(within 30 nvidia-smi -L 2>&1) || give_up "no usable NVIDIA GPU here: nvidia-smi failed: $(head -n 1 <<< "${gpus:-no answer}")"
[[ $gpus == *GPU* ]] || give_up "no usable NVIDIA GPU here: nvidia-smi lists none"
echo "$gpus" >&2
# An older driver would fail every part, after minutes of installing. Whatever CUDA the image itself has does not matter.
shown=$(within 30 nvidia-smi 2>&1) || true
if [[ $shown =~ CUDA\ Version:\ *([0-9]+)\.[0-9]+ ]] && ((BASH_REMATCH[1] < CUDA_MAJOR)); then
    give_up "the driver says ${BASH_REMATCH[0]}, and the wheels need $CUDA_MAJOR: a newer driver is needed"
fi

if [[ -n ${PYTHON:-} ]] && ! is_new_enough "$PYTHON"; then
    give_up "PYTHON=$PYTHON is no Python 3.11 or newer with venv"
fi
if ! find_python > /dev/null || ! command -v make > /dev/null || ! command -v git > /dev/null; then
    install_tools
fi
python=$(find_python) || give_up "no Python 3.11 or newer with venv; install one, or name it: PYTHON=/path/to/python3.11"

if [[ -n ${PARS_WHEELS:-} ]]; then
    [[ -d $PARS_WHEELS ]] || give_up "PARS_WHEELS=$PARS_WHEELS is no folder"
    "$python" -m venv "$VENV" || give_up "no environment could be made with $python"
    within "$(left_s)" "$VENV/bin/pip" install --quiet --no-index --find-links "$PARS_WHEELS" --constraint .ci/constraints.txt \
        --editable '.[gpu,bench]' || give_up "the wheels in $PARS_WHEELS could not be installed"
else
    command -v make > /dev/null || give_up "make is not installed"
    # Exporting needs no GPU: with PIP_EXTRA_INDEX_URL naming PyTorch's index of builds for CPUs, gigabytes stay where they are.
    within "$(left_s)" make setup RUNTIME=gpu VENV="$VENV" PYTHON="$python" || give_up "the environment could not be made in time, or at all"
fi

# The report names its commit. A repository mounted into a container belongs to another user, to whom git says nothing unless told so.
if command -v git > /dev/null && ! git rev-parse HEAD > /dev/null 2>&1; then
    git config --file "$VENV/gitconfig" safe.directory "$(pwd -P)" && export GIT_CONFIG_GLOBAL=$PWD/$VENV/gitconfig
fi

bundles=()
failures=()
for precision in fp32 fp16; do
    bundle=bundles/default_ranker-$precision
    cap_s=$(($(left_s) < EXPORT_S ? $(left_s) : EXPORT_S))
    code=0
    [[ -f $bundle/manifest.json ]] ||
        within "$cap_s" "$VENV/bin/python" -m exporter default_ranker --out "$bundle" --precision "$precision" || code=$?
    case $code in
        0) bundles+=(--bundle "$precision=$bundle") && continue ;;
        124) why="not exported within $cap_s s" ;;
        *) why="could not be exported, exit code $code" ;;
    esac
    echo "gpu.sh: FAILED: the $precision bundle: $why" >&2
    failures+=(--not-exported "$precision=$why")
done
((${#bundles[@]})) || give_up "no bundle could be exported"

# In this shell's place, so that a signal reaches it: it ends the part at work and keeps what was measured.
exec "$VENV/bin/python" -m benchmarks.gpu "${bundles[@]}" "${failures[@]}" --provider cuda --budget-s "$(left_s)" --out "$OUT"

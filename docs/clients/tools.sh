#!/usr/bin/env bash
# What it takes to build the clients of this folder. As root on Debian it installs what is missing, else it names it and fails.
set -euo pipefail
missing=()
for tool in go g++ cmake protoc protoc-gen-go protoc-gen-go-grpc grpc_cpp_plugin node npm; do
    command -v "$tool" > /dev/null || missing+=("$tool")
done
for package in google.golang.org/grpc google.golang.org/protobuf; do
    [ -d "/usr/share/gocode/src/$package" ] || missing+=("$package")
done
[ -e /usr/include/grpcpp/grpcpp.h ] || missing+=(grpcpp)
[ ${#missing[@]} -gt 0 ] || exit 0

packages=(g++ cmake make golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go protoc-gen-go-grpc)
packages+=(libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc)
# Debian's npm and other builds of Node.js exclude each other.
command -v npm > /dev/null || packages+=(nodejs npm)
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    echo "installing what the example clients need and this machine lacks: ${missing[*]}"
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends --no-remove "${packages[@]}" > /dev/null
else
    cat >&2 << EOF
The example clients cannot be built here, for want of ${missing[*]}. On Debian 12:
    apt-get install --no-install-recommends ${packages[*]}
All tests but theirs:
    make setup vllm-env && .venv/bin/python -m pytest --ignore tests/clients
EOF
    exit 1
fi

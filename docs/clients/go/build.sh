#!/usr/bin/env bash
# Generates the stubs and builds the client against Debian's Go packages, without network: build.sh FOLDER makes FOLDER/client.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")"
mkdir -p "$out/src/pars-client"
# The .proto files name no Go package, so each is told its own; both come to lie in pars-client/pars/v1.
packages=Mpars/v1/bundle.proto=pars-client/pars/v1,Mpars/v1/ranker.proto=pars-client/pars/v1
protoc -I ../../../proto --go_out="$out/src/pars-client" --go_opt="paths=source_relative,$packages" \
    --go-grpc_out="$out/src/pars-client" --go-grpc_opt="paths=source_relative,$packages" pars/v1/bundle.proto pars/v1/ranker.proto
export GOCACHE="${GOCACHE:-$out/cache}"
GO111MODULE=off GOPATH="$out:/usr/share/gocode" go build -o "$out/client" .

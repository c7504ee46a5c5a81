#!/bin/sh
# Builds the C++ checks of csrc/checks with the address and undefined-behaviour sanitizers and runs them.
# Usage: scripts/sanitize.sh BUILD_FOLDER
set -eu
folder=${1:?a folder for the objects}
mkdir -p "$folder"
compiler=${CXX:-g++}
common="-std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -w"
. scripts/checks.sh

compile_kernels "$(uname -m)"
for program in $programs; do
    link "$program"
    "$folder/$program" ${FUZZ_ROUNDS:+"$FUZZ_ROUNDS"}
done

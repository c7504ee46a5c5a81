#!/bin/sh
# Builds the C++ checks of csrc/checks with the address and undefined-behaviour sanitizers and runs them.
# Usage: scripts/sanitize.sh BUILD_FOLDER
set -eu
folder=${1:?a folder for the objects}
cmake=${CMAKE:-cmake}
command -v "$cmake" >/dev/null || {
    echo "sanitize.sh: $cmake was not found. Remedy: pip install cmake, or name it: CMAKE=/path/to/cmake" >&2
    exit 2
}
mkdir -p "$folder"
"$cmake" -S . -B "$folder" -D LEANMATCH_CHECKS=ON -D LEANMATCH_OPTIMIZE=-O1 -D CMAKE_CXX_FLAGS_RELEASE=-O1 \
    -D CMAKE_CXX_FLAGS="-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -w" \
    -D LEANMATCH_FUZZ_ROUNDS="${FUZZ_ROUNDS:-3000}" >"$folder.log" || {
    cat "$folder.log" >&2
    exit 1
}
"$cmake" --build "$folder" --parallel "$(getconf _NPROCESSORS_ONLN)"
"$(dirname "$(command -v "$cmake")")/ctest" --test-dir "$folder" --output-on-failure

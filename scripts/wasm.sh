#!/bin/sh
# Builds the runtime of web pages with Clang for WebAssembly.
# Usage: scripts/wasm.sh BUILD_FOLDER [check]
#   without `check`: runs the C++ checks under Node, then copies both builds into the package, which commits them
#   check: only says whether the committed files are what these sources give
set -eu
folder=${1:?a folder for the objects}
cmake=${CMAKE:-cmake}
built=src/leanmatch/web/static
builds="leanmatch leanmatch-relaxed"
mkdir -p "$(dirname "$folder")" # for the log beside it
for tool in "${WASM_CXX:-clang++-19}" wasm-ld-19 wasm-opt "${NODE:-node}" "$cmake"; do
    command -v "$tool" >/dev/null || {
        echo "wasm.sh: $tool was not found. Debian, Ubuntu: apt install clang-19 lld-19 binaryen wasi-libc" \
            "libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32 nodejs; CMake: pip install cmake" >&2
        exit 2
    }
done
"$cmake" -S . -B "$folder" -D CMAKE_TOOLCHAIN_FILE="$PWD/cmake/wasm32-wasi.cmake" -D LEANMATCH_CHECKS=ON \
    -D CMAKE_BUILD_TYPE=Release >"$folder.log" || {
    cat "$folder.log" >&2
    exit 1
}
jobs=$(getconf _NPROCESSORS_ONLN)
if [ "${2:-}" = check ]; then
    for build in $builds; do
        "$cmake" --build "$folder" --parallel "$jobs" --target "$build"
        cmp "$folder/$build.wasm" "$built/$build.wasm" || {
            echo "wasm.sh: $built/$build.wasm was not built from these sources by this compiler. Run: make web" >&2
            exit 1
        }
    done
else
    "$cmake" --build "$folder" --parallel "$jobs"
    "$(dirname "$(command -v "$cmake")")/ctest" --test-dir "$folder" --output-on-failure --verbose
    mkdir -p "$built"
    for build in $builds; do cp "$folder/$build.wasm" "$built/$build.wasm"; done
fi

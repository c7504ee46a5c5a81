#!/bin/sh
# Builds the runtime of web pages and the C++ checks with Clang for WebAssembly, and runs the checks under Node.
# Usage: scripts/wasm.sh BUILD_FOLDER [check]
#   without `check`: copies leanmatch.wasm into the package, which commits it
#   check: says whether the committed file is what these sources give
set -eu
folder=${1:?a folder for the objects}
cmake=${CMAKE:-cmake}
built=src/leanmatch/web/static/leanmatch.wasm
for tool in "${WASM_CXX:-clang++-19}" wasm-ld-19 "${NODE:-node}" "$cmake"; do
    command -v "$tool" >/dev/null || {
        echo "wasm.sh: $tool was not found. Debian, Ubuntu: apt install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32" \
            "libc++-19-dev-wasm32 nodejs; CMake: pip install cmake" >&2
        exit 2
    }
done
"$cmake" -S . -B "$folder" -D CMAKE_TOOLCHAIN_FILE="$PWD/cmake/wasm32-wasi.cmake" -D LEANMATCH_CHECKS=ON \
    -D CMAKE_BUILD_TYPE=Release -D LEANMATCH_LINEAR_ROUNDS=1 >"$folder.log" || {
    cat "$folder.log" >&2
    exit 1
}
"$cmake" --build "$folder" --parallel "$(getconf _NPROCESSORS_ONLN)"
"$(dirname "$(command -v "$cmake")")/ctest" --test-dir "$folder" --output-on-failure --verbose
if [ "${2:-}" = check ]; then
    cmp "$folder/leanmatch.wasm" "$built" || {
        echo "wasm.sh: $built was not built from these sources by this compiler. Run: make web" >&2
        exit 1
    }
else
    mkdir -p "$(dirname "$built")"
    cp "$folder/leanmatch.wasm" "$built"
fi

#!/bin/sh
# Builds the C++ checks of csrc/checks for AArch64 with a cross compiler and runs them under qemu-user: on an emulated CPU
# without dot products (Cortex-A53), then on one with them (Neoverse N1), so that the probe is tested too. Results are
# checked, nothing is timed: an emulator's speed says nothing about any machine's.
# Usage: scripts/arm.sh BUILD_FOLDER [quick]; quick: check_linear, check_ops, check_scan only, which measure every kernel
set -eu
folder=${1:?a folder for the objects}
cmake=${CMAKE:-cmake}
mkdir -p "$(dirname "$folder")" # for the log beside it
for tool in "${AARCH64_CXX:-aarch64-linux-gnu-g++}" "${QEMU_AARCH64:-qemu-aarch64}" "$cmake"; do
    command -v "$tool" >/dev/null || {
        echo "arm.sh: $tool was not found. Debian, Ubuntu: apt install g++-aarch64-linux-gnu qemu-user; CMake: pip install cmake" >&2
        exit 2
    }
done
optimize=-O3
rounds=5
targets=all
chosen=.
if [ "${2:-}" = quick ]; then
    optimize=-O1
    rounds=1
    targets="check_linear check_ops check_scan"
    chosen=check_
fi
# Code that only another architecture uses is an error: it was a warning once.
"$cmake" -S . -B "$folder" -D CMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux-gnu.cmake" -D LEANMATCH_CHECKS=ON \
    -D CMAKE_CXX_FLAGS="-Werror=unused" -D LEANMATCH_OPTIMIZE="$optimize" -D LEANMATCH_LINEAR_ROUNDS="$rounds" \
    -D LEANMATCH_FUZZ_ROUNDS="${FUZZ_ROUNDS:-3000}" -D CMAKE_CXX_FLAGS_RELEASE="$optimize" >"$folder.log" || {
    cat "$folder.log" >&2
    exit 1
}
# shellcheck disable=SC2086
"$cmake" --build "$folder" --parallel "$(getconf _NPROCESSORS_ONLN)" --target $targets
"$(dirname "$(command -v "$cmake")")/ctest" --test-dir "$folder" --tests-regex "$chosen" --output-on-failure --verbose

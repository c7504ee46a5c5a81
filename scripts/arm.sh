#!/bin/sh
# Builds the C++ checks of csrc/checks for AArch64 with a cross compiler and runs them under qemu-user: on an emulated CPU
# without dot products (Cortex-A53), then on one with them (Neoverse N1), so that the probe is tested too. Results are
# checked, nothing is timed: an emulator's speed says nothing about any machine's.
# Usage: scripts/arm.sh BUILD_FOLDER [quick]
set -eu
folder=${1:?a folder for the objects}
compiler=${AARCH64_CXX:-aarch64-linux-gnu-g++}
emulator=${QEMU_AARCH64:-qemu-aarch64}
for tool in "$compiler" "$emulator"; do
    command -v "$tool" >/dev/null || {
        echo "arm.sh: $tool was not found. Debian, Ubuntu: apt install g++-aarch64-linux-gnu qemu-user" >&2
        exit 2
    }
done
mkdir -p "$folder"
# Static: no AArch64 library is needed at run time. Warnings count here, as no AArch64 machine builds this regularly.
common="-std=c++17 -O3 -Wall -Wextra -Werror -static"
case ${2:-} in
quick) linear_rounds=1 fuzz_rounds=${FUZZ_ROUNDS:-300} ;;
*) linear_rounds=5 fuzz_rounds=${FUZZ_ROUNDS:-3000} ;;
esac
. scripts/checks.sh

compile_kernels aarch64
for program in $programs; do link "$program"; done

run() { # CPU LEVELS: those that must run on it, no more and no fewer
    for program in $programs; do
        case $program in
        sanitize_encoder) [ "${3:-}" != quick ] || continue ;; # slow under emulation; check_ops and check_linear have run
        esac
        case $program in
        check_linear) rounds=$linear_rounds ;;
        fuzz_packing) rounds=$fuzz_rounds ;;
        *) rounds= ;;
        esac
        said=$("$emulator" -cpu "$1" "$folder/$program" ${rounds:+"$rounds"}) || { echo "$said"; exit 1; }
        echo "$1: $said"
        case $program in
        check_*)
            [ "${said##*levels: }" = "$2" ] || { echo "arm.sh: on $1 the levels must be: $2" >&2; exit 1; }
            ;;
        esac
    done
}
run cortex-a53 "portable neon" "${2:-}"
run neoverse-n1 "portable neon neon_dotprod" "${2:-}"

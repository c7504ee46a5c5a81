#!/bin/sh
# Builds the C++ checks of csrc/checks for AArch64 with a cross compiler and runs them under qemu-user: on an emulated CPU
# without dot products (Cortex-A53), then on one with them (Neoverse N1), so that the probe is tested too. Results are
# checked, nothing is timed: an emulator's speed says nothing about any machine's.
# Usage: scripts/arm.sh BUILD_FOLDER [quick]; quick: check_linear, check_ops, check_scan only, which measure every kernel
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
. scripts/checks.sh
optimization=-O3 # as CMakeLists.txt compiles kernels
linear_rounds=5
if [ "${2:-}" = quick ]; then
    optimization=-O1
    linear_rounds=1
    programs="check_linear check_ops check_scan"
    sources=${sources%encoder/encoder*}
fi
# Static: no AArch64 library is needed at run time. Code that only another architecture uses is an error: it was a warning once.
common="-std=c++17 $optimization -Wall -Wextra -Werror=unused -static"
compile_kernels aarch64
for program in $programs; do link "$program"; done

run() { # CPU LEVELS SCAN: the levels that must run on it, no more and no fewer; that of the scan
    for program in $programs; do
        rounds=
        case $program in
        check_linear) rounds=$linear_rounds ;;
        fuzz_packing) rounds=${FUZZ_ROUNDS:-3000} ;;
        esac
        said=$("$emulator" -cpu "$1" "$folder/$program" ${rounds:+"$rounds"}) || {
            echo "arm.sh: on $1, $program failed: $said" >&2
            exit 1
        }
        echo "$1: $said"
        case $program in
        check_scan)
            [ "${said##*levels: }" = "$3" ] || {
                echo "arm.sh: on $1 the scan must run at: $3" >&2
                exit 1
            }
            ;;
        check_*)
            [ "${said##*levels: }" = "$2" ] || {
                echo "arm.sh: on $1 the levels must be: $2" >&2
                exit 1
            }
            ;;
        esac
    done
}
run cortex-a53 "portable neon" none
run neoverse-n1 "portable neon neon_dotprod" neon_dotprod

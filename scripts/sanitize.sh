#!/bin/sh
# Builds the C++ checks of csrc/checks with the address and undefined-behaviour sanitizers and runs them.
# Usage: scripts/sanitize.sh BUILD_FOLDER
set -eu
folder=${1:?a folder for the objects}
mkdir -p "$folder"
compiler=${CXX:-g++}
common="-std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -w"
avx2="-mavx2 -mfma -mf16c"
avx512="-mavx512f -mavx512bw -mavx512dq -mavx512vl $avx2"
objects=""

compile() { # FLAGS FILE
    object="$folder/$(basename "$2" .cpp).o"
    # shellcheck disable=SC2086
    if [ ! -e "$object" ] || [ -n "$(find csrc \( -name '*.h' -o -path "$2" \) -newer "$object" | head -n 1)" ]; then
        "$compiler" $common $1 -c "$2" -o "$object"
    fi
    objects="$objects $object"
}

amx="-mamx-tile -mamx-int8 -mamx-bf16"
if echo "int f;" | "$compiler" $amx -x c++ -fsyntax-only - 2>/dev/null; then common="$common -DLEANMATCH_AMX_KERNELS=1"; else amx=""; fi

for file in csrc/cpu_features.cpp csrc/linear/linear.cpp csrc/linear/dense.cpp csrc/linear/sparse.cpp \
    csrc/linear/sparse_i8.cpp csrc/linear/peaks.cpp csrc/linear/portable.cpp csrc/encoder/encoder.cpp \
    csrc/encoder/network.cpp csrc/encoder/pool.cpp csrc/encoder/table.cpp csrc/encoder/ops_portable.cpp; do
    compile "" "$file"
done
case $(uname -m) in
x86_64 | amd64)
    for file in linear/avx2 linear/peaks_avx2 encoder/ops_avx2; do compile "$avx2" "csrc/$file.cpp"; done
    for file in linear/avx512 linear/peaks_avx512 encoder/ops_avx512; do compile "$avx512" "csrc/$file.cpp"; done
    for file in vnni vbmi; do compile "$avx512 -mavx512vbmi -mavx512vnni" "csrc/linear/$file.cpp"; done
    if [ -n "$amx" ]; then compile "$avx512 -mavx512vbmi -mavx512vnni -mavx512bf16 $amx" csrc/linear/amx.cpp; fi
    for file in linear/bf16 encoder/attention_bf16; do compile "$avx512 -mavx512bf16" "csrc/$file.cpp"; done
    ;;
esac
kernels=$objects
for program in sanitize_linear sanitize_encoder fuzz_packing; do
    objects=$kernels
    compile "" "csrc/checks/$program.cpp"
    # shellcheck disable=SC2086
    "$compiler" $common $objects -pthread -o "$folder/$program"
    "$folder/$program" ${FUZZ_ROUNDS:+"$FUZZ_ROUNDS"}
done

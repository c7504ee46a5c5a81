# Sourced by sanitize.sh and arm.sh: building the C++ programs of csrc/checks, which need no Python.
#   folder    where objects and programs go
#   compiler  and `common`, its flags for every file
objects=""
programs="check_linear check_ops check_scan sanitize_linear sanitize_encoder fuzz_packing"
sources="cpu_features linear/linear linear/dense linear/sparse linear/sparse_i8 linear/peaks linear/portable encoder/ops
    encoder/ops_portable scan/codes encoder/encoder encoder/network encoder/pool encoder/table"

compile() { # FLAGS FILE; leaves its object in $objects
    object="$folder/$(echo "${2%.cpp}" | tr / _).o"
    # shellcheck disable=SC2086
    if [ ! -e "$object" ] || [ -n "$(find csrc \( -name '*.h' -o -path "$2" \) -newer "$object" | head -n 1)" ]; then
        "$compiler" $common $1 -c "$2" -o "$object"
    fi
    objects="$objects $object"
}

compile_kernels() { # ARCHITECTURE, as `uname -m` names it; flags are those of CMakeLists.txt
    amx="-mamx-tile -mamx-int8 -mamx-bf16"
    # shellcheck disable=SC2086
    if echo "int f;" | "$compiler" $amx -x c++ -fsyntax-only - 2>/dev/null; then
        common="$common -DLEANMATCH_AMX_KERNELS=1"
    else
        amx="" # an older compiler, or another architecture's
    fi
    for file in $sources; do compile "" "csrc/$file.cpp"; done
    avx2="-mavx2 -mfma -mf16c"
    avx512="-mavx512f -mavx512bw -mavx512dq -mavx512vl $avx2"
    case $1 in
    x86_64 | amd64)
        for file in linear/avx2 linear/peaks_avx2 encoder/ops_avx2; do compile "$avx2" "csrc/$file.cpp"; done
        for file in linear/avx512 linear/peaks_avx512 encoder/ops_avx512; do compile "$avx512" "csrc/$file.cpp"; done
        for file in linear/vnni linear/vbmi scan/vnni; do
            compile "$avx512 -mavx512vbmi -mavx512vnni" "csrc/$file.cpp"
        done
        if [ -n "$amx" ]; then compile "$avx512 -mavx512vbmi -mavx512vnni -mavx512bf16 $amx" csrc/linear/amx.cpp; fi
        for file in linear/bf16 encoder/attention_bf16; do compile "$avx512 -mavx512bf16" "csrc/$file.cpp"; done
        ;;
    aarch64 | arm64)
        for file in linear/neon encoder/ops_neon; do compile "" "csrc/$file.cpp"; done
        for file in linear/neon_dotprod linear/neon_tables scan/neon; do
            compile "-march=armv8.2-a+dotprod" "csrc/$file.cpp"
        done
        ;;
    esac
}

link() { # PROGRAM: from its file of csrc/checks and the kernels
    kernels=$objects
    compile "" "csrc/checks/$1.cpp"
    # shellcheck disable=SC2086
    "$compiler" $common $objects -pthread -o "$folder/$1"
    objects=$kernels
}

// WebAssembly's 128-bit SIMD: 8 codes are widened as they are loaded and multiplied by the query's 16-bit numbers. Four rows
// at a time share the loads of the query.
#include <wasm_simd128.h>

#include "kernel.h"

namespace leanmatch {
namespace scan {
namespace {

template <int R>
inline void sums_of(const int8_t* codes, int stride, const int16_t* query, int32_t* sums) {
    v128_t total[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) total[r] = wasm_i32x4_const_splat(0);
    for (int j = 0; j < stride; j += 16) {
        const v128_t low = wasm_v128_load(query + j), high = wasm_v128_load(query + j + 8);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const int8_t* row = codes + size_t(r) * size_t(stride) + j;
            total[r] = wasm_i32x4_add(total[r], wasm_i32x4_dot_i16x8(low, wasm_i16x8_load8x8(row)));
            total[r] = wasm_i32x4_add(total[r], wasm_i32x4_dot_i16x8(high, wasm_i16x8_load8x8(row + 8)));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
        sums[r] = wasm_i32x4_extract_lane(total[r], 0) + wasm_i32x4_extract_lane(total[r], 1) +
                  wasm_i32x4_extract_lane(total[r], 2) + wasm_i32x4_extract_lane(total[r], 3);
}

}  // namespace

void scaled_sums_wasm(const int8_t* codes, int stride, int rows, const int16_t* query, int32_t* sums) {
    int row = 0;
    for (; row + 4 <= rows; row += 4) sums_of<4>(codes + size_t(row) * size_t(stride), stride, query, sums + row);
    for (; row < rows; row++) sums_of<1>(codes + size_t(row) * size_t(stride), stride, query, sums + row);
}

}  // namespace scan
}  // namespace leanmatch

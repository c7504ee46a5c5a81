// The encoder's kernels with WebAssembly's 128-bit SIMD: vectors of four floats, without fused multiply-adds.
#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#include "ops.h"

namespace leanmatch {
namespace encoder {
namespace {

constexpr size_t W = 4;
using V = v128_t;

inline V splat(float a) { return wasm_f32x4_splat(a); }
inline V load(const float* p) { return wasm_v128_load(p); }
inline V load_part(const float* p, size_t n) {
    float part[W] = {0.0f, 0.0f, 0.0f, 0.0f};
    memcpy(part, p, n * sizeof(float));
    return wasm_v128_load(part);
}
inline V load_i8(const int8_t* p) {
    return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p))));
}
inline void store(float* p, V a) { wasm_v128_store(p, a); }
inline void store_part(float* p, V a, size_t n) {
    float part[W];
    wasm_v128_store(part, a);
    memcpy(p, part, n * sizeof(float));
}
inline V add(V a, V b) { return wasm_f32x4_add(a, b); }
inline V sub(V a, V b) { return wasm_f32x4_sub(a, b); }
inline V mul(V a, V b) { return wasm_f32x4_mul(a, b); }
inline V div(V a, V b) { return wasm_f32x4_div(a, b); }
// pmin(b, a) is a < b ? a : b: the second operand where either is NaN, as at the other levels.
inline V min(V a, V b) { return wasm_f32x4_pmin(b, a); }
inline V max(V a, V b) { return wasm_f32x4_pmax(b, a); }
inline V fma(V a, V b, V c) { return wasm_f32x4_add(wasm_f32x4_mul(a, b), c); }
inline V round_(V a) { return wasm_f32x4_nearest(a); }
inline V scale_by_power(V a, V n) {  // a * 2^n for whole n in [-126, 127]
    const V exponent = wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_const_splat(127));
    return wasm_f32x4_mul(a, wasm_i32x4_shl(exponent, 23));
}
inline V zero_below(V a, V x, V limit) { return wasm_v128_and(a, wasm_f32x4_ge(x, limit)); }
inline float sum(V a) {
    return (wasm_f32x4_extract_lane(a, 0) + wasm_f32x4_extract_lane(a, 2)) +
           (wasm_f32x4_extract_lane(a, 1) + wasm_f32x4_extract_lane(a, 3));
}
inline float largest(V a) {
    const V half = max(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(max(half, wasm_i32x4_shuffle(half, half, 1, 0, 3, 2)), 0);
}

#include "body.h"

}  // namespace

const Ops& ops_wasm() { return kOps; }

}  // namespace encoder
}  // namespace leanmatch

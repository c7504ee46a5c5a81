// The vector type of vector_math.inc.h for WebAssembly. Included inside an anonymous namespace; no include guard.
using V = v128_t;
constexpr int kWidth = 4;

inline V load(const float* p) { return wasm_v128_load(p); }
inline V load_part(const float* p, int count) {
    float part[kWidth] = {0.0f, 0.0f, 0.0f, 0.0f};
    memcpy(part, p, sizeof(float) * size_t(count));
    return wasm_v128_load(part);
}
inline void store(float* p, V a) { wasm_v128_store(p, a); }
inline void store_part(float* p, V a, int count) {
    float part[kWidth];
    wasm_v128_store(part, a);
    memcpy(p, part, sizeof(float) * size_t(count));
}
inline V set1(float f) { return wasm_f32x4_splat(f); }
inline V zero() { return wasm_f32x4_const_splat(0.0f); }
inline V add(V a, V b) { return wasm_f32x4_add(a, b); }
inline V mul(V a, V b) { return wasm_f32x4_mul(a, b); }
inline V fma(V a, V b, V c) { return wasm_f32x4_add(wasm_f32x4_mul(a, b), c); }
// pmin(b, a) is a < b ? a : b, the second operand where either is NaN; x86 has one instruction for it.
inline V vmin(V a, V b) { return wasm_f32x4_pmin(b, a); }
inline V vmax(V a, V b) { return wasm_f32x4_pmax(b, a); }

// The vector type of vector_math.inc.h for NEON. Included inside an anonymous namespace; no include guard.
using V = float32x4_t;
constexpr int kWidth = 4;

inline V load(const float* p) { return vld1q_f32(p); }
inline V load_part(const float* p, int count) {
    float part[kWidth] = {0.0f, 0.0f, 0.0f, 0.0f};
    memcpy(part, p, sizeof(float) * size_t(count));
    return vld1q_f32(part);
}
inline void store(float* p, V a) { vst1q_f32(p, a); }
inline void store_part(float* p, V a, int count) {
    float part[kWidth];
    vst1q_f32(part, a);
    memcpy(p, part, sizeof(float) * size_t(count));
}
inline V set1(float f) { return vdupq_n_f32(f); }
inline V zero() { return vdupq_n_f32(0.0f); }
inline V add(V a, V b) { return vaddq_f32(a, b); }
inline V mul(V a, V b) { return vmulq_f32(a, b); }
inline V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
// Not vminq_f32, vmaxq_f32: they give NaN where either operand is one, x86 gives the second operand.
inline V vmin(V a, V b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline V vmax(V a, V b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

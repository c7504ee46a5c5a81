// The encoder's kernels for NEON: vectors of four floats. Every AArch64 has them; no machine has timed them.
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "ops.h"

namespace leanmatch {
namespace encoder {
namespace {

constexpr size_t W = 4;
using V = float32x4_t;

inline V splat(float a) { return vdupq_n_f32(a); }
inline V load(const float* p) { return vld1q_f32(p); }
inline V load_part(const float* p, size_t n) {
    float part[W] = {0.0f, 0.0f, 0.0f, 0.0f};
    memcpy(part, p, n * sizeof(float));
    return vld1q_f32(part);
}
inline V load_i8(const int8_t* p) {
    int32_t four;
    memcpy(&four, p, sizeof(four));
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
inline void store(float* p, V a) { vst1q_f32(p, a); }
inline void store_part(float* p, V a, size_t n) {
    float part[W];
    vst1q_f32(part, a);
    memcpy(p, part, n * sizeof(float));
}
inline V add(V a, V b) { return vaddq_f32(a, b); }
inline V sub(V a, V b) { return vsubq_f32(a, b); }
inline V mul(V a, V b) { return vmulq_f32(a, b); }
inline V div(V a, V b) { return vdivq_f32(a, b); }
// Not vminq_f32, vmaxq_f32: they give NaN where either operand is one, the other levels give the second operand.
inline V min(V a, V b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline V max(V a, V b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
inline V round_(V a) { return vrndnq_f32(a); }
inline V scale_by_power(V a, V n) {  // a * 2^n for whole n in [-126, 127]
    const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}
inline V zero_below(V a, V x, V limit) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vcgeq_f32(x, limit)));
}
inline float sum(V a) { return vaddvq_f32(a); }
inline float largest(V a) { return vmaxvq_f32(a); }

#include "body.h"

}  // namespace

const Ops& ops_neon() { return kOps; }

}  // namespace encoder
}  // namespace leanmatch

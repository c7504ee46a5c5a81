// The fp32 linear paths with NEON: vectors of 4 floats; rounding of activations to 8 bits; int8 by smull.
//
// Registers (32): the dense micro-kernel has 6 tokens x 4 vectors of rows in sums, 4 of weights, 1 of a token's input;
// stage 1 of dense_sparse_f32 4 atoms x 4 vectors of tokens in sums, 4 of inputs, 1 atom. A step of the dense one is 24
// fmla, 4 loads and 6 broadcasting loads. These are counts: no ARM machine has timed them.
//
// int8: smull gives products in int16, addp adds neighbours, sadalp adds neighbours of those to int32: 4 instructions for
// 16 products. Activations are u - 128, from -128 to 127, weights -127 to 127: two products are at most 2 * 128 * 127 =
// 32512 in size, which int16 holds, so the sums are exact as long as int32 is (neon_i8.inc.h).
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "neon_vectors.inc.h"

inline void transpose(V* r) {
    const V even0 = vtrn1q_f32(r[0], r[1]), odd0 = vtrn2q_f32(r[0], r[1]);
    const V even1 = vtrn1q_f32(r[2], r[3]), odd1 = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(even0), vget_low_f32(even1));
    r[1] = vcombine_f32(vget_low_f32(odd0), vget_low_f32(odd1));
    r[2] = vcombine_f32(vget_high_f32(even0), vget_high_f32(even1));
    r[3] = vcombine_f32(vget_high_f32(odd0), vget_high_f32(odd1));
}

constexpr int kTokens = 6, kPanel = 4, kAtoms = 4;
static_assert(kDenseF32Neon.lanes == kWidth && kDenseF32Neon.panel == kPanel, "packed for this kernel");
#include "linear/kernels/vector_math.inc.h"
#include "linear/kernels/f32.inc.h"

// Four inputs of a token, those of lane `L`, for every row.
template <int L>
inline int8x16_t pick(int8x16_t x) {
    return vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), L));
}
template <int L>
inline int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t picked) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(picked)), high = vmull_high_s8(w, picked);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}
#include "neon_i8.inc.h"

}  // namespace

void dense_f32_neon(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    dense_f32(w, x, T, y, tail);
}

void dense_sparse_f32_neon(const SparseF32& w, const float* x, int T, float* y, const Tail& tail, float* scratch) {
    dense_sparse_f32(w, x, T, y, tail, scratch);
}

void dense_i8_neon(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    dense_i8(w, x, T, y, tail);
}

void quantize_rows_neon(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero_point,
                        size_t stride) {
    for (int t = 0; t < T; t++, x += n, values += stride) {
        V low = zero(), high = zero(), poison = zero();
        for (int j = 0; j < n; j += kWidth) {
            const V v = n - j >= kWidth ? load(x + j) : load_part(x + j, n - j);
            low = vmin(low, v);
            high = vmax(high, v);
            poison = fma(v, zero(), poison);  // NaN once there is a NaN or an infinity
        }
        const float bad = vaddvq_f32(poison), least = vminvq_f32(low), most = vmaxvq_f32(high);
        const float step = most / 255.0f - least / 255.0f;
        const bool flat = !(step > 1e-30f / 255.0f) || bad != 0.0f;
        const float inverse = flat ? 0.0f : 1.0f / step;
        zero_point[t] = int32_t(nearbyintf(flat ? 0.0f : -least * inverse));
        scale[t] = bad != 0.0f ? bad : flat ? 0.0f : step;
        memset(values, 0, stride);
        if (flat) continue;
        const int32x4_t offset = vdupq_n_s32(zero_point[t]);
        for (int j = 0; j < n; j += kWidth) {
            const int count = n - j < kWidth ? n - j : kWidth;
            const V v = count == kWidth ? load(x + j) : load_part(x + j, count);
            const int32x4_t u = vaddq_s32(vcvtnq_s32_f32(mul(v, set1(inverse))), offset);
            const uint16x4_t words = vqmovun_s32(u);
            uint8_t bytes[8];
            vst1_u8(bytes, vqmovn_u16(vcombine_u16(words, words)));
            memcpy(values + j, bytes, size_t(count));
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

// Every linear path without any instruction-set extension: vectors of four floats that a compiler maps to what the
// ABI has (SSE2, NEON), and plain loops for the integer ones.
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

constexpr int kWidth = 4;
struct V {
    float v[kWidth];
};

template <class F>
inline V each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}
inline V load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline V load_part(const float* p, int count) {
    return each([&](int i) { return i < count ? p[i] : 0.0f; });
}
inline void store(float* p, V a) { memcpy(p, a.v, sizeof(a.v)); }
inline void store_part(float* p, V a, int count) { memcpy(p, a.v, sizeof(float) * size_t(count)); }
inline V set1(float f) { return {{f, f, f, f}}; }
inline V zero() { return set1(0.0f); }
inline V add(V a, V b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline V mul(V a, V b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline V fma(V a, V b, V c) {
    return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline V vmin(V a, V b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline V vmax(V a, V b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline void transpose(V* rows) {
    for (int i = 0; i < kWidth; i++)
        for (int j = 0; j < i; j++) {
            const float swapped = rows[i].v[j];
            rows[i].v[j] = rows[j].v[i];
            rows[j].v[i] = swapped;
        }
}

constexpr int kTokens = 4, kPanel = 2, kAtoms = 2;
static_assert(kDenseF32Portable.lanes == kWidth && kDenseF32Portable.panel == kPanel, "packed for this kernel");
#include "vector_math.inc.h"
#include "f32.inc.h"

}  // namespace

void dense_f32_portable(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    dense_f32(w, x, T, y, tail);
}

void dense_sparse_f32_portable(const SparseF32& w, const float* x, int T, float* y, const Tail& tail,
                               float* scratch) {
    dense_sparse_f32(w, x, T, y, tail, scratch);
}

void quantize_rows_portable(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero,
                            size_t stride) {
    for (int t = 0; t < T; t++, x += n, values += stride) {
        float low = 0.0f, high = 0.0f, poison = 0.0f;
        for (int j = 0; j < n; j++) {
            low = x[j] < low ? x[j] : low;
            high = x[j] > high ? x[j] : high;
            poison += x[j] * 0.0f;  // NaN once there is a NaN or an infinity
        }
        const float step = high / 255.0f - low / 255.0f;
        const bool flat = !(step > 1e-30f / 255.0f) || poison != 0.0f;
        const float inverse = flat ? 0.0f : 1.0f / step;
        zero[t] = int32_t(nearbyintf(flat ? 0.0f : -low * inverse));
        scale[t] = poison != 0.0f ? poison : flat ? 0.0f : step;
        memset(values, 0, stride);
        if (flat) continue;
        const float offset = float(zero[t]);
        for (int j = 0; j < n; j++) {
            const float u = nearbyintf(x[j] * inverse) + offset;
            values[j] = uint8_t(u < 0.0f ? 0.0f : u > 255.0f ? 255.0f : u);
        }
    }
}

void dense_i8_portable(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    const int8_t* q = static_cast<const int8_t*>(w.packed);
    for (int t = 0; t < T; t++) {
        const uint8_t* u = x.values + size_t(t) * x.stride;
        const size_t at = size_t(t) * size_t(w.m);
        for (int i = 0; i < w.m; i++) {
            const int8_t* row = q + size_t(i) * size_t(w.n);
            int32_t sum = 0;
            for (int j = 0; j < w.n; j++) sum += int32_t(u[j]) * int32_t(row[j]);
            const float exact = float(sum - x.zero[t] * w.row_sum[i]);
            const V v = set1(exact * (w.scale[i] * x.scale[t]) + tail.bias[i]);
            put<false>(y + at + i, tail.residual ? tail.residual + at + i : nullptr, v, tail.activation, 1);
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

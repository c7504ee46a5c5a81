// The fp32 linear paths with AVX-512: vectors of 16 floats.
#include <immintrin.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"

inline V pairs_low(V a, V b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
inline V pairs_high(V a, V b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

inline void transpose(V* r) {
    V a[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {  // r[4 i + c]: column c (mod 4) of rows 4 i to 4 i + 3, in each 128-bit lane
        r[4 * i] = pairs_low(a[4 * i], a[4 * i + 2]);
        r[4 * i + 1] = pairs_high(a[4 * i], a[4 * i + 2]);
        r[4 * i + 2] = pairs_low(a[4 * i + 1], a[4 * i + 3]);
        r[4 * i + 3] = pairs_high(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int c = 0; c < 4; c++) {
        const V even0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                odd0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const V even1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const V odd1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        a[c] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        a[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        a[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        a[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
    for (int i = 0; i < 16; i++) r[i] = a[i];
}

constexpr int kTokens = 6, kPanel = 4, kAtoms = 4;
static_assert(kDenseF32Avx512.lanes == kWidth && kDenseF32Avx512.panel == kPanel, "packed for this kernel");
#include "linear/kernels/vector_math.inc.h"
#include "linear/kernels/f32.inc.h"

}  // namespace

void dense_f32_avx512(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    dense_f32(w, x, T, y, tail);
}

void dense_sparse_f32_avx512(const SparseF32& w, const float* x, int T, float* y, const Tail& tail,
                             float* scratch) {
    dense_sparse_f32(w, x, T, y, tail, scratch);
}

}  // namespace linear
}  // namespace leanmatch

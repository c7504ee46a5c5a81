// Dense bf16 with AVX512-BF16: x and W rounded to bf16 (nearest even), products added in fp32 two at a time.
#include <immintrin.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kTokens = 6, kPanel = 4;
static_assert(kDenseBf16.lanes == 16 && kDenseBf16.panel == kPanel && kDenseBf16.depth == 2, "packed for this");

inline __m512bh as_bf16(__m512i v) {
    __m512bh out;
    memcpy(&out, &v, sizeof(out));
    return out;
}

template <int TT, int PP>
void tile(const Dense& w, const uint16_t* weights, int row, const uint16_t* x, size_t stride, float* y,
          const Tail& tail, int token) {
    V sum[TT][PP];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) sum[t][p] = zero();
    const uint16_t* u = x + size_t(token) * stride;
    for (int j = 0; j < w.n; j += 2, weights += PP * 32, u += 2) {
        __m512bh wv[PP];
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) wv[p] = as_bf16(_mm512_loadu_si512(weights + p * 32));
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            int32_t two;
            memcpy(&two, u + size_t(t) * stride, 4);
            const __m512bh uv = as_bf16(_mm512_set1_epi32(two));
            LEANMATCH_UNROLL
            for (int p = 0; p < PP; p++) sum[t][p] = _mm512_dpbf16_ps(sum[t][p], uv, wv[p]);
        }
    }
    alignas(64) float sums[TT * PP][16];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) {
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) _mm512_store_ps(sums[t * PP + p], sum[t][p]);
    }
    for (int p = 0; p < PP; p++) {
        const int first = row + p * 16;
        const V bias = load(tail.bias + first);
        for (int t = 0; t < TT; t++) {
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(first);
            put<true>(y + at, tail.residual ? tail.residual + at : nullptr, add(load(sums[t * PP + p]), bias),
                      tail.activation, w.m - first);
        }
    }
}

template <int PP, int TT = kTokens>
void tokens(int count, const Dense& w, const uint16_t* weights, int row, const uint16_t* x, size_t stride,
            float* y, const Tail& tail, int token) {
    if constexpr (TT > 1) {
        if (count < TT) return tokens<PP, TT - 1>(count, w, weights, row, x, stride, y, tail, token);
    }
    tile<TT, PP>(w, weights, row, x, stride, y, tail, token);
}

template <int PP = kPanel>
void panel(int groups, const Dense& w, const uint16_t* weights, int row, const uint16_t* x, size_t stride, int T,
           float* y, const Tail& tail) {
    if constexpr (PP > 1) {
        if (groups < PP) return panel<PP - 1>(groups, w, weights, row, x, stride, T, y, tail);
    }
    for (int t = 0; t < T; t += kTokens) tokens<PP>(T - t, w, weights, row, x, stride, y, tail, t);
}

}  // namespace

void dense_bf16_avx512(const Dense& w, const float* x, int T, float* y, const Tail& tail, uint16_t* scratch) {
    const size_t stride = size_t(w.n + w.n % 2), n = size_t(w.n);
    for (size_t t = 0; t < size_t(T); t++)
        for (size_t j = 0; j < stride; j += 16) {
            const int count = int(n - j), room = int(stride - j);
            const __m256bh rounded = _mm512_cvtneps_pbh(load_part(x + t * n + j, count));
            __m256i bits;
            memcpy(&bits, &rounded, sizeof(bits));
            _mm256_mask_storeu_epi16(scratch + t * stride + j, lanes_below(room), bits);
        }
    const int groups = (w.m + 15) / 16;
    for (int g = 0; g < groups; g += kPanel)
        panel(groups - g, w, static_cast<const uint16_t*>(w.packed) + size_t(g) * 16 * stride, g * 16, scratch,
              stride, T, y, tail);
}

}  // namespace linear
}  // namespace leanmatch

// Dense int8 with AVX-512 VNNI, and the quantization of activations to 8 bits.
//
// Micro-kernel: 6 tokens x 64 rows, 24 sums in registers. A step of 4 inputs takes 4 loads of weights, 6 broadcast
// loads of activations and 24 vpdpbusd, so that the multiplier alone limits it (one 512-bit vpdpbusd a cycle on Zen 4).
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "vector_math.inc.h"

constexpr int kTokens = 6, kPanel = 4;
static_assert(kDenseI8Vnni.lanes == 16 && kDenseI8Vnni.panel == kPanel && kDenseI8Vnni.depth == 4, "packed for this");

template <int TT, int PP>
void tile(const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y, const Tail& tail, int token) {
    __m512i sum[TT][PP];
    LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) {
        const __m512i row_sum = _mm512_loadu_si512(w.row_sum + row + p * 16);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++)
            sum[t][p] = _mm512_sub_epi32(_mm512_setzero_si512(),
                                         _mm512_mullo_epi32(row_sum, _mm512_set1_epi32(x.zero[token + t])));
    }
    const uint8_t* u = x.values + size_t(token) * x.stride;
    for (int j = 0; j < w.n; j += 4, weights += PP * 64, u += 4) {
        __m512i wv[PP];
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) wv[p] = _mm512_loadu_si512(weights + p * 64);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            int32_t four;
            memcpy(&four, u + size_t(t) * x.stride, 4);
            const __m512i uv = _mm512_set1_epi32(four);
            LEANMATCH_UNROLL
            for (int p = 0; p < PP; p++) dpbusd(sum[t][p], uv, wv[p]);
        }
    }
    alignas(64) int32_t sums[TT * PP][16];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) {
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) _mm512_store_si512(sums[t * PP + p], sum[t][p]);
    }
    for (int p = 0; p < PP; p++) {
        const int first = row + p * 16;
        const V scale = load(w.scale + first), bias = load(tail.bias + first);
        for (int t = 0; t < TT; t++) {
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(first);
            const V v = mul(_mm512_cvtepi32_ps(_mm512_load_si512(sums[t * PP + p])), scale);
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr, fma(v, set1(x.scale[token + t]), bias),
                       tail.activation, w.m - first);
        }
    }
}

template <int PP, int TT = kTokens>
void tokens(int count, const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y, const Tail& tail,
            int token) {
    if constexpr (TT > 1) {
        if (count < TT) return tokens<PP, TT - 1>(count, w, weights, row, x, y, tail, token);
    }
    tile<TT, PP>(w, weights, row, x, y, tail, token);
}

template <int PP = kPanel>
void panel(int groups, const Dense& w, const int8_t* weights, int row, const Quantized& x, int T, float* y,
           const Tail& tail) {
    if constexpr (PP > 1) {
        if (groups < PP) return panel<PP - 1>(groups, w, weights, row, x, T, y, tail);
    }
    for (int t = 0; t < T; t += kTokens) tokens<PP>(T - t, w, weights, row, x, y, tail, t);
}

}  // namespace

void dense_i8_vnni(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    const int groups = (w.m + 15) / 16;
    const size_t group_bytes = size_t((w.n + 3) / 4) * 64;
    for (int g = 0; g < groups; g += kPanel)
        panel(groups - g, w, static_cast<const int8_t*>(w.packed) + size_t(g) * group_bytes, g * 16, x, T, y, tail);
}

void quantize_rows_vnni(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero_point, size_t stride) {
    for (int t = 0; t < T; t++, x += n, values += stride) {
        V low = zero(), high = zero(), poison = zero();
        for (int j = 0; j < n; j += kWidth) {
            const V v = load_part(x + j, n - j);
            low = vmin(low, v);
            high = vmax(high, v);
            poison = fma(v, zero(), poison);  // NaN once there is a NaN or an infinity
        }
        const float least = _mm512_reduce_min_ps(low), most = _mm512_reduce_max_ps(high);
        const float bad = _mm512_reduce_add_ps(poison);
        const float step = most / 255.0f - least / 255.0f;
        const bool flat = !(step > 1e-30f / 255.0f) || bad != 0.0f;
        const float inverse = flat ? 0.0f : 1.0f / step;
        zero_point[t] = int32_t(nearbyintf(flat ? 0.0f : -least * inverse));
        scale[t] = bad != 0.0f ? bad : flat ? 0.0f : step;
        if (flat) {
            memset(values, 0, stride);
            continue;
        }
        const __m512i offset = _mm512_set1_epi32(zero_point[t]);
        const V factor = set1(inverse);
        for (size_t j = 0; j < stride; j += kWidth) {
            const int count = n - int(j);
            const __mmask16 mask = count <= 0 ? __mmask16(0) : lanes_below(count);
            const V v = _mm512_maskz_loadu_ps(mask, x + (count <= 0 ? 0 : j));
            const __m512i u = _mm512_add_epi32(_mm512_cvtps_epi32(mul(v, factor)), offset);
            const __m512i clipped = _mm512_max_epi32(u, _mm512_setzero_si512());
            const __m128i bytes = _mm512_cvtusepi32_epi8(clipped);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(values + j), _mm_maskz_mov_epi8(mask, bytes));
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

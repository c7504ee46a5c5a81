// Dense int8 with AVX-512 VNNI, and the quantization of activations to 8 bits.
//
// Micro-kernel: 6 tokens x 64 rows, 24 sums in registers. A step of 4 inputs takes 4 loads of weights, 6 broadcast
// loads of activations and 24 vpdpbusd, so that the multiplier alone limits it (one 512-bit vpdpbusd a cycle on
// Zen 4).
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kTokens = 6, kPanel = 4;
static_assert(kDenseI8Vnni.lanes == 16 && kDenseI8Vnni.panel == kPanel && kDenseI8Vnni.depth == 4,
              "packed for this");

template <int TT, int PP>
void tile(const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y, const Tail& tail,
          int token) {
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
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr,
                       fma(v, set1(x.scale[token + t]), bias), tail.activation, w.m - first);
        }
    }
}

template <int PP, int TT = kTokens>
void tokens(int count, const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y,
            const Tail& tail, int token) {
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
        panel(groups - g, w, static_cast<const int8_t*>(w.packed) + size_t(g) * group_bytes, g * 16, x, T, y,
              tail);
}

namespace {

struct Range {
    float low, high, poison;
};

// Smallest and largest of x and zero; poison is NaN (else zero) once there is a NaN or an infinity.
Range range_of(const float* x, int n) {
    constexpr int kWays = 4;  // independent chains
    V low[kWays], high[kWays], poison[kWays];
    LEANMATCH_UNROLL
    for (int i = 0; i < kWays; i++) low[i] = high[i] = poison[i] = zero();
    int j = 0;
    for (; j + kWays * kWidth <= n; j += kWays * kWidth) {
        LEANMATCH_UNROLL
        for (int i = 0; i < kWays; i++) {
            const V v = load(x + j + i * kWidth);
            low[i] = vmin(low[i], v);
            high[i] = vmax(high[i], v);
            poison[i] = fma(v, zero(), poison[i]);
        }
    }
    for (; j < n; j += kWidth) {
        const V v = load_part(x + j, n - j);
        low[0] = vmin(low[0], v);
        high[0] = vmax(high[0], v);
        poison[0] = fma(v, zero(), poison[0]);
    }
    return {_mm512_reduce_min_ps(vmin(vmin(low[0], low[1]), vmin(low[2], low[3]))),
            _mm512_reduce_max_ps(vmax(vmax(high[0], high[1]), vmax(high[2], high[3]))),
            _mm512_reduce_add_ps(add(add(poison[0], poison[1]), add(poison[2], poison[3])))};
}

// Sixteen codes in int32, not yet limited to 0 .. 255.
inline __m512i codes_of(V v, V factor, __m512i offset) {
    return _mm512_add_epi32(_mm512_cvtps_epi32(mul(v, factor)), offset);
}

}  // namespace

void quantize_rows_vnni(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero_point,
                        size_t stride) {
    // vpackssdw and vpackuswb work within 128-bit lanes: dword 4 j + i of what they give belongs at 4 i + j.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int t = 0; t < T; t++, x += n, values += stride) {
        const Range range = range_of(x, n);
        const float step = range.high / 255.0f - range.low / 255.0f;
        const bool flat = !(step > 1e-30f / 255.0f) || range.poison != 0.0f;
        const float inverse = flat ? 0.0f : 1.0f / step;
        zero_point[t] = int32_t(nearbyintf(flat ? 0.0f : -range.low * inverse));
        scale[t] = range.poison != 0.0f ? range.poison : flat ? 0.0f : step;
        if (flat) {
            memset(values, 0, stride);
            continue;
        }
        const __m512i offset = _mm512_set1_epi32(zero_point[t]);
        const V factor = set1(inverse);
        int j = 0;
        for (; j + 64 <= n; j += 64) {
            const float* from = x + j;
            const __m512i low = _mm512_packs_epi32(codes_of(load(from), factor, offset),
                                                   codes_of(load(from + 16), factor, offset));
            const __m512i high = _mm512_packs_epi32(codes_of(load(from + 32), factor, offset),
                                                    codes_of(load(from + 48), factor, offset));
            _mm512_storeu_si512(values + j, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
        }
        for (; size_t(j) < stride; j += kWidth) {
            const __mmask16 mask = n > j ? lanes_below(n - j) : __mmask16(0);
            const __m512i u = codes_of(_mm512_maskz_loadu_ps(mask, x + (n > j ? j : 0)), factor, offset);
            const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(u, _mm512_setzero_si512()));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(values + j), _mm_maskz_mov_epi8(mask, bytes));
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

// Linear paths with AVX2 and FMA: vectors of 8 floats; int8 by vpmaddubsw.
//
// vpmaddubsw adds two uint8 * int8 products in int16 and saturates: 2 * 255 * 127 does not fit, 2 * 127 * 127 =
// 32258 does. So activations have 7 bits here (quantized_max).
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

using V = __m256;
constexpr int kWidth = 8;

inline __m256i lanes_below(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline V load_part(const float* p, int count) { return _mm256_maskload_ps(p, lanes_below(count)); }
inline void store(float* p, V a) { _mm256_storeu_ps(p, a); }
inline void store_part(float* p, V a, int count) { _mm256_maskstore_ps(p, lanes_below(count), a); }
inline V set1(float f) { return _mm256_set1_ps(f); }
inline V zero() { return _mm256_setzero_ps(); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V vmin(V a, V b) { return _mm256_min_ps(a, b); }
inline V vmax(V a, V b) { return _mm256_max_ps(a, b); }

inline void transpose(V* r) {
    V a[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        r[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
        r[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
        r[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
        r[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        a[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = a[i];
}

constexpr int kTokens = 6, kPanel = 2, kAtoms = 2;
static_assert(kDenseF32Avx2.lanes == kWidth && kDenseF32Avx2.panel == kPanel, "packed for this kernel");
#include "linear/kernels/vector_math.inc.h"
#include "linear/kernels/f32.inc.h"

constexpr int kTokensI8 = 4;

template <int TT, int PP>
void i8_tile(const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y, const Tail& tail,
             int token) {
    __m256i sum[TT][PP];
    for (int t = 0; t < TT; t++)
        for (int p = 0; p < PP; p++) sum[t][p] = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1);
    for (int j = 0; j < w.n; j += 4, weights += PP * 32) {
        __m256i wv[PP];
        for (int p = 0; p < PP; p++)
            wv[p] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + p * 32));
        for (int t = 0; t < TT; t++) {
            int32_t four;
            memcpy(&four, x.values + size_t(token + t) * x.stride + j, 4);
            const __m256i u = _mm256_set1_epi32(four);
            for (int p = 0; p < PP; p++)
                sum[t][p] = _mm256_add_epi32(sum[t][p], _mm256_madd_epi16(_mm256_maddubs_epi16(u, wv[p]), ones));
        }
    }
    for (int t = 0; t < TT; t++)
        for (int p = 0; p < PP; p++) {
            const int first = row + p * kWidth;
            if (first >= w.m) continue;
            const __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w.row_sum + first));
            const __m256i exact =
                _mm256_sub_epi32(sum[t][p], _mm256_mullo_epi32(sums, _mm256_set1_epi32(x.zero[token + t])));
            const V scale = mul(load(w.scale + first), set1(x.scale[token + t]));
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(first);
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr,
                       fma(_mm256_cvtepi32_ps(exact), scale, load(tail.bias + first)), tail.activation,
                       w.m - first);
        }
}

template <int PP, int TT = kTokensI8>
void i8_tokens(int count, const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y,
               const Tail& tail, int token) {
    if constexpr (TT > 1) {
        if (count < TT) return i8_tokens<PP, TT - 1>(count, w, weights, row, x, y, tail, token);
    }
    i8_tile<TT, PP>(w, weights, row, x, y, tail, token);
}

}  // namespace

void dense_f32_avx2(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    dense_f32(w, x, T, y, tail);
}

void dense_sparse_f32_avx2(const SparseF32& w, const float* x, int T, float* y, const Tail& tail, float* scratch) {
    dense_sparse_f32(w, x, T, y, tail, scratch);
}

void quantize_rows_avx2(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero_point,
                        size_t stride) {
    for (int t = 0; t < T; t++, x += n, values += stride) {
        V low = zero(), high = zero(), poison = zero();
        for (int j = 0; j < n; j += kWidth) {
            const V v = n - j >= kWidth ? load(x + j) : load_part(x + j, n - j);
            low = vmin(low, v);
            high = vmax(high, v);
            poison = fma(v, zero(), poison);  // NaN once there is a NaN or an infinity
        }
        float lows[8], highs[8], poisons[8];
        store(lows, low), store(highs, high), store(poisons, poison);
        float least = 0.0f, most = 0.0f, bad = 0.0f;
        for (int i = 0; i < 8; i++) {
            least = lows[i] < least ? lows[i] : least;
            most = highs[i] > most ? highs[i] : most;
            bad += poisons[i];
        }
        const float step = most / 127.0f - least / 127.0f;
        const bool flat = !(step > 1e-30f / 127.0f) || bad != 0.0f;
        const float inverse = flat ? 0.0f : 1.0f / step;
        zero_point[t] = int32_t(nearbyintf(flat ? 0.0f : -least * inverse));
        scale[t] = bad != 0.0f ? bad : flat ? 0.0f : step;
        memset(values, 0, stride);
        if (flat) continue;
        const __m256i offset = _mm256_set1_epi32(zero_point[t]), top = _mm256_set1_epi32(127);
        for (int j = 0; j < n; j += kWidth) {
            const int count = n - j;
            const V v = count >= kWidth ? load(x + j) : load_part(x + j, count);
            __m256i u = _mm256_add_epi32(_mm256_cvtps_epi32(mul(v, set1(inverse))), offset);
            u = _mm256_max_epi32(_mm256_setzero_si256(), _mm256_min_epi32(u, top));
            const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
            unsigned char bytes[16];
            _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), _mm_packus_epi16(words, words));
            memcpy(values + j, bytes, size_t(count < kWidth ? count : kWidth));
        }
    }
}

void dense_i8_avx2(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    const int groups = (w.m + kWidth - 1) / kWidth, panel = kDenseI8Avx2.panel;
    const size_t group_bytes = size_t((w.n + 3) / 4) * 32;
    const int8_t* weights = static_cast<const int8_t*>(w.packed);
    for (int g = 0; g < groups; g += panel, weights += size_t(panel) * group_bytes)
        for (int t = 0; t < T; t += kTokensI8) {
            if (groups - g >= 2) i8_tokens<2>(T - t, w, weights, g * kWidth, x, y, tail, t);
            else i8_tokens<1>(T - t, w, weights, g * kWidth, x, y, tail, t);
        }
}

}  // namespace linear
}  // namespace leanmatch

// Attention with bfloat16 products (AVX512-BF16): queries, keys, values and weights are rounded to bfloat16, sums and the
// softmax are float32. `vdpbf16ps` takes 32 products an instruction, twice those of a multiply-add.
//
// Keys lie transposed, a pair of dimensions a 32-bit lane, so lanes of the scores are keys; values lie in pairs of keys, so
// lanes of the outputs are dimensions. Both are packed once a head. Errors: rounding to 8 bits of significand (2^-9
// relative) of both factors of each product; e^x by a polynomial of degree 5, 3e-6 relative.
#include <immintrin.h>
#include <string.h>

#include "ops.h"

namespace leanmatch {
namespace encoder {
namespace {

constexpr size_t W = 16;
constexpr int kQueries = 8;

inline __m512i pairs_of(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
inline __m512 dot(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
inline __m512i broadcast(const uint32_t* p) { return _mm512_set1_epi32(int(*p)); }

// e^x for x <= 0.
inline __m512 exp_below(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.69314718f), x);
    __m512 p = _mm512_set1_ps(1.0f / 120.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

// 16 x 16 lanes of 32 bits, in place.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

// keys[pair of dimensions][key] for the keys that are needed; keys beyond the text are zero.
void pack_keys(const Attention& a, const Keys& needed, size_t padded, uint32_t* keys) {
    for (size_t k = needed.first; k < needed.end; k += W)
        for (size_t d = 0; d < a.width; d += 2 * W) {
            __m512i rows[16];
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) {
                const float* key = a.key + (k + i) * a.stride + d;
                rows[i] = k + i < a.length ? pairs_of(_mm512_loadu_ps(key), _mm512_loadu_ps(key + W)) : _mm512_setzero_si512();
            }
            transpose(rows);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; ++i) _mm512_storeu_si512(keys + (d / 2 + i) * padded + k, rows[i]);
        }
}

// values[pair of keys][dimension]
void pack_values(const Attention& a, const Keys& needed, uint32_t* values) {
    alignas(64) static const uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_load_si512(kOrder);
    for (size_t k = needed.first; k < needed.last; k += 2)
        for (size_t d = 0; d < a.width; d += W) {
            const float* value = a.value + k * a.stride + d;
            const __m512 next = k + 1 < a.length ? _mm512_loadu_ps(value + a.stride) : _mm512_setzero_ps();
            const __m512i both = pairs_of(_mm512_loadu_ps(value), next);
            _mm512_storeu_si512(values + k / 2 * a.width + d, _mm512_permutexvar_epi16(order, both));
        }
}

// sum[q][c] = sum_i left[q][i] right[i][c W ...] over `count` pairs.
template <int Q, int C>
inline void products(const uint32_t* left, size_t left_stride, const uint32_t* right, size_t right_stride, size_t count,
                     __m512 (&sum)[Q][C]) {
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) sum[q][c] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < count; ++i) {
        __m512i row[C];
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) row[c] = _mm512_loadu_si512(right + i * right_stride + size_t(c) * W);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) {
            const __m512i one = broadcast(left + size_t(q) * left_stride + i);
#pragma GCC unroll 2
            for (int c = 0; c < C; ++c) sum[q][c] = dot(sum[q][c], one, row[c]);
        }
    }
}

template <int Q, int C>
inline void scores_at(const uint32_t* queries, const uint32_t* keys, size_t padded, size_t width, float* scores,
                      size_t stride) {
    __m512 sum[Q][C];
    products<Q, C>(queries, width / 2, keys, padded, width / 2, sum);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) _mm512_storeu_ps(scores + size_t(q) * stride + size_t(c) * W, sum[q][c]);
    }
}

// The lanes below `count`: none to all 16.
inline __mmask16 below(size_t count) { return count < W ? __mmask16((1u << count) - 1u) : __mmask16(0xffff); }

// A row of scores to weights in bfloat16, in its own first half; keys before `first` and from `length` on are not seen.
// Returns 1 / sum.
inline float soften(float* scores, size_t first, size_t length, size_t padded, const float* bias) {
    __m512 top = _mm512_set1_ps(-3.0e38f);
    for (size_t i = 0; i < padded; i += W) {
        __mmask16 mask = length > i ? below(length - i) : __mmask16(0);
        if (first > i) mask = __mmask16(mask & ~below(first - i));
        __m512 x = _mm512_loadu_ps(scores + i);
        if (bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, bias + i));
        x = _mm512_mask_mov_ps(_mm512_set1_ps(-3.0e38f), mask, x);
        if (bias || mask != 0xffff) _mm512_storeu_ps(scores + i, x);
        top = _mm512_max_ps(top, x);
    }
    const __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(top)), least = _mm512_set1_ps(-100.0f);
    __m512 total = _mm512_setzero_ps();
    uint16_t* weights = reinterpret_cast<uint16_t*>(scores);
    for (size_t i = 0; i < padded; i += W) {
        const __m512 x = exp_below(_mm512_max_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift), least));
        total = _mm512_add_ps(total, x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + i), (__m256i)_mm512_cvtneps_pbh(x));
    }
    return 1.0f / _mm512_reduce_add_ps(total);
}

template <int Q, int C>
inline void values_at(const Attention& a, const float* scores, size_t stride, const uint32_t* values, size_t count,
                      const float* factor, float* out) {
    __m512 sum[Q][C];
    products<Q, C>(reinterpret_cast<const uint32_t*>(scores), stride, values, a.width, (count + 1) / 2, sum);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c)
            _mm512_storeu_ps(out + size_t(q) * a.out_stride + size_t(c) * W, _mm512_mul_ps(sum[q][c], _mm512_set1_ps(factor[q])));
    }
}

template <int Q>
void attend(const Attention& a, size_t from, const uint32_t* keys, const uint32_t* values, size_t padded, uint32_t* queries,
            float* scores) {
    const __m512 scale = _mm512_set1_ps(a.scale);
    for (int q = 0; q < Q; ++q) {
        const float* query = a.query + (from + size_t(q)) * a.query_stride;
        for (size_t d = 0; d < a.width; d += 2 * W)
            _mm512_storeu_si512(queries + (size_t(q) * a.width + d) / 2,
                                pairs_of(_mm512_mul_ps(_mm512_loadu_ps(query + d), scale),
                                         _mm512_mul_ps(_mm512_loadu_ps(query + d + W), scale)));
    }
    const Keys needed = keys_of(a, from, from + Q, W);
    const size_t span = needed.end - needed.first;
    keys += needed.first;
    values += needed.first / 2 * a.width;
    size_t k = 0;
    for (; k + 2 * W <= span; k += 2 * W) scores_at<Q, 2>(queries, keys + k, padded, a.width, scores + k, span);
    for (; k < span; k += W) scores_at<Q, 1>(queries, keys + k, padded, a.width, scores + k, span);
    float factor[Q];
    for (size_t q = 0; q < Q; ++q) {
        const size_t at = from + q, seen = at > a.window ? at - a.window - needed.first : 0;
        const float* bias = a.bias ? a.bias + (ptrdiff_t(needed.first) - ptrdiff_t(at)) : nullptr;
        factor[q] = soften(scores + q * span, seen, keys_of(a, at, at + 1, W).last - needed.first, span, bias);
    }
    for (size_t d = 0; d < a.width; d += 2 * W)
        values_at<Q, 2>(a, scores, span, values + d, needed.last - needed.first, factor, a.out + from * a.out_stride + d);
}

}  // namespace

void attention_bf16(const Attention& a) {
    const size_t padded = (a.length + W - 1) / W * W;
    uint32_t* keys = reinterpret_cast<uint32_t*>(a.scratch);
    uint32_t* values = keys + padded * a.width / 2;
    uint32_t* queries = values + padded * a.width / 2;
    float* scores = reinterpret_cast<float*>(queries + kQueries * a.width / 2);
    const Keys needed = keys_of(a, a.from, a.to, W);
    pack_keys(a, needed, padded, keys);
    pack_values(a, needed, values);
    size_t q = a.from;
    for (; q + 8 <= a.to; q += 8) attend<8>(a, q, keys, values, padded, queries, scores);
    if (q + 4 <= a.to) attend<4>(a, q, keys, values, padded, queries, scores), q += 4;
    if (q + 2 <= a.to) attend<2>(a, q, keys, values, padded, queries, scores), q += 2;
    if (q < a.to) attend<1>(a, q, keys, values, padded, queries, scores);
}

}  // namespace encoder
}  // namespace leanmatch

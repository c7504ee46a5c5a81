// dense_sparse_i8 with tables in registers (AVX512-VBMI and VNNI).
//
// Stage 1, `tables_of`: z = D_i x_i of 64 atoms is four sums of 16 lanes; x is broadcast four inputs at a time. The atoms
// of a 64-slot unit are spread over the four sums so that packing to int16 and to int8, which works within 128-bit
// lanes, gives slot order: lane 4 j + e of sum g is slot 16 j + 4 g + e. z stays int16 until the token's largest value is
// known, then becomes uint8 with zero point 128. Four tokens' tables lie side by side.
// Stage 2, `pairs`: a token's table of 64 (or 128) z is one (or two) registers; vpermb (vpermt2b) looks up 16 rows x
// 4 nonzeros, vpdpbusd multiplies them by their int8 values and adds each row's four. 4 tokens x 4 groups of 16 rows
// are in registers, so indices and values are loaded once for four tokens, tables once for 64 rows.
#include <immintrin.h>
#include <string.h>

#include "kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "vector_math.inc.h"

constexpr int kTokens = 4, kPanel = 4;
constexpr size_t kCodeBytes = 24576;    // indices and values of a panel that stay in the first-level cache
constexpr size_t kTableBytes = 262144;  // tables of a tile of tokens that stay in the second-level cache

inline __m512i at(const void* p) { return _mm512_loadu_si512(p); }

// Four inputs for each 128-bit lane; all the same where a unit lies within one block.
template <bool kShared>
inline __m512i inputs(const uint8_t* u, const int32_t* offset) {
    int32_t four[4];
    memcpy(&four[0], u + offset[0], 4);
    if (kShared) return _mm512_set1_epi32(four[0]);
    for (int j = 1; j < 4; j++) memcpy(&four[j], u + offset[j], 4);
    __m512i v = _mm512_castsi128_si512(_mm_set1_epi32(four[0]));
    v = _mm512_inserti32x4(v, _mm_set1_epi32(four[1]), 1);
    v = _mm512_inserti32x4(v, _mm_set1_epi32(four[2]), 2);
    return _mm512_inserti32x4(v, _mm_set1_epi32(four[3]), 3);
}

template <int TT, bool kShared>
void tables_of(const SparseI8& w, const Quantized& x, int token, int16_t* wide, uint8_t* tables, float* unit) {
    const int units = w.tables * (w.slots / 64);
    const uint8_t* u = x.values + size_t(token) * x.stride;
    __m512i zero_point[TT], largest[TT];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) {
        // Pairs (-zero, 1): times (sum of codes, half) they give the start of a sum.
        zero_point[t] = _mm512_set1_epi32(int32_t(0x10000u | (uint32_t(-x.zero[token + t]) & 0xffffu)));
        largest[t] = _mm512_setzero_si512();
    }
    const int8_t* atoms = w.atoms;
    const __m128i shift = _mm_cvtsi32_si128(w.shift);
    for (int i = 0; i < units; i++) {
        __m512i sum[TT][4];
        LEANMATCH_UNROLL
        for (int g = 0; g < 4; g++) {
            const __m512i start = at(w.atom_sums + (size_t(i) * 4 + size_t(g)) * 32);
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) sum[t][g] = _mm512_madd_epi16(start, zero_point[t]);
        }
        for (int s = 0; s < w.steps; s++, atoms += 256) {
            const __m512i a[4] = {at(atoms), at(atoms + 64), at(atoms + 128), at(atoms + 192)};
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                const __m512i v = inputs<kShared>(u + size_t(t) * x.stride + 4 * s, w.offset + size_t(i) * 4);
                LEANMATCH_UNROLL
                for (int g = 0; g < 4; g++) dpbusd(sum[t][g], v, a[g]);
            }
        }
        const __m512i scale0 = at(w.atom_scale + size_t(i) * 64), scale1 = at(w.atom_scale + size_t(i) * 64 + 32);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            LEANMATCH_UNROLL
            for (int g = 0; g < 4; g++) sum[t][g] = _mm512_sra_epi32(sum[t][g], shift);
            const __m512i z0 = _mm512_mulhrs_epi16(_mm512_packs_epi32(sum[t][0], sum[t][1]), scale0);
            const __m512i z1 = _mm512_mulhrs_epi16(_mm512_packs_epi32(sum[t][2], sum[t][3]), scale1);
            largest[t] = _mm512_max_epi16(largest[t], _mm512_abs_epi16(z0));
            largest[t] = _mm512_max_epi16(largest[t], _mm512_abs_epi16(z1));
            int16_t* out = wide + (size_t(t) * size_t(units) + size_t(i)) * 64;
            _mm512_store_si512(out, z0);
            _mm512_store_si512(out + 32, z1);
        }
    }
    const __m512i middle = _mm512_set1_epi8(char(0x80));
    for (int t = 0; t < TT; t++) {
        const __m512i low = _mm512_and_si512(largest[t], _mm512_set1_epi32(0xffff));
        const int most = _mm512_reduce_max_epi32(_mm512_max_epi32(low, _mm512_srli_epi32(largest[t], 16)));
        // |z| <= most times factor / 2^15 is at most 127; factor 32767 leaves |z| <= 127 as it is.
        const int factor = most <= 127 ? 32767 : 127 * 32768 / most;
        unit[t] = x.scale[token + t] * w.atom_unit * (most <= 127 ? 1.0f : 32768.0f / float(factor));
        const __m512i f = _mm512_set1_epi16(short(factor));
        const int16_t* from = wide + size_t(t) * size_t(units) * 64;
        for (int table = 0; table < w.tables; table++)
            for (int h = 0; h < w.slots; h += 64, from += 64) {
                const __m512i bytes =
                    _mm512_packs_epi16(_mm512_mulhrs_epi16(at(from), f), _mm512_mulhrs_epi16(at(from + 32), f));
                _mm512_store_si512(tables + (size_t(table) * TT + size_t(t)) * size_t(w.slots) + size_t(h),
                                   _mm512_xor_si512(bytes, middle));
            }
    }
}

template <int G, int TT, bool kWide>
inline void pairs(const uint8_t* codes, const uint8_t* tables, int count, int quads, __m512i (&sum)[TT][G]) {
    constexpr int slots = kWide ? 128 : 64;
    for (int i = 0; i < count; i++, tables += TT * slots) {
        __m512i low[TT], high[TT];
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            low[t] = at(tables + t * slots);
            high[t] = kWide ? at(tables + t * slots + 64) : low[t];
        }
        for (int q = 0; q < quads; q++)
            for (int g = 0; g < G; g++, codes += 128) {
                const __m512i index = at(codes), values = at(codes + 64);
                LEANMATCH_UNROLL
                for (int t = 0; t < TT; t++) {
                    const __m512i z = kWide ? _mm512_permutex2var_epi8(low[t], index, high[t])
                                            : _mm512_permutexvar_epi8(index, low[t]);
                    dpbusd(sum[t][g], z, values);
                }
            }
    }
}

struct Area {  // scratch of a tile of tokens
    int16_t* wide;
    uint8_t* tables;
    int32_t* sums;
    float* unit;
};

// `count` tables from `first` on, for one panel and TT tokens from `token` on of the tile.
template <int G, int TT, bool kWide>
void panel_tokens(const SparseI8& w, const uint8_t* codes, int row, int first, int count, const Area& area, int token,
                  float* y, const Tail& tail) {
    const size_t table_bytes = size_t(w.slots);
    const uint8_t* tables = area.tables + size_t(token) * size_t(w.tables) * table_bytes + size_t(first) * TT * table_bytes;
    int32_t* saved = area.sums + size_t(token) * (kPanel * 16);
    __m512i sum[TT][G];
    LEANMATCH_UNROLL
    for (int g = 0; g < G; g++)
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++)
            sum[t][g] = first == 0 ? at(w.start + row + g * 16) : at(saved + (t * kPanel + g) * 16);
    pairs<G, TT, kWide>(codes, tables, count, w.quads, sum);
    const bool last = first + count == w.tables;
    alignas(64) int32_t done[kPanel * kTokens * 16];
    int32_t* out = last ? done : saved;
    LEANMATCH_UNROLL
    for (int g = 0; g < G; g++) {
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) _mm512_store_si512(out + (t * kPanel + g) * 16, sum[t][g]);
    }
    if (!last) return;
    for (int g = 0; g < G; g++) {
        const int output = row + g * 16;
        const V scale = load(w.scale + output), bias = load(tail.bias + output);
        for (int t = 0; t < TT; t++) {
            const size_t place = size_t(token + t) * size_t(w.m) + size_t(output);
            const V v = mul(_mm512_cvtepi32_ps(at(done + (t * kPanel + g) * 16)), scale);
            put<false>(y + place, tail.residual ? tail.residual + place : nullptr,
                       fma(v, set1(area.unit[token + t]), bias), tail.activation, w.m - output);
        }
    }
}

template <bool kWide, int G = kPanel>
void panel(int groups, const SparseI8& w, const uint8_t* codes, int row, const Area& area, int T, float* y,
           const Tail& tail) {
    if constexpr (G > 1) {
        if (groups < G) return panel<kWide, G - 1>(groups, w, codes, row, area, T, y, tail);
    }
    const size_t bytes = size_t(G) * size_t(w.quads) * 128;
    const int chunk = bytes < kCodeBytes ? int(kCodeBytes / bytes) : 1;
    const int chunks = (w.tables + chunk - 1) / chunk, even = (w.tables + chunks - 1) / chunks;
    for (int first = 0; first < w.tables; first += even) {
        const int count = w.tables - first < even ? w.tables - first : even;
        const uint8_t* here = codes + size_t(first) * bytes;
        int t = 0;
        for (; t + 4 <= T; t += 4) panel_tokens<G, 4, kWide>(w, here, row, first, count, area, t, y, tail);
        if (T - t == 3) panel_tokens<G, 3, kWide>(w, here, row, first, count, area, t, y, tail);
        if (T - t == 2) panel_tokens<G, 2, kWide>(w, here, row, first, count, area, t, y, tail);
        if (T - t == 1) panel_tokens<G, 1, kWide>(w, here, row, first, count, area, t, y, tail);
    }
}

template <bool kShared>
void all_tables(const SparseI8& w, const Quantized& x, int token, int T, const Area& area) {
    const size_t table_bytes = size_t(w.tables) * size_t(w.slots);
    for (int t = 0; t < T; t += kTokens) {
        uint8_t* tables = area.tables + size_t(t) * table_bytes;
        if (T - t >= 4) tables_of<4, kShared>(w, x, token + t, area.wide, tables, area.unit + t);
        else if (T - t == 3) tables_of<3, kShared>(w, x, token + t, area.wide, tables, area.unit + t);
        else if (T - t == 2) tables_of<2, kShared>(w, x, token + t, area.wide, tables, area.unit + t);
        else tables_of<1, kShared>(w, x, token + t, area.wide, tables, area.unit + t);
    }
}

int tile_tokens(const SparseI8& w, int T) {
    const size_t fit = kTableBytes / (size_t(w.tables) * size_t(w.slots)) / kTokens * kTokens;
    const int tile = fit < 8 ? 8 : fit > 96 ? 96 : int(fit);
    return T < tile ? T : tile;
}

inline size_t to64(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t dense_sparse_i8_scratch(const SparseI8& w, int T) {
    const size_t tile = size_t(tile_tokens(w, T)), table_bytes = size_t(w.tables) * size_t(w.slots);
    return kTokens * table_bytes * sizeof(int16_t) + tile * table_bytes + tile * kPanel * 64 + to64(tile * sizeof(float));
}

void dense_sparse_i8_vbmi(const SparseI8& w, const Quantized& x, int T, float* y, const Tail& tail, void* scratch) {
    const int tile = tile_tokens(w, T), groups = (w.m + 15) / 16;
    const size_t table_bytes = size_t(w.tables) * size_t(w.slots);
    Area area;
    area.wide = static_cast<int16_t*>(scratch);
    area.tables = reinterpret_cast<uint8_t*>(area.wide + kTokens * table_bytes);
    area.sums = reinterpret_cast<int32_t*>(area.tables + size_t(tile) * table_bytes);
    area.unit = reinterpret_cast<float*>(area.sums + size_t(tile) * kPanel * 16);
    for (int t = 0; t < T; t += tile) {
        const int count = T - t < tile ? T - t : tile;
        if (w.shared) all_tables<true>(w, x, t, count, area);
        else all_tables<false>(w, x, t, count, area);
        Tail here = tail;
        if (here.residual) here.residual += size_t(t) * size_t(w.m);
        for (int g = 0; g < groups; g += kPanel) {
            const uint8_t* codes = w.codes + size_t(g) * size_t(w.tables) * size_t(w.quads) * 128;
            float* yt = y + size_t(t) * size_t(w.m);
            if (w.slots == 128) panel<true>(groups - g, w, codes, g * 16, area, count, yt, here);
            else panel<false>(groups - g, w, codes, g * 16, area, count, yt, here);
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

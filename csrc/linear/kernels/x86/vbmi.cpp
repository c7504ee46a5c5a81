// dense_sparse_i8 with tables in registers (AVX512-VBMI and VNNI).
//
// Stage 1, `analyse`: z = D_i x_i of 64 atoms is four sums of 16 lanes; x is broadcast four inputs at a time. The
// atoms of a 64-slot unit are spread over the four sums so that packing to int16 and to int8, which works within
// 128-bit lanes, gives slot order: lane 4 j + e of sum g is slot 16 j + 4 g + e. z stays int16 until the token's
// least and largest value are known, then becomes uint8 with a zero point of the token's own. The tables of a group
// of tokens lie side by side.
// Stage 2, `pairs`: a token's table of 64 (or 128) z is one (or two) registers; vpermb (vpermt2b) looks up
// 16 rows x 4 nonzeros, vpdpbusd multiplies them by their int8 values and adds each row's four. 5 (4) tokens x 4
// groups of 16 rows are in registers, so indices and values are loaded once for five tokens, tables once for 64
// rows.
//
// What an instruction costs beside vpdpbusd on Zen 4, measured (12 of each a loop, cycles beyond the 12 of
// vpdpbusd): nothing: vpsrad by an immediate, vpsravd, vpmaxsw, vpsubw, vpaddw, conversions; 4: vpermb, vpackssdw,
// vpacksswb; 12: vpmulhrsw, vpmaddwd, vpabsw, vpsrad by a register, vpmultishiftqb, vpermt2b. The tail of stage 1
// is written after this table.
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kTokens = 5, kPanel = 4;  // tokens of a group at most; 4 where tables take two registers
// Indices and values of a panel that are taken at once. 48 KiB stream from the second-level cache as fast as they are
// used; smaller pieces only send the sums through memory more often.
constexpr size_t kCodeBytes = 49152;
// z of a tile of tokens, in 16 and in 8 bits, which stays in the second-level cache beside them.
constexpr size_t kTableBytes = 393216;

inline __m512i at(const void* p) { return _mm512_loadu_si512(p); }

// Four inputs for each 128-bit lane, from the block of each.
template <int kBlocks>
inline __m512i inputs(const uint8_t* u, const int32_t* offset) {
    int32_t four[4];
    memcpy(&four[0], u + offset[0], 4);
    if (kBlocks == 1) return _mm512_set1_epi32(four[0]);
    if (kBlocks == 2) {
        memcpy(&four[2], u + offset[2], 4);
        return _mm512_mask_set1_epi32(_mm512_set1_epi32(four[0]), 0xff00, four[2]);
    }
    for (int j = 1; j < 4; j++) memcpy(&four[j], u + offset[j], 4);
    __m512i v = _mm512_castsi128_si512(_mm_set1_epi32(four[0]));
    v = _mm512_inserti32x4(v, _mm_set1_epi32(four[1]), 1);
    v = _mm512_inserti32x4(v, _mm_set1_epi32(four[2]), 2);
    return _mm512_inserti32x4(v, _mm_set1_epi32(four[3]), 3);
}

struct Area {         // scratch of a tile of tokens
    int16_t* wide;    // z in 16 bits: [group of tokens][unit][token of the group][64]
    uint8_t* tables;  // z in 8 bits: [group of tokens][table][token of the group][slots]
    int16_t* reach;     // 64 numbers a token: largest and least z of a lane so far. Those of the head: `tile` tokens on
    int16_t* rounding;  // 64 numbers a token: factor from 16 to 8 bits and zero point of z. Those of the head: `tile` on
    int32_t* sums;
    float *unit, *ratio;  // of a token's sums; of the head's unit to it
    int32_t* zeros;       // a token's zero point of z and kStartUnit times it, in 16 bits each. That of the head: `tile` tokens on
    int tile;
};

// T tokens in groups of nearly equal size, kTokens at most, so that no group is left with a token or two.
template <bool kWide, class F>
inline void groups_of(int T, F each) {
    constexpr int most = kWide ? 4 : kTokens;
    const int groups = (T + most - 1) / most;
    for (int i = 0, t = 0; i < groups; i++) {
        const int size = T / groups + (i < T % groups ? 1 : 0);
        each(t, size);
        t += size;
    }
}

// From four sums to 64 z in int16, scaled; `reach` keeps the token's largest and least value for each lane.
struct Tail16 {
    __m512i shift, scale0, scale1;
};
template <bool kScaled>
inline void finish(const Tail16& k, __m512i (&sum)[4], int16_t* reach, int16_t* out) {
    LEANMATCH_UNROLL
    for (int g = 0; g < 4; g++) sum[g] = _mm512_srav_epi32(sum[g], k.shift);
    __m512i z0 = _mm512_packs_epi32(sum[0], sum[1]), z1 = _mm512_packs_epi32(sum[2], sum[3]);
    if (kScaled) {
        z0 = _mm512_mulhrs_epi16(z0, k.scale0);
        z1 = _mm512_mulhrs_epi16(z1, k.scale1);
    }
    _mm512_store_si512(reach, _mm512_max_epi16(_mm512_max_epi16(z0, z1), at(reach)));
    _mm512_store_si512(reach + 32, _mm512_min_epi16(_mm512_min_epi16(z0, z1), at(reach + 32)));
    _mm512_store_si512(out, z0);
    _mm512_store_si512(out + 32, z1);
}

// Stage 1 of a tile of tokens. kSteps: ceil(b / 4) up to 4, where all atoms of a unit fit 16 registers and tokens
// go by one at a time, each token's tail beside the next one's multiplies; 0: any other, atoms from memory for two
// tokens at a time.
template <int kBlocks, int kSteps, bool kScaled, bool kChoose, class Groups>
void analyse(const SparseI8& w, const Quantized& x, int token, const Area& area, Groups groups) {
    const int units = w.tables * (w.slots / 64);
    const int steps = kSteps ? kSteps : w.steps;
    const int8_t* atoms = w.atoms;
    for (int i = 0; i < units; i++, atoms += steps * 256) {
        __m512i a[kSteps ? kSteps : 1][4];
        LEANMATCH_UNROLL
        for (int s = 0; s < kSteps; s++) {
            LEANMATCH_UNROLL
            for (int g = 0; g < 4; g++) a[s][g] = at(atoms + (s * 4 + g) * 64);
        }
        const int32_t* first = w.first + size_t(i) * size_t(w.zero_count) * 64;
        const __m512i begin[4] = {at(first), at(first + 16), at(first + 32), at(first + 48)};
        const int16_t* scale = w.atom_scale + size_t(i) * 64;
        const Tail16 constants{_mm512_set1_epi32(w.shift), at(scale), at(scale + 32)};
        const bool head = i < w.head * (w.slots / 64);
        int16_t* reach = area.reach + (head ? area.tile * 64 : 0);
        const int byte = head ? 8 : 0;
        const int32_t* offset = w.offset + size_t(i) * 4;
        const auto start_at = [&](int t, __m512i (&sum)[4]) {
            const int32_t* start = kChoose ? first + w.start_of[(x.zero[token + t] >> byte) & 255] : first;
            LEANMATCH_UNROLL
            for (int g = 0; g < 4; g++) sum[g] = kChoose ? at(start + g * 16) : begin[g];
        };
        groups([&](int t, int size) {
            int16_t* out = area.wide + (size_t(t) * size_t(units) + size_t(i) * size_t(size)) * 64;
            const int end = t + size;
            if (kSteps == 0) {
                for (; t + 2 <= end; t += 2, out += 128) {
                    const uint8_t* u = x.values + size_t(token + t) * x.stride;
                    __m512i one[4], two[4];
                    start_at(t, one);
                    start_at(t + 1, two);
                    for (int s = 0; s < steps; s++) {
                        const __m512i v = inputs<kBlocks>(u + 4 * s, offset);
                        const __m512i next = inputs<kBlocks>(u + x.stride + 4 * s, offset);
                        LEANMATCH_UNROLL
                        for (int g = 0; g < 4; g++) {
                            const __m512i atom = at(atoms + (s * 4 + g) * 64);
                            dpbusd(one[g], v, atom);
                            dpbusd(two[g], next, atom);
                        }
                    }
                    finish<kScaled>(constants, one, reach + t * 64, out);
                    finish<kScaled>(constants, two, reach + t * 64 + 64, out + 64);
                }
            }
            for (; t < end; t++, out += 64) {
                const uint8_t* u = x.values + size_t(token + t) * x.stride;
                __m512i sum[4];
                start_at(t, sum);
                LEANMATCH_UNROLL
                for (int s = 0; s < kSteps; s++) {
                    const __m512i v = inputs<kBlocks>(u + 4 * s, offset);
                    LEANMATCH_UNROLL
                    for (int g = 0; g < 4; g++) dpbusd(sum[g], v, a[s][g]);
                }
                for (int s = kSteps; s < steps; s++) {
                    const __m512i v = inputs<kBlocks>(u + 4 * s, offset);
                    LEANMATCH_UNROLL
                    for (int g = 0; g < 4; g++) dpbusd(sum[g], v, at(atoms + (s * 4 + g) * 64));
                }
                finish<kScaled>(constants, sum, reach + t * 64, out);
            }
        });
    }
}

template <int kBlocks, int kSteps, class Groups>
void analyse(const SparseI8& w, const Quantized& x, int token, const Area& area, Groups groups) {
    if (w.zero_count == 1) {
        if (w.scaled) analyse<kBlocks, kSteps, true, false>(w, x, token, area, groups);
        else analyse<kBlocks, kSteps, false, false>(w, x, token, area, groups);
    } else {
        if (w.scaled) analyse<kBlocks, kSteps, true, true>(w, x, token, area, groups);
        else analyse<kBlocks, kSteps, false, true>(w, x, token, area, groups);
    }
}

template <int kBlocks, class Groups>
void analyse(const SparseI8& w, const Quantized& x, int token, const Area& area, Groups groups) {
    if (w.steps == 4) analyse<kBlocks, 4>(w, x, token, area, groups);
    else if (w.steps == 3) analyse<kBlocks, 3>(w, x, token, area, groups);
    else if (w.steps == 2) analyse<kBlocks, 2>(w, x, token, area, groups);
    else analyse<kBlocks, 0>(w, x, token, area, groups);
}

// The factor that brings z to 8 bits about the zero point that allows the largest one (of 2^15; 32767 leaves z that fits as it
// is), and what it divided by.
struct Rounding {
    int zero, factor;  // zero: place in kTableZeros
    float back;
};
inline int largest16(__m512i each) {
    const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(each, 16), 16);
    return _mm512_reduce_max_epi32(_mm512_max_epi32(low, _mm512_srai_epi32(each, 16)));
}
inline Rounding rounding_of(const int16_t* reach, bool choose) {
    const int most = largest16(at(reach));
    // From -32768 on: the complement keeps the order and stays in 16 bits.
    const int least = ~largest16(_mm512_xor_si512(at(reach + 32), _mm512_set1_epi32(-1)));
    const __m256i zeros = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTableZeros));
    const __m256 up = _mm256_div_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_set1_epi32(255), zeros)), _mm256_set1_ps(float(most > 1 ? most : 1)));
    const __m256 down = _mm256_div_ps(_mm256_cvtepi32_ps(zeros), _mm256_set1_ps(float(least < -1 ? -least : 1)));
    const __mmask8 some = choose ? 0xff : 1;
    const __m256 room = _mm256_min_ps(up, down);
    const float best = _mm512_mask_reduce_max_ps(some, _mm512_castps256_ps512(room));
    const int at_zero = __builtin_ctz(_mm256_mask_cmp_ps_mask(some, room, _mm256_set1_ps(best), _CMP_EQ_OQ));
    const int factor = best >= 1.0f ? 32767 : int(best * 32768.0f);
    return {at_zero, factor, best >= 1.0f ? 1.0f : 32768.0f / float(factor)};
}
inline void keep_rounding(const Rounding& z, int16_t* rounding, int32_t* zeros) {
    _mm512_store_si512(rounding, _mm512_set1_epi16(short(z.factor)));
    _mm512_store_si512(rounding + 32, _mm512_set1_epi16(short(kTableZeros[z.zero])));
    *zeros = kTableZeros[z.zero] * (1 + (kStartUnit << 16));
}

template <bool kWide>
void analyse_tile(const SparseI8& w, const Quantized& x, int token, int T, const Area& area) {
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < 64; i += 32) {
            _mm512_store_si512(area.reach + t * 64 + i, _mm512_setzero_si512());
            _mm512_store_si512(area.reach + (area.tile + t) * 64 + i, _mm512_setzero_si512());
        }
    }
    const auto groups = [&](auto each) { groups_of<kWide>(T, each); };
    if (w.unit_blocks == 1) analyse<1>(w, x, token, area, groups);
    else if (w.unit_blocks == 2) analyse<2>(w, x, token, area, groups);
    else analyse<4, 0>(w, x, token, area, groups);
    for (int t = 0; t < T; t++) {
        Rounding rest = rounding_of(area.reach + t * 64, w.choose);
        float unit = x.scale[token + t] * w.atom_unit * rest.back;
        if (w.head) {
            const Rounding head = rounding_of(area.reach + (area.tile + t) * 64, w.choose);
            const float head_unit = x.head_scale[token + t] * w.atom_unit * head.back, least = head_unit / w.limit;
            if (unit < least) {  // never where one is NaN
                rest.factor = int(float(rest.factor) * (unit / least));
                unit = least;
            }
            area.ratio[t] = unit > 0.0f ? head_unit / unit : 0.0f;
            keep_rounding(head, area.rounding + (area.tile + t) * 64, area.zeros + area.tile + t);
        }
        area.unit[t] = unit;
        keep_rounding(rest, area.rounding + t * 64, area.zeros + t);
    }
}

// kFirst: z is still int16; bring it to 8 bits, use it and keep it for the panels that follow. Done here, where
// the multiplier is the limit, the traffic with the second-level cache costs nothing.
template <int G, int TT, bool kWide, bool kFirst>
inline void pairs(const uint8_t* codes, uint8_t* tables, const int16_t* wide, const int16_t* rounding, int count,
                  int quads, __m512i (&sum)[TT][G]) {
    constexpr int slots = kWide ? 128 : 64, units = slots / 64;
    for (int i = 0; i < count; i++, tables += TT * slots, wide += TT * slots) {
        __m512i low[TT], high[TT];
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            LEANMATCH_UNROLL
            for (int h = 0; h < units; h++) {
                __m512i& table = h ? high[t] : low[t];
                if (kFirst) {
                    const int16_t* z = wide + (h * TT + t) * 64;
                    const __m512i factor = at(rounding + t * 64), zero = at(rounding + t * 64 + 32);
                    const __m512i z0 = _mm512_add_epi16(_mm512_mulhrs_epi16(at(z), factor), zero);
                    const __m512i z1 = _mm512_add_epi16(_mm512_mulhrs_epi16(at(z + 32), factor), zero);
                    table = _mm512_packus_epi16(z0, z1);
                    _mm512_store_si512(tables + t * slots + h * 64, table);
                } else {
                    table = at(tables + t * slots + h * 64);
                }
            }
        }
        for (int q = 0; q < quads; q++) {
            LEANMATCH_UNROLL
            for (int g = 0; g < G; g++, codes += 128) {
                const __m512i index = at(codes), values = at(codes + 64);
                LEANMATCH_UNROLL
                for (int t = 0; t < TT; t++) {
                    const __m512i z =
                        kWide ? _mm512_permutex2var_epi8(low[t], index, high[t]) : lookup(index, low[t]);
                    dpbusd(sum[t][g], z, values);
                }
            }
        }
    }
}

// sum - zero * (a row's sum of codes), which lies in two parts of 16 bits.
inline __m512i less_zero(__m512i sum, int32_t zeros, __m512i parts) {
    return _mm512_dpwssd_epi32(sum, _mm512_set1_epi32(zeros), parts);
}

// `count` tables from `first` on, for one panel and TT tokens from `token` on of the tile.
template <int G, int TT, bool kWide, bool kFirst>
void panel_tokens(const SparseI8& w, const uint8_t* codes, int row, int first, int count, const Area& area,
                  int token, float* y, const Tail& tail) {
    const size_t place_of_group = (size_t(token) * size_t(w.tables) + size_t(first) * TT) * size_t(w.slots);
    int32_t* saved = area.sums + size_t(token) * (kPanel * 16);
    const int32_t* start = (w.head ? w.head_start : w.start) + row;
    const int32_t* zeros = area.zeros + token + (w.head ? area.tile : 0);
    __m512i sum[TT][G];
    LEANMATCH_UNROLL
    for (int g = 0; g < G; g++) LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++)
        sum[t][g] = first == 0 ? less_zero(_mm512_setzero_si512(), zeros[t], at(start + g * 16))
                               : at(saved + (t * kPanel + g) * 16);
    const int left = w.head - first, head = left <= 0 ? 0 : left < count ? left : count;  // tables of the head here
    if (head) {
        pairs<G, TT, kWide, kFirst>(codes, area.tables + place_of_group, area.wide + place_of_group,
                                    area.rounding + (area.tile + token) * 64, head, w.quads, sum);
        if (head == left) {  // the last of them: from the head's unit to the others'
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                const V ratio = set1(area.ratio[token + t]);
                LEANMATCH_UNROLL
                for (int g = 0; g < G; g++)
                    sum[t][g] = less_zero(_mm512_cvtps_epi32(mul(_mm512_cvtepi32_ps(sum[t][g]), ratio)),
                                          area.zeros[token + t], at(w.start + row + g * 16));
            }
        }
        codes += size_t(head) * size_t(G) * size_t(w.quads) * 128;
    }
    const size_t place_of_rest = place_of_group + size_t(head) * TT * size_t(w.slots);
    pairs<G, TT, kWide, kFirst>(codes, area.tables + place_of_rest, area.wide + place_of_rest,
                                area.rounding + token * 64, count - head, w.quads, sum);
    const bool last = first + count == w.tables;
    if (last && !tail.activation && row + G * 16 <= w.m) {  // the same as below, without a way through memory
        LEANMATCH_UNROLL
        for (int g = 0; g < G; g++) {
            const V scale = load(w.scale + row + g * 16), bias = load(tail.bias + row + g * 16);
            const size_t place = size_t(token) * size_t(w.m) + size_t(row + g * 16);
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                V v = fma(mul(_mm512_cvtepi32_ps(sum[t][g]), scale), set1(area.unit[token + t]), bias);
                if (tail.residual) v = add(v, load(tail.residual + place + size_t(t) * size_t(w.m)));
                store(y + place + size_t(t) * size_t(w.m), v);
            }
        }
        return;
    }
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

template <bool kWide, bool kFirst, int G = kPanel>
void panel(int groups, const SparseI8& w, const uint8_t* codes, int row, const Area& area, int T, float* y,
           const Tail& tail) {
    if constexpr (G > 1) {
        if (groups < G) return panel<kWide, kFirst, G - 1>(groups, w, codes, row, area, T, y, tail);
    }
    const size_t bytes = size_t(G) * size_t(w.quads) * 128;
    const int chunk = bytes < kCodeBytes ? int(kCodeBytes / bytes) : 1;
    const int chunks = (w.tables + chunk - 1) / chunk, even = (w.tables + chunks - 1) / chunks;
    for (int first = 0; first < w.tables; first += even) {
        const int count = w.tables - first < even ? w.tables - first : even;
        const uint8_t* here = codes + size_t(first) * bytes;
        groups_of<kWide>(T, [&](int t, int size) {
            switch (size) {
                case 1: return panel_tokens<G, 1, kWide, kFirst>(w, here, row, first, count, area, t, y, tail);
                case 2: return panel_tokens<G, 2, kWide, kFirst>(w, here, row, first, count, area, t, y, tail);
                case 3: return panel_tokens<G, 3, kWide, kFirst>(w, here, row, first, count, area, t, y, tail);
                case 4: return panel_tokens<G, 4, kWide, kFirst>(w, here, row, first, count, area, t, y, tail);
            }
            if constexpr (!kWide) panel_tokens<G, 5, kWide, kFirst>(w, here, row, first, count, area, t, y, tail);
        });
    }
}

template <bool kWide>
void combine(const SparseI8& w, const Area& area, int T, float* y, const Tail& tail) {
    const int groups = (w.m + 15) / 16;
    panel<kWide, true>(groups, w, w.codes, 0, area, T, y, tail);
    for (int g = kPanel; g < groups; g += kPanel) {
        const uint8_t* codes = w.codes + size_t(g) * size_t(w.tables) * size_t(w.quads) * 128;
        panel<kWide, false>(groups - g, w, codes, g * 16, area, T, y, tail);
    }
}

int tile_tokens(const SparseI8& w, int T) {
    const size_t step = w.slots == 128 ? 4 : kTokens;
    const size_t fit = kTableBytes / (3 * size_t(w.tables) * size_t(w.slots)) / step * step;
    const int tile = fit < 20 ? 20 : fit > 100 ? 100 : int(fit);
    return T < tile ? T : tile;
}

inline V piece(const float* x, int count) { return count >= kWidth ? load(x) : load_part(x, count); }

struct Reach {
    __m512i size = _mm512_setzero_si512();
    V low = zero(), high = zero();
    void widen(const float* x, int count) {
        const V v = piece(x, count);
        size = _mm512_max_epu32(size, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
        low = vmin(low, v);
        high = vmax(high, v);
    }
    bool finite() const { return _mm512_reduce_max_epu32(size) < 0x7f800000u; }
    float most() const { return _mm512_reduce_max_ps(high); }
    float least() const { return _mm512_reduce_min_ps(low); }
};

inline void codes_at(const float* x, int from, int to, float inverse, int zero, uint8_t* values) {
    const V factor = set1(inverse);
    const __m512i offset = _mm512_set1_epi32(zero);
    for (int j = from; j < to; j += kWidth) {
        const int count = to - j;
        const __m512i u = _mm512_add_epi32(_mm512_cvtps_epi32(mul(piece(x + j, count), factor)), offset);
        const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(u, _mm512_setzero_si512()));
        if (count >= kWidth) _mm_storeu_si128(reinterpret_cast<__m128i*>(values + j), bytes);
        else _mm_mask_storeu_epi8(values + j, lanes_below(count), bytes);
    }
}

#include "linear/kernels/tables_rows.inc.h"

}  // namespace

void quantize_tables_vbmi(const SparseI8& w, const float* x, int T, uint8_t* values, float* scale, int32_t* zero,
                          float* head_scale, size_t stride) {
    quantize_tables(w, x, T, values, scale, zero, head_scale, stride);
}

size_t dense_sparse_i8_scratch_vbmi(const SparseI8& w, int T) {
    const size_t tile = size_t(tile_tokens(w, T)), slots = size_t(w.tables) * size_t(w.slots);
    return tile * (3 * slots + 8 * 64 + kPanel * 64) + 4 * ((tile + 15) / 16 * 64);
}

void dense_sparse_i8_vbmi(const SparseI8& w, const Quantized& x, int T, float* y, const Tail& tail,
                          void* scratch) {
    const int tile = tile_tokens(w, T);
    const size_t slots = size_t(w.tables) * size_t(w.slots);
    Area area;
    area.wide = static_cast<int16_t*>(scratch);
    area.tables = reinterpret_cast<uint8_t*>(area.wide + size_t(tile) * slots);
    area.tile = tile;
    area.reach = reinterpret_cast<int16_t*>(area.tables + size_t(tile) * slots);
    area.rounding = area.reach + size_t(tile) * 128;
    area.sums = reinterpret_cast<int32_t*>(area.rounding + size_t(tile) * 128);
    area.unit = reinterpret_cast<float*>(area.sums + size_t(tile) * kPanel * 16);
    area.ratio = area.unit + (tile + 15) / 16 * 16;
    area.zeros = reinterpret_cast<int32_t*>(area.ratio + (tile + 15) / 16 * 16);
    for (int t = 0; t < T; t += tile) {
        const int count = T - t < tile ? T - t : tile;
        Tail here = tail;
        if (here.residual) here.residual += size_t(t) * size_t(w.m);
        float* yt = y + size_t(t) * size_t(w.m);
        if (w.slots == 128) {
            analyse_tile<true>(w, x, t, count, area);
            combine<true>(w, area, count, yt, here);
        } else {
            analyse_tile<false>(w, x, t, count, area);
            combine<false>(w, area, count, yt, here);
        }
    }
}

}  // namespace linear
}  // namespace leanmatch

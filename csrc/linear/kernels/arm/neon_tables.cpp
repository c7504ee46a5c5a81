// dense_sparse_i8 with tables in registers, NEON with dot products. The steps, the layout of the weights and every integer
// are those of vbmi.cpp; only x and z enter products as u - 128 and z - 128 (kernels.h, `center`).
//
// Stage 1, `analyse`: 64 atoms are four sums of 16 lanes, here 16 vectors of 4 lanes; two tokens x 8 vectors are in registers.
// Stage 2, `combine`: a token's table of 64 z is four registers, which one tbl looks 16 indices up in; sdot multiplies what it
// finds by the int8 values, 4 rows x 4 nonzeros. Of 128 slots the upper 64 need a second lookup (tbx, with the index less
// 64, which leaves what it does not find). Instructions for 16 products of a token: tbl, sdot (64 slots); tbl, sub, tbx, sdot
// (128); fp32 takes 4 fmla and 4 loads. Two tokens x 2 groups of 16 rows (1 group with 128 slots) are in registers, so that
// indices and values are loaded once for two tokens, tables once for 32 (16) rows. Counts, not times: no ARM machine has
// timed them. Without sdot a product takes as many instructions as in fp32, so level neon decodes the factors to fp32.
//
// Overflow. Stage 1: |sum_c d_c (u_c - 128)| <= 127 * 128 * b, b <= 256; packing chooses the shift so that z, whatever the
// order of its parts, fits int16. Stage 2: |sum c (z - 128)| <= 127 * 128 * B k, and (zero - 128) sum c no more than 127 * 127
// * B k: int32 is exact for B k <= 66311 with room; the head's sums stay below 2^30 after they are brought to the others' unit.
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "neon_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kTokens = 2, kPanel = 4, kCenter = 128;
constexpr size_t kTableBytes = 131072;  // z of a tile of tokens: small beside a second-level cache
constexpr int kLeastTile = 16, kLargestTile = 96;

inline V piece(const float* x, int count) { return count >= kWidth ? load(x) : load_part(x, count); }

struct Reach {
    uint32x4_t size = vdupq_n_u32(0);
    V low = zero(), high = zero();
    void widen(const float* x, int count) {
        const V v = piece(x, count);
        size = vmaxq_u32(size, vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0x7fffffff)));
        low = vmin(low, v);
        high = vmax(high, v);
    }
    bool finite() const { return vmaxvq_u32(size) < 0x7f800000u; }
    float most() const { return vmaxvq_f32(high); }
    float least() const { return vminvq_f32(low); }
};

inline void codes_at(const float* x, int from, int to, float inverse, int zero, uint8_t* values) {
    const V factor = set1(inverse);
    const int32x4_t offset = vdupq_n_s32(zero);
    for (int j = from; j < to; j += kWidth) {
        const int count = to - j < kWidth ? to - j : kWidth;
        const uint16x4_t words = vqmovun_s32(vaddq_s32(vcvtnq_s32_f32(mul(piece(x + j, count), factor)), offset));
        uint8_t bytes[8];
        vst1_u8(bytes, vqmovn_u16(vcombine_u16(words, words)));
        memcpy(values + j, bytes, size_t(count));
    }
}

#include "linear/kernels/tables_rows.inc.h"

inline int8x16_t less_128(uint8x16_t u) { return vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(0x80))); }

inline int8x16_t four_inputs(const uint8_t* u) {
    int32_t four;
    memcpy(&four, u, 4);
    return less_128(vreinterpretq_u8_s32(vdupq_n_s32(four)));
}

struct Area {         // scratch of a tile of tokens
    int16_t* wide;    // z in 16 bits: [token of kTokens][unit][64]
    uint8_t* tables;  // z in 8 bits, less 128: [token][table][slots]
    float *unit, *ratio;  // of a token's sums; of the head's unit to it
    int32_t* zeros;       // a token's zero point of z; that of the head `tile` tokens on
    int tile;
};

// Least and largest z of a token so far, lane by lane.
struct Ends {
    int16x8_t most = vdupq_n_s16(0), least = vdupq_n_s16(0);
};

// Stage 1 of TT tokens; [0]: the head's tables, [1]: the others.
template <int TT, bool kShared>
void analyse(const SparseI8& w, const Quantized& x, int token, int16_t* wide, Ends (&ends)[TT][2]) {
    const int units = w.tables * (w.slots / 64), head_units = w.head * (w.slots / 64);
    const int32x4_t shift = vdupq_n_s32(-w.shift);
    const int8_t* unit_atoms = w.atoms;
    for (int i = 0; i < units; i++, unit_atoms += w.steps * 256) {
        const int32_t* first = w.first + size_t(i) * size_t(w.zero_count) * 64;
        const int32_t* offset = w.offset + size_t(i) * 4;
        const bool head = i < head_units;
        for (int half = 0; half < 2; half++) {  // sums 0 and 1, then 2 and 3
            int32x4_t sum[TT][2][4];
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                const int32_t* start = first + w.start_of[(x.zero[token + t] >> (head ? 8 : 0)) & 255] + half * 32;
                LEANMATCH_UNROLL
                for (int g = 0; g < 2; g++) LEANMATCH_UNROLL
                for (int j = 0; j < 4; j++) sum[t][g][j] = vld1q_s32(start + g * 16 + j * 4);
            }
            const int8_t* atoms = unit_atoms + half * 128;
            for (int s = 0; s < w.steps; s++, atoms += 256) {
                int8x16_t v[TT][kShared ? 1 : 4];
                LEANMATCH_UNROLL
                for (int t = 0; t < TT; t++) {
                    const uint8_t* u = x.values + size_t(token + t) * x.stride + 4 * s;
                    LEANMATCH_UNROLL
                    for (int j = 0; j < (kShared ? 1 : 4); j++) v[t][j] = four_inputs(u + offset[j]);
                }
                LEANMATCH_UNROLL
                for (int g = 0; g < 2; g++) LEANMATCH_UNROLL
                for (int j = 0; j < 4; j++) {
                    const int8x16_t a = vld1q_s8(atoms + g * 64 + j * 16);
                    LEANMATCH_UNROLL
                    for (int t = 0; t < TT; t++) sum[t][g][j] = vdotq_s32(sum[t][g][j], a, v[t][kShared ? 0 : j]);
                }
            }
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                int16_t* out = wide + (size_t(t) * size_t(units) + size_t(i)) * 64 + half * 32;
                Ends& here = ends[t][head ? 0 : 1];
                LEANMATCH_UNROLL
                for (int j = 0; j < 4; j++) {
                    int16x8_t z = vcombine_s16(vqmovn_s32(vshlq_s32(sum[t][0][j], shift)),
                                               vqmovn_s32(vshlq_s32(sum[t][1][j], shift)));
                    if (w.scaled) z = vqrdmulhq_s16(z, vld1q_s16(w.atom_scale + size_t(i) * 64 + half * 32 + j * 8));
                    here.most = vmaxq_s16(here.most, z);
                    here.least = vminq_s16(here.least, z);
                    vst1q_s16(out + j * 8, z);
                }
            }
        }
    }
}

// The factor that brings z to 8 bits about the zero point that allows the largest one (of 2^15; 32767 leaves z that fits as it
// is), and what it divided by.
struct Rounding {
    int zero, factor;
    float back;
};

inline Rounding rounding_of(const Ends& ends, bool choose) {
    const int most = vmaxvq_s16(ends.most), least = vminvq_s16(ends.least);
    float best = 0.0f;
    int zero = kTableZeros[0];
    for (int i = 0; i < (choose ? 8 : 1); i++) {
        const float up = float(255 - kTableZeros[i]) / float(most > 1 ? most : 1);
        const float down = float(kTableZeros[i]) / float(least < -1 ? -least : 1), room = up < down ? up : down;
        if (room > best) best = room, zero = kTableZeros[i];
    }
    const int factor = best >= 1.0f ? 32767 : int(best * 32768.0f);
    return {zero, factor, best >= 1.0f ? 1.0f : 32768.0f / float(factor)};
}

// z of `units` units from 16 to 8 bits, less 128.
inline void narrow(const int16_t* wide, int units, const Rounding& by, uint8_t* tables) {
    const int16x8_t zero = vdupq_n_s16(int16_t(by.zero));
    const auto rounded = [&](const int16_t* z) {
        return vqmovun_s16(vaddq_s16(vqrdmulhq_n_s16(vld1q_s16(z), int16_t(by.factor)), zero));
    };
    for (int i = 0; i < units; i++, wide += 64, tables += 64)
        for (int j = 0; j < 4; j++)  // slots 16 j to 16 j + 15: sums 0 and 1, then 2 and 3
            vst1q_s8(reinterpret_cast<int8_t*>(tables) + 16 * j,
                     less_128(vcombine_u8(rounded(wide + 8 * j), rounded(wide + 32 + 8 * j))));
}

template <int TT>
void analyse_tokens(const SparseI8& w, const Quantized& x, int token, const Area& area, int place) {
    Ends ends[TT][2];
    if (w.unit_blocks == 1) analyse<TT, true>(w, x, token, area.wide, ends);
    else analyse<TT, false>(w, x, token, area.wide, ends);
    const int per_table = w.slots / 64, units = w.tables * per_table, head_units = w.head * per_table;
    for (int t = 0; t < TT; t++) {
        const int at = place + t;
        const int16_t* wide = area.wide + size_t(t) * size_t(units) * 64;
        uint8_t* tables = area.tables + size_t(at) * size_t(units) * 64;
        Rounding rest = rounding_of(ends[t][1], w.choose);
        float unit = x.scale[token + t] * w.atom_unit * rest.back;
        if (w.head) {
            const Rounding head = rounding_of(ends[t][0], w.choose);
            const float head_unit = x.head_scale[token + t] * w.atom_unit * head.back, least = head_unit / w.limit;
            if (unit < least) {  // never where one is NaN
                rest.factor = int(float(rest.factor) * (unit / least));
                unit = least;
            }
            area.ratio[at] = unit > 0.0f ? head_unit / unit : 0.0f;
            area.zeros[area.tile + at] = head.zero;
            narrow(wide, head_units, head, tables);
        }
        area.unit[at] = unit;
        area.zeros[at] = rest.zero;
        narrow(wide + size_t(head_units) * 64, units - head_units, rest, tables + size_t(head_units) * 64);
    }
}

template <bool kWide>
struct Table;
template <>
struct Table<false> {
    uint8x16x4_t low;
    explicit Table(const uint8_t* z) : low(vld1q_u8_x4(z)) {}
    uint8x16_t at(uint8x16_t index) const { return vqtbl4q_u8(low, index); }
};
template <>
struct Table<true> {
    uint8x16x4_t low, high;
    explicit Table(const uint8_t* z) : low(vld1q_u8_x4(z)), high(vld1q_u8_x4(z + 64)) {}
    uint8x16_t at(uint8x16_t index) const {
        return vqtbx4q_u8(vqtbl4q_u8(low, index), high, vsubq_u8(index, vdupq_n_u8(64)));
    }
};

// `count` tables of TT tokens, `bytes` apart from token to token, for G groups of 16 rows; a quad's codes are `step` apart.
template <int G, int TT, bool kWide>
inline void pairs(const uint8_t* codes, size_t step, const uint8_t* tables, size_t bytes, int count, int quads,
                  int32x4_t (&sum)[TT][G][4]) {
    for (int i = 0; i < count; i++, tables += kWide ? 128 : 64) {
        // A second table even where TT is 1: a compiler keeps named variables in registers, but not arrays of these.
        const Table<kWide> first(tables), second(tables + (TT > 1 ? bytes : 0));
        for (int q = 0; q < quads; q++, codes += step) {
            LEANMATCH_UNROLL
            for (int g = 0; g < G; g++) LEANMATCH_UNROLL
            for (int p = 0; p < 4; p++) {
                const uint8x16_t index = vld1q_u8(codes + g * 128 + p * 16);
                const int8x16_t values = vld1q_s8(reinterpret_cast<const int8_t*>(codes) + g * 128 + 64 + p * 16);
                sum[0][g][p] = vdotq_s32(sum[0][g][p], vreinterpretq_s8_u8(first.at(index)), values);
                if constexpr (TT > 1) sum[1][g][p] = vdotq_s32(sum[1][g][p], vreinterpretq_s8_u8(second.at(index)), values);
            }
        }
    }
}

// Groups `group` to `group + G` of 16 rows for TT tokens from `token` on of the tile.
template <int G, int TT, bool kWide>
void combine(const SparseI8& w, const Area& area, int group, int token, float* y, const Tail& tail) {
    static_assert(TT <= 2, "pairs has two tables");
    const int first = group / kPanel * kPanel, groups = (w.m + 15) / 16;
    const int in_panel = groups - first < kPanel ? groups - first : kPanel, row = group * 16;
    const size_t step = size_t(in_panel) * 128, bytes = size_t(w.tables) * size_t(w.slots);
    const uint8_t* codes =
        w.codes + size_t(first) * size_t(w.tables) * size_t(w.quads) * 128 + size_t(group - first) * 128;
    const uint8_t* tables = area.tables + size_t(token) * bytes;
    const int32_t* start = (w.head ? w.head_start : w.start) + row;
    const int32_t* zeros = area.zeros + token + (w.head ? area.tile : 0);
    int32x4_t sum[TT][G][4];
    LEANMATCH_UNROLL
    for (int g = 0; g < G; g++) LEANMATCH_UNROLL
    for (int p = 0; p < 4; p++) {
        const int32x4_t less = vld1q_s32(start + g * 16 + p * 4);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) sum[t][g][p] = vmulq_n_s32(less, zeros[t] - kCenter);
    }
    if (w.head) {
        pairs<G, TT, kWide>(codes, step, tables, bytes, w.head, w.quads, sum);
        codes += step * size_t(w.head) * size_t(w.quads);
        tables += size_t(w.head) * size_t(w.slots);
        LEANMATCH_UNROLL
        for (int g = 0; g < G; g++) LEANMATCH_UNROLL
        for (int p = 0; p < 4; p++) {  // from the head's unit to the others'
            const int32x4_t less = vld1q_s32(w.start + row + g * 16 + p * 4);
            LEANMATCH_UNROLL
            for (int t = 0; t < TT; t++) {
                const int32x4_t moved =
                    vcvtnq_s32_f32(mul(vcvtq_f32_s32(sum[t][g][p]), set1(area.ratio[token + t])));
                sum[t][g][p] = vmlaq_n_s32(moved, less, area.zeros[token + t] - kCenter);
            }
        }
    }
    pairs<G, TT, kWide>(codes, step, tables, bytes, w.tables - w.head, w.quads, sum);
    LEANMATCH_UNROLL
    for (int g = 0; g < G; g++) LEANMATCH_UNROLL
    for (int p = 0; p < 4; p++) {
        const int output = row + g * 16 + p * 4;
        if (output >= w.m) break;
        const V scale = load(w.scale + output), bias = load(tail.bias + output);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(output);
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr,
                       fma(mul(vcvtq_f32_s32(sum[t][g][p]), scale), set1(area.unit[token + t]), bias),
                       tail.activation, w.m - output);
        }
    }
}

template <int G, bool kWide>
void combine_tokens(const SparseI8& w, const Area& area, int group, int T, float* y, const Tail& tail) {
    int t = 0;
    for (; t + kTokens <= T; t += kTokens) combine<G, kTokens, kWide>(w, area, group, t, y, tail);
    for (; t < T; t++) combine<G, 1, kWide>(w, area, group, t, y, tail);
}

template <bool kWide>
void combine_tile(const SparseI8& w, const Area& area, int T, float* y, const Tail& tail) {
    const int groups = (w.m + 15) / 16;
    int g = 0;
    if constexpr (!kWide)
        for (; g + 2 <= groups; g += 2) combine_tokens<2, kWide>(w, area, g, T, y, tail);
    for (; g < groups; g++) combine_tokens<1, kWide>(w, area, g, T, y, tail);
}

size_t table_bytes(const SparseI8& w) { return size_t(w.tables) * size_t(w.slots); }

int tile_tokens(const SparseI8& w, int T) {
    const size_t fit = kTableBytes / table_bytes(w) / kTokens * kTokens;
    const int tile = fit < kLeastTile ? kLeastTile : fit > kLargestTile ? kLargestTile : int(fit);
    return T < tile ? T : tile;
}

}  // namespace

void quantize_tables_neon_dotprod(const SparseI8& w, const float* x, int T, uint8_t* values, float* scale, int32_t* zero,
                                  float* head_scale, size_t stride) {
    quantize_tables(w, x, T, values, scale, zero, head_scale, stride);
}

size_t dense_sparse_i8_scratch_neon_dotprod(const SparseI8& w, int T) {
    const size_t tile = size_t(tile_tokens(w, T));
    return (tile + 2 * kTokens) * table_bytes(w) + 4 * tile * sizeof(float);
}

void dense_sparse_i8_neon_dotprod(const SparseI8& w, const Quantized& x, int T, float* y, const Tail& tail,
                                  void* scratch) {
    const int tile = tile_tokens(w, T);
    Area area;
    area.wide = static_cast<int16_t*>(scratch);
    area.tables = reinterpret_cast<uint8_t*>(area.wide + kTokens * table_bytes(w));
    area.unit = reinterpret_cast<float*>(area.tables + size_t(tile) * table_bytes(w));
    area.ratio = area.unit + tile;
    area.zeros = reinterpret_cast<int32_t*>(area.ratio + tile);
    area.tile = tile;
    for (int t = 0; t < T; t += tile) {
        const int count = T - t < tile ? T - t : tile;
        Tail here = tail;
        if (here.residual) here.residual += size_t(t) * size_t(w.m);
        float* yt = y + size_t(t) * size_t(w.m);
        int i = 0;
        for (; i + kTokens <= count; i += kTokens) analyse_tokens<kTokens>(w, x, t + i, area, i);
        for (; i < count; i++) analyse_tokens<1>(w, x, t + i, area, i);
        if (w.slots == 128) combine_tile<true>(w, area, count, yt, here);
        else combine_tile<false>(w, area, count, yt, here);
    }
}

}  // namespace linear
}  // namespace leanmatch

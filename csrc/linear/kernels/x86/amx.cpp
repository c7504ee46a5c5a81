// Dense int8 and bf16 on AMX tiles (level avx512_amx), 16 tokens x 16 rows x 64 bytes of inputs an instruction.
//
// The packed layouts of the vector kernels serve as they are: 16 steps of one group are 16 rows of 64 bytes, which is
// a tile of B in the order that the instructions want. 32 tokens x 32 rows, four sums in tiles: a chunk of 64 bytes
// takes four loads of tiles and four multiplications. Below kFewTokens rows of a tile would mostly be empty, and the
// vector kernel of int8 runs: its int32 sums are equal, and both finish them alike, to the bit. tdpbf16ps adds in another
// order than vdpbf16ps, so bfloat16 takes tiles for any number of tokens.
//
// Overflow is that of dense_i8 (linear.h): the sums are the same int32.
#include <immintrin.h>
#include <string.h>

#include "linear/kernels.h"
#include "linear/peaks_kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "avx512_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kPanel = 4, kRows = 16, kChunk = 64;
constexpr int kFewTokens = 5;
static_assert(kDenseI8Vnni.lanes == 16 && kDenseI8Vnni.panel == kPanel && kDenseI8Vnni.depth == 4, "a step is 64 bytes");
static_assert(kDenseBf16.lanes == 16 && kDenseBf16.panel == kPanel && kDenseBf16.depth == 2, "a step is 64 bytes");
static_assert(kAmxSlack == (kRows - 1) * kPanel * kChunk, "a chunk may begin in the last step of a full panel");

struct alignas(64) TileShapes {  // Intel SDM, LDTILECFG, palette 1
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_a_row[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0 to 3 are sums [tokens of the block][rows of the pair], 4 and 5 inputs, 6 and 7 weights.
void shape_tiles(int first, int second) {
    TileShapes shapes;
    const int tokens[8] = {first, first, second, second, first, second, kRows, kRows};
    for (int i = 0; i < 8; i++)
        if (tokens[i]) shapes.bytes_a_row[i] = kChunk, shapes.rows[i] = uint8_t(tokens[i]);
#if defined(__GNUC__)
    // GCC's intrinsics tell it of 8 bytes of the configuration, and of none that tiles are loaded from: without this,
    // stores before them could be dropped or come after.
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
#else
    _tile_loadconfig(&shapes);
#endif
}

// Products of 64-byte rows; a macro, since an intrinsic's tiles must be literals.
#define LEANMATCH_DOT(sum, x, w)                           \
    if constexpr (Kind::kExact) _tile_dpbf16ps(sum, x, w); \
    else _tile_dpbusd(sum, x, w)

// Sums of one or two blocks of 16 tokens with one or two groups of 16 rows.
template <class Kind, int kBlocks, int kGroups>
void multiply(const unsigned char* x, size_t x_stride, const unsigned char* w, size_t w_stride, int chunks,
              int32_t (*sums)[kRows * 16]) {
    _tile_zero(0);
    if constexpr (kGroups > 1) _tile_zero(1);
    if constexpr (kBlocks > 1) _tile_zero(2);
    if constexpr (kBlocks > 1 && kGroups > 1) _tile_zero(3);
    for (int c = 0; c < chunks; c++, x += kChunk, w += kRows * w_stride) {
        _tile_loadd(6, w, w_stride);
        _tile_loadd(4, x, x_stride);
        LEANMATCH_DOT(0, 4, 6);
        if constexpr (kGroups > 1) {
            _tile_loadd(7, w + kChunk, w_stride);
            LEANMATCH_DOT(1, 4, 7);
        }
        if constexpr (kBlocks > 1) {
            _tile_loadd(5, x + kRows * x_stride, x_stride);
            LEANMATCH_DOT(2, 5, 6);
            if constexpr (kGroups > 1) {
                LEANMATCH_DOT(3, 5, 7);
            }
        }
    }
    _tile_stored(0, sums[0], kChunk);
    if constexpr (kGroups > 1) _tile_stored(1, sums[1], kChunk);
    if constexpr (kBlocks > 1) _tile_stored(2, sums[2], kChunk);
    if constexpr (kBlocks > 1 && kGroups > 1) _tile_stored(3, sums[3], kChunk);
}
#undef LEANMATCH_DOT

struct Int8 {
    static constexpr bool kExact = false;
    const Dense& w;
    const Quantized& x;
    // What becomes of 16 rows from `first` on of a token's sums; rounded as dense_i8_vnni rounds.
    V finish(const int32_t* sums, int first, size_t token, V bias) const {
        const __m512i shifted = _mm512_mullo_epi32(_mm512_loadu_si512(w.row_sum + first), _mm512_set1_epi32(x.zero[token]));
        const V exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums), shifted));
        return fma(mul(exact, load(w.scale + first)), set1(x.scale[token]), bias);
    }
};

struct Bf16 {
    static constexpr bool kExact = true;
    V finish(const int32_t* sums, int, size_t, V bias) const {
        return add(_mm512_castsi512_ps(_mm512_load_si512(sums)), bias);
    }
};

// One or two blocks of tokens with one or two groups of rows, then the epilogue.
template <class Kind, int kBlocks, int kGroups>
void block(const Kind& kind, int m, const unsigned char* x, size_t x_stride, const unsigned char* weights, size_t w_stride,
           int chunks, int row, int token, int count, float* y, const Tail& tail) {
    alignas(64) int32_t sums[4][kRows * 16];
    multiply<Kind, kBlocks, kGroups>(x + size_t(token) * x_stride, x_stride, weights, w_stride, chunks, sums);
    for (int g = 0; g < kGroups; g++) {
        const int first = row + g * 16;
        if (first >= m) break;
        const V bias = load(tail.bias + first);
        for (int t = 0; t < count; t++) {
            const size_t at = size_t(token + t) * size_t(m) + size_t(first);
            const V v = kind.finish(sums[t / kRows * 2 + g] + t % kRows * 16, first, size_t(token + t), bias);
            put<Kind::kExact>(y + at, tail.residual ? tail.residual + at : nullptr, v, tail.activation, m - first);
        }
    }
}

// packed: [panel][step of 64 bytes a group][group of the panel], as arrange() in dense.cpp lays it.
template <class Kind>
void run(const Kind& kind, int m, int steps, const void* packed, const void* values, size_t x_stride, int T, float* y,
         const Tail& tail) {
    const unsigned char *weights = static_cast<const unsigned char*>(packed), *x = static_cast<const unsigned char*>(values);
    const int groups = (m + 15) / 16, chunks = (steps + kRows - 1) / kRows, whole = T / (2 * kRows) * 2 * kRows, rest = T - whole;
    for (int g = 0; g < groups; g += kPanel) {
        const int panel = groups - g < kPanel ? groups - g : kPanel;
        const unsigned char* from = weights + size_t(g) * size_t(steps) * kChunk;
        const size_t w_stride = size_t(panel) * kChunk;
        const auto all = [&](int token, int count) {
            for (int p = 0; p < panel; p += 2) {
                const auto go = [&](auto function) {
                    function(kind, m, x, x_stride, from + p * kChunk, w_stride, chunks, (g + p) * 16, token, count, y, tail);
                };
                const bool two = panel - p > 1;
                if (count > kRows) two ? go(block<Kind, 2, 2>) : go(block<Kind, 2, 1>);
                else two ? go(block<Kind, 1, 2>) : go(block<Kind, 1, 1>);
            }
        };
        if (whole && (g == 0 || rest)) shape_tiles(kRows, kRows);
        for (int t = 0; t < whole; t += 2 * kRows) all(t, 2 * kRows);
        if (rest) {
            if (g == 0 || whole) shape_tiles(rest < kRows ? rest : kRows, rest > kRows ? rest - kRows : 0);
            all(whole, rest);
        }
    }
    _tile_release();
}

}  // namespace

// Inputs beyond n are zeros (QuantizedRows), so that what a last chunk takes of the next panel's weights, or of the
// slack behind the last one, counts for nothing.
void dense_i8_amx(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    if (T < kFewTokens) return dense_i8_vnni(w, x, T, y, tail);
    run(Int8{w, x}, w.m, (w.n + 3) / 4, w.packed, x.values, x.stride, T, y, tail);
}

// Only whole chunks: a weight of the next panel that is not finite would not vanish times zero. Which kernel runs must
// depend on the shape alone, see above.
void dense_bf16_amx(const Dense& w, const float* x, int T, float* y, const Tail& tail, uint16_t* scratch) {
    if (w.n % 32) return dense_bf16_avx512(w, x, T, y, tail, scratch);
    for (size_t at = 0; at < size_t(T) * size_t(w.n); at += 32) {
        const __m512bh rounded = _mm512_cvtne2ps_pbh(load(x + at + 16), load(x + at));
        memcpy(scratch + at, &rounded, sizeof(rounded));
    }
    run(Bf16{}, w.m, w.n / 2, w.packed, scratch, size_t(w.n) * sizeof(uint16_t), T, y, tail);
}

// Tiles 0 to 3 in turn; what they hold does not matter.
long long tdpbusd_amx(long count) {
    shape_tiles(kRows, kRows);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long i = 0; i < count / 4; i++) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_release();
    return count;
}

}  // namespace linear
}  // namespace leanmatch

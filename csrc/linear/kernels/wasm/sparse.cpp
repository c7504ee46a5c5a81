// dense_sparse_i16: dense-sparse factors with WebAssembly's 128-bit SIMD, in 16 bits, lanes = tokens.
//
// A tile is 16 tokens, or 8 where no more are left. Of each token:
//
//   x   int16, the largest |x| at 32,767 (rounding.inc.h), as [pair of inputs][token][2]
//   z   D_i x_i in int32, exact; times the atom's scale and the token's gain to int16, [atom][token]
//   y   int16: the sum over a row's nonzeros of (code * z + 2^14) >> 15, one rounding multiplication and one addition for each
//       nonzero and eight tokens; codes are brought to 16 bits, rows of large norm to smaller ones
//
// Blocks are taken `chunk` at a time, so that their z stays in the first-level cache; each chunk has gains of its own, and its y are
// summed in float32. The gain makes z and y fit, whatever the weights are: |z| <= A_i |x_i| with A_i the largest norm of an atom of
// block i, and |y| <= R |x| with R the largest norm of a row of the chunk's S D and x its inputs (Cauchy, Schwarz), plus a unit for
// every nonzero, half of it for the rounding of z and half for that of the product. Partial sums may overflow: additions wrap around,
// and so only the whole sum has to fit.
//
// The product is i16x8.q15mulr_sat_s, for which an engine on x86-64 needs five instructions, four of them for -2^15 * -2^15. Codes are
// above -2^15, so the relaxed form, one instruction, gives the same bits: LEANMATCH_RELAXED is the build that has it.
#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "vectors.inc.h"
#include "rounding.inc.h"
#include "linear/kernels/vector_math.inc.h"

constexpr int kFour = 4, kSteps = 32767, kRows = kSparseI16Together;

inline V product(V a, V b) {
#if defined(__wasm_relaxed_simd__)
    return wasm_i16x8_relaxed_q15mulr(a, b);
#else
    return wasm_i16x8_q15mulr_sat(a, b);
#endif
}

// Tokens of a tile, in vectors of eight: the arrays above; z and gains are those of a chunk.
struct Tile {
    int16_t *x, *z;
    float* y;
    float units[16], gain[16], out[16];  // of a token: what x is worth; z over its exact number; what y is worth
};

template <int U>
void round_inputs(const SparseI16& w, const float* x, int count, const Tile& tile, float* units) {
    for (int t = 0; t < 8 * U; t += kFour) {
        const int here = count - t < 0 ? 0 : count - t < kFour ? count - t : kFour;
        round_rows(x + size_t(here ? t : 0) * size_t(w.n), here, w.n, kSteps, tile.x + t * 2, U * 16, units + t);
    }
}

// Sums of squares of a block's inputs, four tokens a vector.
template <int U>
inline void squares_of(const int16_t* x, int steps, V* sum) {
    LEANMATCH_UNROLL
    for (int g = 0; g < 2 * U; g++) sum[g] = zero();
    for (int step = 0; step < steps; step++, x += U * 16) {
        LEANMATCH_UNROLL
        for (int g = 0; g < 2 * U; g++) {
            const V pairs = wasm_v128_load(x + g * 8);
            sum[g] = add(sum[g], wasm_f32x4_convert_i32x4(wasm_i32x4_dot_i16x8(pairs, pairs)));
        }
    }
}

template <int U>
void find_gains(const SparseI16& w, int chunk, int blocks, Tile& tile) {
    V squares[2 * U], most[2 * U];
    for (int g = 0; g < 2 * U; g++) squares[g] = most[g] = zero();
    const int steps = w.b / 2, first = chunk * w.chunk;
    for (int i = first; i < first + blocks; i++) {
        V sum[2 * U];
        squares_of<U>(tile.x + size_t(i) * size_t(steps) * U * 16, steps, sum);
        for (int g = 0; g < 2 * U; g++) {
            squares[g] = add(squares[g], sum[g]);
            most[g] = vmax(mul(sum[g], set1(w.norm[i] * w.norm[i])), most[g]);
        }
    }
    const V rows = set1(w.row_norm[chunk] * w.row_norm[chunk]);
    for (int g = 0; g < 2 * U; g++) store(tile.gain + 4 * g, wasm_f32x4_sqrt(vmax(most[g], mul(squares[g], rows))));
    const float limit = 32760.0f - float(blocks * w.k);
    for (int t = 0; t < 8 * U; t++) {
        const float largest = tile.gain[t] * 1.0001f;
        tile.gain[t] = largest > 0.0f ? limit / largest : 0.0f;
        tile.out[t] = largest > 0.0f ? tile.units[t] / tile.gain[t] : tile.units[t] * 0.0f;  // NaN stays NaN
    }
}

// z of A atoms of one block.
template <int U, int A>
inline void analyse(const int16_t* atoms, const float* scale, const int16_t* x, int steps, const float* gain, int16_t* z) {
    V sum[A][2 * U];
    LEANMATCH_UNROLL
    for (int a = 0; a < A; a++) LEANMATCH_UNROLL
    for (int g = 0; g < 2 * U; g++) sum[a][g] = wasm_i32x4_const_splat(0);
#pragma GCC unroll 1
    for (int step = 0; step < steps; step++, atoms += 2, x += U * 16) {
        V inputs[2 * U];
        LEANMATCH_UNROLL
        for (int g = 0; g < 2 * U; g++) inputs[g] = wasm_v128_load(x + g * 8);
        LEANMATCH_UNROLL
        for (int a = 0; a < A; a++) {
            const V pair = wasm_v128_load32_splat(atoms + a * steps * 2);
            LEANMATCH_UNROLL
            for (int g = 0; g < 2 * U; g++) sum[a][g] = wasm_i32x4_add(sum[a][g], wasm_i32x4_dot_i16x8(pair, inputs[g]));
        }
    }
    LEANMATCH_UNROLL
    for (int a = 0; a < A; a++) {
        const V unit = set1(scale[a]);
        LEANMATCH_UNROLL
        for (int u = 0; u < U; u++) {
            V half[2];
            LEANMATCH_UNROLL
            for (int h = 0; h < 2; h++)
                half[h] = mul(mul(wasm_f32x4_convert_i32x4(sum[a][2 * u + h]), unit), load(gain + 8 * u + 4 * h));
            wasm_v128_store(z + a * 16 + u * 8, narrowed(half[0], half[1]));
        }
    }
}

// y of kRows rows, `terms` nonzeros each: [nonzero][row]. An atom's z begins at `place` in units of bytes.
template <int U>
inline void combine(const uint16_t* place, const int16_t* codes, int terms, const int16_t* zs, const float* worth, float* y,
                    bool first) {
    const char* z = reinterpret_cast<const char*>(zs);
    V sum[kRows][U];
    LEANMATCH_UNROLL
    for (int i = 0; i < kRows; i++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) sum[i][u] = wasm_i16x8_const_splat(0);
#pragma GCC unroll 1
    for (int q = 0; q < terms; q++, place += kRows, codes += kRows) {
        LEANMATCH_UNROLL
        for (int i = 0; i < kRows; i++) {
            const char* from = z + place[i];
            const V code = wasm_v128_load16_splat(codes + i);
            LEANMATCH_UNROLL
            for (int u = 0; u < U; u++)
                sum[i][u] = wasm_i16x8_add(sum[i][u], product(code, wasm_v128_load(from + u * 16)));
        }
    }
    LEANMATCH_UNROLL
    for (int i = 0; i < kRows; i++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) {
        const V half[2] = {wasm_i32x4_extend_low_i16x8(sum[i][u]), wasm_i32x4_extend_high_i16x8(sum[i][u])};
        float* to = y + (i * U + u) * 8;
        LEANMATCH_UNROLL
        for (int h = 0; h < 2; h++) {
            const V part = mul(wasm_f32x4_convert_i32x4(half[h]), load(worth + u * 8 + h * 4));
            store(to + h * 4, first ? part : add(load(to + h * 4), part));
        }
    }
}

// Outputs of four rows and of `count` tokens, at most four; y and the residual begin at the first of these. Sums of a row are `stride`
// apart.
void finish(const SparseI16& w, const float* sums, int stride, int row, int count, float* y, const Tail& tail) {
    V rows[kFour];
    LEANMATCH_UNROLL
    for (int i = 0; i < kFour; i++) rows[i] = load(sums + i * stride);
    transpose(rows);
    const V scale = load(w.scale + row), bias = load(tail.bias + row);
    size_t at = size_t(row);
#pragma GCC unroll 1
    for (int t = 0; t < count; t++, at += size_t(w.m))
        put<false>(y + at, tail.residual ? tail.residual + at : nullptr, fma(rows[t], scale, bias), tail.activation, w.m - row);
}

template <int U>
void run_tile(const SparseI16& w, const float* x, int count, float* y, const Tail& tail, int16_t* scratch) {
    Tile tile;
    tile.x = scratch;
    tile.z = tile.x + rounded_columns(w.n) * 16;
    tile.y = reinterpret_cast<float*>(tile.z + size_t(w.chunk) * size_t(w.r) * 16);
    round_inputs<U>(w, x, count, tile, tile.units);
    const int blocks = w.n / w.b, steps = w.b / 2, rows = sparse_i16_rows(w.m);
    const uint16_t* place = w.place;
    const int16_t* codes = w.codes;
    for (int chunk = 0; chunk * w.chunk < blocks; chunk++) {
        const int first = chunk * w.chunk, here = blocks - first < w.chunk ? blocks - first : w.chunk, terms = here * w.k;
        find_gains<U>(w, chunk, here, tile);
        for (int i = 0; i < here; i++) {
            const size_t atom = size_t(first + i) * size_t(w.r);
            const int16_t* inputs = tile.x + size_t(first + i) * size_t(steps) * U * 16;
            int16_t* z = tile.z + size_t(i) * size_t(w.r) * 16;
            int a = 0;
            for (; a + 2 <= w.r; a += 2)
                analyse<U, 2>(w.atoms + (atom + size_t(a)) * size_t(w.b), w.atom_scale + atom + a, inputs, steps, tile.gain,
                              z + a * 16);
            if (a < w.r)
                analyse<U, 1>(w.atoms + (atom + size_t(a)) * size_t(w.b), w.atom_scale + atom + a, inputs, steps, tile.gain,
                              z + a * 16);
        }
        for (int row = 0; row < rows; row += kRows, place += kRows * terms, codes += kRows * terms)
            combine<U>(place, codes, terms, tile.z, tile.out, tile.y + size_t(row) * U * 8, chunk == 0);
    }
    for (int t = 0; t < count; t += kFour) {
        const size_t from = size_t(t) * size_t(w.m);
        const Tail here{tail.bias, tail.residual ? tail.residual + from : nullptr, tail.activation};
        for (int row = 0; row < w.m; row += kFour)
            finish(w, tile.y + row * U * 8 + t, U * 8, row, count - t < kFour ? count - t : kFour, y + from, here);
    }
}

}  // namespace

float sparse_row_squares_wasm(const int16_t* atoms, const float* atom_scale, const uint16_t* indices, const int8_t* values,
                              int blocks, int b, int r, int k) {
    float total = 0.0f;
    for (int i = 0; i < blocks; i++, atoms += r * b, atom_scale += r, indices += k, values += k) {
        V squares = zero();
        for (int j = 0; j < b; j += kWidth) {
            V sum = zero();
            for (int q = 0; q < k; q++) {
                const int16_t* from = atoms + indices[q] * b + j;
                int16_t last[kWidth] = {0, 0, 0, 0};
                if (b - j < kWidth) from = static_cast<const int16_t*>(memcpy(last, from, sizeof(int16_t) * size_t(b - j)));
                sum = fma(wasm_f32x4_convert_i32x4(wasm_i32x4_load16x4(from)), set1(float(values[q]) * atom_scale[indices[q]]), sum);
            }
            squares = fma(sum, sum, squares);
        }
        float lanes[kWidth];
        store(lanes, squares);
        total += (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
    return total;
}

size_t dense_sparse_i16_scratch_wasm(const SparseI16& w) {
    return sizeof(int16_t) * 16 * (rounded_columns(w.n) + size_t(w.chunk) * size_t(w.r)) +
           sizeof(float) * 16 * size_t(sparse_i16_rows(w.m));
}

void dense_sparse_i16_wasm(const SparseI16& w, const float* x, int T, float* y, const Tail& tail, void* scratch) {
    for (int t = 0; t < T;) {
        const int count = T - t < 16 ? T - t : 16;
        Tail here = tail;
        if (here.residual) here.residual += size_t(t) * size_t(w.m);
        const auto run = count > 8 ? run_tile<2> : run_tile<1>;
        run(w, x + size_t(t) * size_t(w.n), count, y + size_t(t) * size_t(w.m), here, static_cast<int16_t*>(scratch));
        t += count;
    }
}

}  // namespace linear
}  // namespace leanmatch

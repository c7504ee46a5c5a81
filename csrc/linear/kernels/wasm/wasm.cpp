// The linear paths with WebAssembly's 128-bit SIMD: vectors of 4 floats; int8 by i32x4.dot_i16x8_s.
//
// There is no fused multiply-add. An engine on x86-64 gives out 15 of 16 vector registers, so a micro-kernel has 8 sums: 4
// tokens x 2 vectors of 4 rows, with 2 vectors of weights, 1 input and 1 product beside them.
//
// int8: weights are stored in 8 bits and widened as they are loaded. The product is one of 16-bit numbers, so activations are
// rounded to 16 bits, which costs no more than 8 would and makes their error small beside that of the weights. Tokens stand four
// by four: [4 tokens][step of 2 inputs][token][2]. A step of 2 inputs is 8 dots, 8 additions, 2 widening loads of weights and 4
// broadcasting loads of inputs for 64 multiply-adds: 22 instructions. |sum| <= 127 * i16_steps(n) * n < 2^31.
#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "vectors.inc.h"
#include "rounding.inc.h"

constexpr int kTokens = 4, kPanel = 2, kAtoms = 2;
static_assert(kDenseF32Wasm.lanes == kWidth && kDenseF32Wasm.panel == kPanel, "packed for this kernel");
#include "linear/kernels/vector_math.inc.h"
#include "linear/kernels/f32.inc.h"

constexpr int kTokensI8 = 4, kPanelI8 = 2;
static_assert(kDenseI8Wasm.lanes == kWidth && kDenseI8Wasm.panel == kPanelI8 && kDenseI8Wasm.depth == 2,
              "packed for this");

int steps_of(int n) { return (n + 1) / 2; }
size_t block_values(int n) { return rounded_columns(n) * kTokensI8; }  // of four tokens

// Outputs of PP vectors of rows and TT tokens. Not unrolled: a copy of the activation for each would be half of the module.
[[gnu::noinline]] void finish(const Dense& w, const V* sums, int TT, int PP, int row, const float* units, float* y, const Tail& tail,
                              int token) {
#pragma GCC unroll 1
    for (int p = 0; p < PP; p++) {
        const int first = row + p * kWidth;
        const V scale = load(w.scale + first), bias = load(tail.bias + first);
        size_t at = size_t(token) * size_t(w.m) + size_t(first);
#pragma GCC unroll 1
        for (int t = 0; t < TT; t++, at += size_t(w.m)) {
            const V v = mul(wasm_f32x4_convert_i32x4(sums[t * PP + p]), scale);
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr, fma(v, set1(units[token + t]), bias), tail.activation,
                       w.m - first);
        }
    }
}

template <int TT, int PP>
void i8_tile(const Dense& w, const int8_t* weights, int row, const int16_t* inputs, const float* units, float* y,
             const Tail& tail, int token) {
    V sum[TT][PP];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) sum[t][p] = wasm_i32x4_const_splat(0);
    // One step a turn: unrolled, the compiler moves loads of later steps up, and engines, which keep the order that they are
    // given, spill registers: 14 GMAC/s instead of 40 with four steps.
#pragma GCC unroll 1
    for (int step = steps_of(w.n); step > 0; step--, weights += PP * 8, inputs += kTokensI8 * 2) {
        V weight[PP];
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) weight[p] = wasm_i16x8_load8x8(weights + p * 8);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            const V pair = wasm_v128_load32_splat(inputs + t * 2);
            LEANMATCH_UNROLL
            for (int p = 0; p < PP; p++) sum[t][p] = wasm_i32x4_add(sum[t][p], wasm_i32x4_dot_i16x8(pair, weight[p]));
        }
    }
    V sums[TT * PP];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) sums[t * PP + p] = sum[t][p];
    finish(w, sums, TT, PP, row, units, y, tail, token);
}

template <int PP, int TT = kTokensI8>
void i8_tokens(int count, const Dense& w, const int8_t* weights, int row, const int16_t* inputs,
               const float* units, float* y, const Tail& tail, int token) {
    if constexpr (TT > 1) {
        if (count < TT) return i8_tokens<PP, TT - 1>(count, w, weights, row, inputs, units, y, tail, token);
    }
    i8_tile<TT, PP>(w, weights, row, inputs, units, y, tail, token);
}

template <int PP = kPanelI8>
void i8_panel(int groups, const Dense& w, const int8_t* weights, int row, const int16_t* inputs, const float* units,
              int T, float* y, const Tail& tail) {
    if constexpr (PP > 1) {
        if (groups < PP) return i8_panel<PP - 1>(groups, w, weights, row, inputs, units, T, y, tail);
    }
    for (int t = 0; t < T; t += kTokensI8, inputs += block_values(w.n))
        i8_tokens<PP>(T - t, w, weights, row, inputs, units, y, tail, t);
}

}  // namespace

float round_row_wasm(const float* row, int n, int8_t* codes) {
    const float largest = largest_of(row, n);
    const V inverse = set1(largest > 1e-30f ? 127.0f / largest : 0.0f);
    for (int j = 0; j < n; j += 8) {
        const V words = narrowed(mul(load_upto(row + j, n - j), inverse), mul(load_upto(row + j + 4, n - j - 4), inverse));
        int8_t eight[16];
        wasm_v128_store(eight, wasm_i8x16_narrow_i16x8(words, words));
        memcpy(codes + j, eight, size_t(n - j < 8 ? n - j : 8));
    }
    return largest / 127.0f;
}

int place_row_wasm(const int8_t* codes, int m, int n, int i, int8_t* packed) {
    const int panel = i / (kWidth * kPanelI8), left = (m + kWidth - 1) / kWidth - panel * kPanelI8;
    const size_t stride = size_t(left < kPanelI8 ? left : kPanelI8) * kWidth * 2;
    int8_t* out = packed + size_t(panel) * size_t(steps_of(n)) * kPanelI8 * kWidth * 2 + size_t(i % (kWidth * kPanelI8)) * 2;
    int lowest = 0;
    for (int j = 0; j < n; j++) lowest = codes[j] < lowest ? codes[j] : lowest;
    for (int j = 0; j + 1 < n; j += 2, out += stride) memcpy(out, codes + j, 2);
    if (n % 2) *out = codes[n - 1];
    return lowest;
}

void dense_f32_wasm(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    dense_f32(w, x, T, y, tail);
}

void dense_sparse_f32_wasm(const SparseF32& w, const float* x, int T, float* y, const Tail& tail, float* scratch) {
    dense_sparse_f32(w, x, T, y, tail, scratch);
}

size_t dense_i8_i16_scratch_wasm(int T, int n) {
    const size_t blocks = size_t((T + kTokensI8 - 1) / kTokensI8);
    return blocks * (block_values(n) * sizeof(int16_t) + kTokensI8 * sizeof(float));
}

void dense_i8_i16_wasm(const Dense& w, const float* x, int T, float* y, const Tail& tail, void* scratch) {
    int16_t* inputs = static_cast<int16_t*>(scratch);
    float* units = reinterpret_cast<float*>(inputs + size_t((T + kTokensI8 - 1) / kTokensI8) * block_values(w.n));
    for (int t = 0; t < T; t += kTokensI8)
        round_rows(x + size_t(t) * size_t(w.n), T - t < kTokensI8 ? T - t : kTokensI8, w.n, i16_steps(w.n),
                   inputs + size_t(t / kTokensI8) * block_values(w.n), kTokensI8 * 2, units + t);
    const int groups = (w.m + kWidth - 1) / kWidth;
    const size_t group_bytes = size_t(steps_of(w.n)) * 8;
    for (int g = 0; g < groups; g += kPanelI8)
        i8_panel(groups - g, w, static_cast<const int8_t*>(w.packed) + size_t(g) * group_bytes, g * kWidth, inputs, units, T,
                 y, tail);
}

}  // namespace linear
}  // namespace leanmatch

// The encoder's kernels beside the linear layers: embedding rows, norms, activations, rotations, attention, pooling.
//
// One body (body.h) is compiled once a level, over that level's vector of W floats (portable.cpp: 4,
// neon.cpp and wasm.cpp: 4, avx2.cpp: 8, avx512.cpp: 16). All arithmetic is float32; no kernel reads or writes outside the ranges below.
//
// Tolerances against float64 (tests/runtime/test_ops.py holds them):
//   exp      relative 2e-7 on [-87, 88], exactly 0 below -87.3 (inside softmax only)
//   gelu     absolute 2e-6 max(1, |x|) (a degree-12 polynomial in x^2 for Phi, |x| clamped to 5.25)
//   gelu_tanh, tanh, silu, sigmoid   absolute 1e-6 max(1, |x|) (through exp)
//   layer_norm, rms_norm, attention, pooling: float32 sums, error about 1e-7 times the square root of the length
//   rotate   two roundings a number
#pragma once

#include <cstddef>
#include <cstdint>

namespace leanmatch {
namespace encoder {

enum class Activation : int { none, gelu, relu, gelu_tanh, tanh, silu, sigmoid };

// Factors of an embedding table (DenseSparse of leanmatch.factorization): row v is, block by block,
// sum_j value_scale[v] * values[v, i, j] * atoms[i, indices[v, i, j], :].
struct SparseRows {
    const float* atoms;              // (blocks, atoms_per_block, width)
    const std::uint16_t* indices;    // (rows, blocks, nonzeros)
    const std::int8_t* codes;        // (rows, blocks, nonzeros), or null: `values` instead
    const float* code_scale;         // (rows)
    const float* values;             // (rows, blocks, nonzeros), or null
    std::size_t blocks, atoms_per_block, width, nonzeros;
};

// One head of one text, queries `from` to `to`. Rows are tokens, `stride` floats apart (`query_stride` in `query`,
// `out_stride` in `out`, whose first row is token 0 like the others'); `bias` (may be null) is indexed by key - query, from
// -(length - 1) to length - 1. A query sees the keys that are at most `window` tokens away; only they are computed.
struct Attention {
    const float* query;
    const float* key;
    const float* value;
    float* out;
    const float* bias;
    std::size_t query_stride, stride, out_stride, length, width, from, to;
    float scale;
    float* scratch;  // attention_scratch(length, width) floats
    std::size_t window = std::size_t(-1);
};

// The keys that some queries of a windowed attention need, from a multiple of a vector's `lanes` on, so that a sum has
// the same lanes and the same order whichever queries stand together: scores outside a query's own window add zeros.
struct Keys {
    std::size_t first, last, end;  // `last`: one behind the last key that a query sees; `end`: that, whole vectors
};
static inline Keys keys_of(const Attention& a, std::size_t from, std::size_t to, std::size_t lanes) {
    const std::size_t first = from > a.window ? (from - a.window) / lanes * lanes : 0;
    const std::size_t last = a.window < a.length && to + a.window < a.length ? to + a.window : a.length;
    return {first, last, (last + lanes - 1) / lanes * lanes};
}

struct Ops {
    // y += x
    void (*add)(const float* x, std::size_t count, float* y);
    // y = scale * q
    void (*dequantize)(const std::int8_t* q, float scale, std::size_t count, float* y);
    // y = row `row` of the factors
    void (*decode_row)(const SparseRows& factors, std::size_t row, float* y);
    // y += a * x
    void (*axpy)(float a, const float* x, std::size_t count, float* y);
    // y = gamma * (x - mean) / sqrt(variance + eps) + beta, row by row; x and y may be the same
    void (*layer_norm)(const float* x, const float* gamma, const float* beta, float eps, std::size_t rows,
                       std::size_t width, float* y);
    // y = gamma * x / sqrt(mean of squares + eps), row by row; x and y may be the same
    void (*rms_norm)(const float* x, const float* gamma, float eps, std::size_t rows, std::size_t width, float* y);
    void (*activate)(Activation kind, std::size_t count, float* x);
    // x (rows, 2 width) to (rows, width) in place: activation of a row's first half, times its second half
    void (*gate)(Activation kind, std::size_t rows, std::size_t width, float* x);
    // x (heads, 2 half), each head's halves (a, b) to (a cos - b sin, b cos + a sin); turn: `half` cosines, then sines
    void (*rotate)(const float* turn, std::size_t heads, std::size_t half, float* x);
    // y[t] = x[t] * factor, row by row
    void (*multiply_rows)(const float* x, const float* factor, std::size_t rows, std::size_t width, float* y);
    // out = softmax(scale * query key^T + bias) value, over the keys in a query's window
    void (*attention)(const Attention& head);
    // y = the mean (divisor: rows) or the maximum of the rows
    void (*sum_rows)(const float* x, std::size_t rows, std::size_t width, float* y);
    void (*max_rows)(const float* x, std::size_t rows, std::size_t width, float* y);
    // x /= max(|x|, floor)
    void (*normalize)(std::size_t width, float floor, float* x);
};

// Floats of scratch that one head needs: the keys (and values) packed, and some queries with their scores, padded to a vector.
inline std::size_t attention_scratch(std::size_t length, std::size_t width) {
    const std::size_t padded = (length + 63) / 64 * 64;
    return padded * (width + 8) + 4 * width + 64;
}

const Ops& ops_portable();
#if defined(__x86_64__) || defined(_M_X64)
const Ops& ops_avx2();
const Ops& ops_avx512();
// Ops::attention with bfloat16 products, where linear::has_bf16() and the width is a multiple of 32.
void attention_bf16(const Attention& head);
#elif defined(__aarch64__)
const Ops& ops_neon();
#elif defined(__wasm__)
const Ops& ops_wasm();
#endif
// The kernels of a level of this build, by its name; null: it has no such level.
const Ops* ops_of(const char* level);

}  // namespace encoder
}  // namespace leanmatch

// What the kernel files implement and linear.cpp calls: plain structures and functions, no standard library.
//
// Names are <op>_<dtype>_<isa>. "Padded" arrays have as many elements as the packed layout has rows, zeros at the
// end.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Before every loop over an array of vectors that must live in registers: one loop that is not unrolled sends the
// whole array to memory.
#define LEANMATCH_UNROLL _Pragma("GCC unroll 16")

namespace leanmatch {
namespace linear {

struct Tail {               // what happens to a sum before it is stored
    const float* bias;      // padded
    const float* residual;  // (T, m) or null
    int activation;         // an Activation
};

// Rows in groups of `lanes`, groups in panels of up to `panel`; inputs in steps of `depth`. Packed as
// [panel][step][group of the panel][lane][depth]; the last panel holds the groups that are left.
struct Layout {
    int lanes, panel, depth;
};
constexpr Layout kDenseF32Portable{4, 2, 1}, kDenseF32Avx2{8, 2, 1}, kDenseF32Avx512{16, 4, 1}, kDenseF32Neon{4, 4, 1},
    kDenseF32Wasm{4, 2, 1};
constexpr Layout kDenseBf16{16, 4, 2};
constexpr Layout kDenseI8Portable{1, 1, 1}, kDenseI8Avx2{8, 2, 4}, kDenseI8Vnni{16, 4, 4}, kDenseI8Neon{4, 4, 4},
    kDenseI8Wasm{4, 2, 2};

struct Dense {
    int m, n;
    const void* packed;
    const float* scale;      // padded; int8 only
    const int32_t* row_sum;  // padded; int8 only: sum of a row's codes
};

struct Quantized {
    const uint8_t* values;
    const float* scale;
    const int32_t* zero;
    size_t stride;
    const float* head_scale;  // dense_sparse_i8 with a head only
};

// Lanes are tokens. Blocks are taken `chunk` at a time, so that their z stays in the first-level cache.
struct SparseF32 {
    int m, n, b, r, k, chunk;
    const float* atoms;     // (B, r, b)
    const uint16_t* index;  // [chunk of blocks][row][block of the chunk][k]: block of the chunk * r + atom
    const float* values;    // the same order
};
constexpr int kSparseVectors = 4;  // vectors of tokens in a tile
// Scratch in floats for a tile of `tokens` lanes: x and y feature-major, z of a chunk.
inline size_t sparse_f32_floats(const SparseF32& w, int tokens) {
    return (size_t(w.n) + size_t(w.m) + size_t(w.chunk) * size_t(w.r)) * size_t(tokens);
}

// Lanes are tokens, numbers have 16 bits; see kernels/wasm/sparse.cpp. Arrays of rows have sparse_i16_rows(m) of them.
struct SparseI16 {
    int m, n, b, r, k, chunk;  // b is even
    const int16_t* atoms;      // (B, r, b): codes
    const float* atom_scale;   // (B, r)
    const float* norm;         // (B,): the largest norm of an atom
    const float* row_norm;     // of a chunk: the largest of a row of its product, codes as below over 2^15
    const uint16_t* place;     // [chunk of blocks][rows][block of the chunk][k][row of these]: bytes from z to that of the atom
    const int16_t* codes;      // the same order; 2^15 stands for 1
    const float* scale;        // of a row: what one unit of y is worth over that of z
};
inline int sparse_i16_rows(int m) { return (m + 3) / 4 * 4; }
constexpr int kSparseI16Bytes = 32;    // z of an atom: 16 tokens
constexpr int kSparseI16Together = 2;  // rows that are summed at a time

constexpr int kZeros = 5;  // zero points of the inputs that a token may choose from
constexpr int kTableZeros[8] = {128, 32, 52, 72, 90, 108, 148, 180};  // the same for z; the first where all fit
constexpr int kStartUnit = 128;

// z of some blocks side by side makes one table of `slots` (64 or 128) bytes; a unit is 64 slots. See vbmi.cpp and
// neon_tables.cpp, which take the same layout: a sum of 16 lanes is four vectors of 4 there.
//
// Products take their first operand, x and z, as uint8 (vpdpbusd) or as that less `center` = 128 in int8 (sdot); `first`
// and `start` have the center taken into account.
struct SparseI8 {
    int m, n;
    int tables, slots;
    int quads;              // groups of 4 nonzeros per row and table
    int steps;              // ceil(b / 4)
    int shift;              // int32 to int16 in stage 1
    int head;               // the first tables, whose inputs and z have scales of their own
    float limit;            // most that a unit of the head's sums may be of the others'
    int unit_blocks;        // blocks of a unit: 1; 2, half of its slots each; or up to 4
    bool scaled;            // atoms differ in scale
    float atom_unit;        // what one unit of the shifted, scaled z is worth, for x of scale 1
    int runs;                 // of inputs of the head and of the others by turns, as they lie
    const int32_t *run_ends;  // (runs,) where each ends and the next one begins
    const int32_t *run_of_head;
    const int8_t* atoms;    // [unit][step][4 sums][16 lanes][4]
    const int32_t* offset;  // [unit][128-bit lane]: first input of its block
    int center;             // 0, or 128 where products are of signed numbers
    const int32_t* first;   // [unit][zero point][4 sums][16 lanes]: half a unit of the shift, less (zero point - center) times
                            // the sum of the atom's codes
    int32_t start_of[256];  // zero point to its place in `first` of a unit
    bool choose;     // does a token choose its zero points of z?
    int zero_count;  // zero points of the inputs that it may choose from
    int zeros[kZeros];
    float per_up[kZeros], per_down[kZeros];  // 1 / (255 - zero), 1 / zero
    const int16_t* atom_scale;  // [unit][64]: atom's scale over the largest one, 15 bits; order: what packing gives
    const uint8_t* codes;       // [panel of 4 row groups][table][quad][row group][64 indices, 64 values]
    // padded: less the sum of a row's values, the head apart. In two parts, int16 + kStartUnit * int16, where center is 0.
    const int32_t *start, *head_start;
    const float* scale;                 // padded
};

#define LEANMATCH_F32(isa)                                                                             \
    void dense_f32_##isa(const Dense& w, const float* x, int T, float* y, const Tail& tail);           \
    void dense_sparse_f32_##isa(const SparseF32& w, const float* x, int T, float* y, const Tail& tail, \
                                float* scratch);
LEANMATCH_F32(portable)
LEANMATCH_F32(avx2)
LEANMATCH_F32(avx512)
LEANMATCH_F32(neon)
LEANMATCH_F32(wasm)
#undef LEANMATCH_F32

// values: (T, stride), see QuantizedRows.
#define LEANMATCH_QUANTIZE(isa)                                                                          \
    void quantize_rows_##isa(const float* x, int T, int n, uint8_t* values, float* scale, int32_t* zero, \
                             size_t stride);
LEANMATCH_QUANTIZE(portable)
LEANMATCH_QUANTIZE(avx2)
LEANMATCH_QUANTIZE(vnni)
LEANMATCH_QUANTIZE(neon)
#undef LEANMATCH_QUANTIZE

#define LEANMATCH_I8(isa) void dense_i8_##isa(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail);
LEANMATCH_I8(portable)
LEANMATCH_I8(avx2)
LEANMATCH_I8(vnni)
LEANMATCH_I8(neon)
LEANMATCH_I8(neon_dotprod)
#undef LEANMATCH_I8

// Rounds x to so many steps on either side of zero, in scratch, for at most 96 tokens.
inline int i16_steps(int n) {
    const int most = 2147483647 / (127 * n);
    return most < 32767 ? most : 32767;
}
size_t dense_i8_i16_scratch_wasm(int T, int n);
void dense_i8_i16_wasm(const Dense& w, const float* x, int T, float* y, const Tail& tail, void* scratch);
// Sum of the squares of one row of the product of some blocks' factors, (B, k) of it, by codes as they are.
float sparse_row_squares_wasm(const int16_t* atoms, const float* atom_scale, const uint16_t* indices, const int8_t* values,
                              int blocks, int b, int r, int k);
size_t dense_sparse_i16_scratch_wasm(const SparseI16& w);
void dense_sparse_i16_wasm(const SparseI16& w, const float* x, int T, float* y, const Tail& tail, void* scratch);
// A row of n weights to codes of -127 to 127; gives the row's scale, NaN where a weight is no finite number.
float round_row_wasm(const float* row, int n, int8_t* codes);
// The codes of row i of (m, n) to where dense_i8_i16_wasm reads them; gives the lowest code.
int place_row_wasm(const int8_t* codes, int m, int n, int i, int8_t* packed);

void dense_bf16_avx512(const Dense& w, const float* x, int T, float* y, const Tail& tail, uint16_t* scratch);

// The layouts of dense_i8_vnni and dense_bf16_avx512; of the first with so many bytes more behind it.
constexpr int kAmxSlack = 15 * 4 * 64;
void dense_i8_amx(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail);
void dense_bf16_amx(const Dense& w, const float* x, int T, float* y, const Tail& tail, uint16_t* scratch);

#define LEANMATCH_TABLES(isa)                                                                            \
    void quantize_tables_##isa(const SparseI8& w, const float* x, int T, uint8_t* values, float* scale,  \
                               int32_t* zero, float* head_scale, size_t stride);                         \
    size_t dense_sparse_i8_scratch_##isa(const SparseI8& w, int T);                                      \
    void dense_sparse_i8_##isa(const SparseI8& w, const Quantized& x, int T, float* y, const Tail& tail, \
                               void* scratch);
LEANMATCH_TABLES(vbmi)
LEANMATCH_TABLES(neon_dotprod)
#undef LEANMATCH_TABLES

}  // namespace linear
}  // namespace leanmatch

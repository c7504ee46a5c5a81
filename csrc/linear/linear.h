// Linear layers of an encoder, y = act(W x + bias) + residual, each weight packed once for one instruction set.
//
// A `Linear` is immutable after packing and may be run by many threads at once; a call is single-threaded and
// works on a range of tokens, so the caller threads over tokens and gives each thread a scratch area of its own.
// Packed layouts depend on the instruction set, which is therefore chosen when packing (`Isa`), never at a call.
//
// Axes: T tokens, m outputs, n inputs, b columns per block, B = n/b blocks, r atoms per block, k nonzeros per row
// and block. Arrays are row major and contiguous: x (T, n), y (T, m), weight (m, n), atoms (B, r, b), indices and
// values (m, B, k). T >= 0; m, n, b, r, k >= 1; b divides n.
//
// Paths
//   path              arithmetic                       accumulator        needs
//   dense_f32         fp32 multiply-add                fp32               any
//   dense_bf16        x and W rounded to bf16          fp32               avx512_bf16 (`has_bf16`)
//   dense_i8          uint8 x times int8 W             int32, exact       any but wasm
//   dense_i8_i16      int16 x times int8 W             int32, exact       wasm
//   dense_sparse_f32  z = D_i x_i, y += S_i z; fp32    fp32               r <= 65535 (indices: uint8 or uint16)
//   dense_sparse_i8   uint8 x, int8 D, uint8 z, int8 S int32, exact       r <= 128
//   dense_sparse_i16  int16 x, int8 D, int16 z, int8 S int32, then int16  wasm; even b, r <= 2048 and few nonzeros
//   low_rank          right, then left: two of these   theirs             any
//
// Quantization of x, per token: x ~ scale (u - zero), 0 <= u, zero <= quantized_max, range
// [min(0, min x), max(0, max x)]. quantized_max is 255 where the kernels have VNNI or NEON or are portable, and 127 where they use vpmaddubsw
// (avx2, avx512: two products of 127 * 127 fit int16, two of 255 * 127 would saturate). A row that is all zeros,
// or whose range is below 1e-30, is taken as zero. A row with a NaN or an infinity gives NaN in all its outputs.
//
// dense_i8_i16 rounds x to steps of max |x| / i16_steps(n) on either side of zero, where i16_steps(n) is 2^31 / (127 n), at most
// 32767: WebAssembly multiplies in 16 bits anyway. A NaN or an infinity gives NaN as above.
//
// Overflow. |sum_j q_j (u_j - zero)| <= 255 * 127 * n, and the partial sums sum_j q_j u_j stay below the same
// bound: int32 is exact for n <= 66311, and packing refuses more. Second stage of dense_sparse_i8: |sum c z| <=
// 127 * 255 * B k, exact for B k <= 66311. NEON takes u - 128 and z - 128, whose bounds are half of these (neon_i8.inc.h,
// neon_tables.cpp).
//
// dense_sparse_i8 at the levels avx512_vbmi_vnni and neon_dotprod rounds its own inputs (`quantize`): the zero point is one number for the layer
// or one of five near it (`TableInputs`), the step of a token the smallest that holds its range. D_i (u - zero) of stage 1 is int32, exact;
// shifted to int16 with rounding (the shift is the smallest that the atoms' absolute sums allow, at most 8), times the
// atom's scale over the largest one (15 bits; left out where all are equal), then brought to 8 bits with one scale and
// zero point per token, from the exact ends of its range over all blocks. The first blocks of the order given (the head: those whose inputs go
// far out) have steps, scales and zero points of their own for each token; their sums are brought to the others' unit in between. Other levels decode the factors to fp32 and run dense_sparse_f32: on AVX2 int8 with
// free supports costs more instructions than fp32 (two unpacks, two vpmaddwd and two vpaddd against four fused
// multiply-adds for 2 nonzeros x 16 tokens), and NEON without dot products has no fewer either. `Linear::path` and `Linear::isa` say what runs.
//
// Tolerances against float64, relative to the row's sum of absolute products S = sum_j |w_j x_j| (f32):
//
//   f32    |error| <= 2^-24 (n + 4) S
//   bf16   |error| <= 2^-6.9 S
//   i8     integer sums are exact: what remains is rounding of x (half a step an element) and an fp32 epilogue
//   gelu   x Phi(x) with erf: |error| <= 1e-6 max(1, |x|) on the fp32 and bf16 paths, 5e-5 max(1, |x|) on others
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace leanmatch {
namespace linear {

// What kernels are compiled for; names and order are those of leanmatch::levels() of x86-64, then those of aarch64 and of
// WebAssembly. A build runs those of its own architecture only.
enum class Isa { portable, avx2, avx512, avx512_vbmi_vnni, avx512_amx, neon, neon_dotprod, wasm };
constexpr int kIsas = 8;
bool has_vbmi_vnni(Isa isa);  // is it avx512_vbmi_vnni, or a level above it?

const char* isa_name(Isa isa);
Isa isa_from_name(const char* name);  // throws std::invalid_argument
bool runs(Isa isa);                   // this build has kernels for it and this CPU runs them
bool has_bf16();                      // this CPU and this build can run dense_bf16 (from level avx512 on)

enum class Activation { none, relu, gelu };

struct Epilogue {
    Activation activation = Activation::none;
    const float* residual = nullptr;  // (T, m), added after the activation; may be y itself
};

// Quantized activations: row t is values[t * stride .. t * stride + n), see above. Bytes from n to stride are
// zero.
struct QuantizedRows {
    std::uint8_t* values;
    float* scale;        // (T,)
    std::int32_t* zero;  // (T,); for dense_sparse_i8 with a head: that of the head in bits 8 to 15
    std::size_t stride;  // quantized_stride(n) or more
    float* head_scale = nullptr;  // (T,), written and read by dense_sparse_i8 with a head only
};

std::size_t quantized_stride(int n);  // n + 3 rounded up to 64
int quantized_max(Isa isa);

// Quantize T rows; what `Linear::run` does on the quantized paths. Reads each row twice, so a row that was just
// written (LayerNorm, GELU) should be quantized while it is in the first-level cache.
void quantize_rows(Isa isa, const float* x, int T, int n, const QuantizedRows& out);

class Linear {
public:
    virtual ~Linear() = default;
    int inputs() const { return n_; }
    int outputs() const { return m_; }
    const char* path() const { return path_; }  // the arithmetic that runs, a name of the table above
    Isa isa() const { return isa_; }        // the instruction set whose kernels run (at most the one asked for)
    virtual std::size_t bytes() const = 0;  // of the packed weights

    // Bytes of scratch that a call with T tokens needs, aligned to 64; does not grow beyond some tile of tokens.
    virtual std::size_t scratch_bytes(int T) const = 0;

    // y = epilogue(x). x and y must not overlap.
    virtual void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const = 0;

    // Whether `run_quantized` exists: the integer paths. Then x must have been quantized with
    // `quantized_max(isa())`.
    virtual bool takes_quantized() const { return false; }
    // Rows as this layer takes them: `quantize_rows` for dense_i8, its own way for dense_sparse_i8 (then other layers'
    // rows give wrong numbers, though nothing worse).
    virtual void quantize(const float* x, int T, const QuantizedRows& out) const;
    virtual bool own_rows() const { return false; }  // is that its own way?
    virtual void run_quantized(const QuantizedRows& x, int T, float* y, const Epilogue& epilogue,
                               void* scratch) const;

protected:
    Linear(const char* path, Isa isa, int m, int n) : path_(path), isa_(isa), m_(m), n_(n) {}
    const char* path_;
    Isa isa_;
    int m_, n_;
};

using LinearPtr = std::unique_ptr<Linear>;

// Every pack_ copies what it needs; bias is (m,) or null. They throw std::invalid_argument for sizes out of range,
// an index that is not below r, and an instruction set that this build has no kernels for.
LinearPtr pack_dense_f32(Isa isa, const float* weight, const float* bias, int m, int n);
LinearPtr pack_dense_bf16(Isa isa, const float* weight, const float* bias, int m, int n);
// weight = q * scale[:, None], -127 <= q <= 127.
LinearPtr pack_dense_i8(Isa isa, const std::int8_t* q, const float* scale, const float* bias, int m, int n);
// Symmetric quantization of each row first: scale = max |w| / 127.
LinearPtr pack_dense_i8(Isa isa, const float* weight, const float* bias, int m, int n);
// The same of a weight that comes row by row: `row` writes the n values of one. Rows come in order, each once.
using Rows = std::function<void(int i, float* values)>;
LinearPtr pack_dense_i8(Isa isa, const Rows& row, const float* bias, int m, int n);
LinearPtr pack_dense_sparse_f32(Isa isa, const float* atoms, const std::uint16_t* indices, const float* values,
                                const float* bias, int m, int n, int b, int r, int k);
// How dense_sparse_i8 rounds its inputs: zero points (about this one, 1 to 254), order of the blocks (B indices; null: as they are), and how
// many of them are the head (rounded up to whole tables; at least one table must be left). choose: each token takes the zero
// points, of its inputs and of z, that need the smallest steps; costs about 5% of the time.
struct TableInputs {
    int zero = 128;
    const std::int32_t* order = nullptr;
    int head = 0;
    bool choose = false;
};
// atoms = atoms_q * atoms_scale[..., None] (B, r); values = values_q * values_scale[:, None, None] (m,).
LinearPtr pack_dense_sparse_i8(Isa isa, const std::int8_t* atoms_q, const float* atoms_scale,
                               const std::uint16_t* indices, const std::int8_t* values_q,
                               const float* values_scale, const float* bias, int m, int n, int b, int r, int k,
                               const TableInputs& inputs = {});
// Codes of dense-sparse factors: atoms * atoms_scale (B, r, b), values * values_scale (m, B, k), indices (m, B, k).
struct SparseCodes {
    const std::int8_t* atoms;
    const float* atoms_scale;  // (B, r)
    const std::uint16_t* indices;
    const std::int8_t* values;
    const float* values_scale;  // (m,)
};
// Level wasm: can these sizes run as dense_sparse_i16, and do they cost less there than as dense_i8_i16? Decided by counting: the
// same in every build, so that builds give the same vectors.
bool runs_dense_sparse_i16(Isa isa, int m, int n, int b, int r, int k);
LinearPtr pack_dense_sparse_i16(Isa isa, const SparseCodes& codes, const float* bias, int m, int n, int b, int r, int k);
// left (m, q) of right (q, n); the bias belongs to left.
LinearPtr pack_low_rank(LinearPtr left, LinearPtr right);

}  // namespace linear
}  // namespace leanmatch

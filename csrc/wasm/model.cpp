// The runtime's C interface for JavaScript (web/src/runtime.ts): a model is put together piece by piece, then encodes. An
// instance of the module holds one model. JavaScript has checked that each array lies in the file and has the shape that it
// passes; what must fit together is checked by linear::pack_... and encoder::Encoder, which throw (exceptions.cpp).
//
// Arrays are copied, so the caller frees what it allocated. A null pointer stands for an array that is left out.
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "encoder/encoder.h"
#include "linear/checks.h"
#include "linear/linear.h"

using namespace leanmatch::encoder;
namespace lin = leanmatch::linear;

namespace {

constexpr lin::Isa kIsa = lin::Isa::wasm;  // with ops_wasm(): ops_of() would link those of the other level

Model draft;
std::unique_ptr<Encoder> encoder;
std::vector<std::shared_ptr<Table>> tables;

struct Packed {
    lin::LinearPtr linear;
    std::vector<float> factor;  // what its inputs are multiplied by; empty for ones
    explicit operator bool() const { return bool(linear); }
};
std::vector<Packed> linears;

template <class Value>
std::vector<Value> copied(const Value* values, std::size_t count) {
    return values ? std::vector<Value>(values, values + count) : std::vector<Value>();
}

int kept(std::shared_ptr<Table> table) {
    tables.push_back(std::move(table));
    return int(tables.size()) - 1;
}

int kept(lin::LinearPtr linear) {
    linears.push_back({std::move(linear), {}});
    return int(linears.size()) - 1;
}

void require_factor_sizes(int m, int n, int b, int r, int k) {
    lin::require(m >= 1 && b >= 1 && r >= 1 && k >= 1 && n >= b && n % b == 0, "dense-sparse factors have impossible sizes");
}

// A dense layer of 8 bits of dense-sparse factors.
int decoded(const float* atoms, const std::uint16_t* indices, const std::int8_t* codes, const float* code_scale,
            const float* values, const float* column, const float* bias, int m, int n, int b, int r, int k) {
    const std::size_t blocks = std::size_t(n / b), count = std::size_t(m) * blocks * std::size_t(k);
    lin::require(leanmatch::wasm::all_below(indices, count, std::size_t(r)), "an index without an atom");
    const SparseRows rows{atoms, indices, codes, code_scale, values, blocks, std::size_t(r), std::size_t(b), std::size_t(k)};
    const Ops& ops = ops_wasm();
    const auto decode = [&](int i, float* row) {
        ops.decode_row(rows, std::size_t(i), row);
        if (column) ops.multiply_rows(row, column, 1, std::size_t(n), row);
    };
    const int number = kept(lin::pack_dense_i8(kIsa, decode, bias, m, n));
    if (column)
        for (int j = 0; j < n; ++j) linears.back().factor.push_back(1.0f / column[j]);
    return number;
}

template <class Pieces>
auto taken(Pieces& pieces, int at, const char* what) {
    lin::require(at >= 0 && std::size_t(at) < pieces.size() && pieces[std::size_t(at)],
                 std::string("the plan uses a ") + what + " that is not there, or uses it twice");
    return std::move(pieces[std::size_t(at)]);
}

Layer layer_of(int linear, const float* factor) {
    Packed packed = taken(linears, linear, "layer");
    if (factor) packed.factor = copied(factor, std::size_t(packed.linear->inputs()));
    std::vector<Layer::Choice> choices;
    choices.push_back({0, std::move(packed.linear), std::move(packed.factor)});
    return Layer(std::move(choices));
}

Norm norm_of(const float* gamma, const float* beta, std::size_t width, float eps) {
    return {copied(gamma, width), copied(beta, width), eps};
}

Block& block() {
    lin::require(!draft.blocks.empty(), "the plan has a layer outside of a block");
    return draft.blocks.back();
}

template <class Enum>
Enum choice(int value, Enum last, const char* what) {
    lin::require(value >= 0 && value <= int(last), std::string("there is no such ") + what);
    return Enum(value);
}

// What the plan's numbers for places mean.
enum class Place : int { qkv, up, out, down, projection };
enum class NormPlace : int { attention, feed_forward, embedding, final };

}  // namespace

// Embedding tables. Each returns a number that words() and low_rank_table take.

LEANMATCH_EXPORT(float_table) int float_table(const float* values, std::size_t rows, std::size_t width) {
    return kept(std::make_shared<FloatTable>(copied(values, rows * width), rows, width));
}

LEANMATCH_EXPORT(int8_table)
int int8_table(const std::int8_t* q, const float* scale, std::size_t rows, std::size_t width, std::size_t groups) {
    lin::require(groups > 0 && width % groups == 0, "the scales of a table do not divide its width");
    return kept(std::make_shared<Int8Table>(copied(q, rows * width), copied(scale, rows * groups), rows, width, groups));
}

LEANMATCH_EXPORT(sparse_table)
int sparse_table(const float* atoms, const std::uint16_t* indices, const std::int8_t* codes, const float* code_scale,
                 const float* values, std::size_t rows, std::size_t blocks, std::size_t atoms_per_block, std::size_t width,
                 std::size_t nonzeros) {
    const std::size_t count = rows * blocks * nonzeros;
    lin::require(leanmatch::wasm::all_below(indices, count, atoms_per_block), "an index without an atom");
    return kept(std::make_shared<SparseTable>(copied(atoms, blocks * atoms_per_block * width), copied(indices, count),
                                              copied(codes, count), copied(code_scale, rows), copied(values, count), rows,
                                              blocks, atoms_per_block, width, nonzeros));
}

LEANMATCH_EXPORT(low_rank_table)
int low_rank_table(int left, const float* right, std::size_t rank, std::size_t width) {
    std::shared_ptr<Table> table = taken(tables, left, "table");
    lin::require(table->width() == rank, "the factors of a table differ in rank");
    return kept(std::make_shared<LowRankTable>(std::move(table), copied(right, rank * width), width));
}

// Linear layers (m, n). Each returns a number that layer(), head_dense() and low_rank() take.

LEANMATCH_EXPORT(dense_f32) int dense_f32(const float* weight, const float* bias, int m, int n) {
    return kept(lin::pack_dense_f32(kIsa, weight, bias, m, n));
}

LEANMATCH_EXPORT(dense_i8) int dense_i8(const std::int8_t* q, const float* scale, const float* bias, int m, int n) {
    return kept(lin::pack_dense_i8(kIsa, q, scale, bias, m, n));
}

// Dense-sparse factors. Codes run as they are where that costs less; then `column` is not used. Otherwise they are decoded to a dense
// layer of 8 bits: column (n,) is what its columns are multiplied by before they are rounded, and its inputs are divided by it.
// `codes` and `atoms_scale` are null where values and atoms are floats.

LEANMATCH_EXPORT(dense_sparse_codes)
int dense_sparse_codes(const std::int8_t* atoms, const float* atoms_scale, const std::uint16_t* indices, const std::int8_t* codes,
                       const float* scale, const float* column, const float* bias, int m, int n, int b, int r, int k) {
    require_factor_sizes(m, n, b, r, k);
    if (lin::runs_dense_sparse_i16(kIsa, m, n, b, r, k))
        return kept(lin::pack_dense_sparse_i16(kIsa, {atoms, atoms_scale, indices, codes, scale}, bias, m, n, b, r, k));
    const std::size_t rows = std::size_t(n / b) * std::size_t(r), width = std::size_t(b);
    std::vector<float> wide(rows * width);
    const Ops& ops = ops_wasm();
    for (std::size_t row = 0; row < rows; ++row)
        ops.dequantize(atoms + row * width, atoms_scale[row], width, wide.data() + row * width);
    return decoded(wide.data(), indices, codes, scale, nullptr, column, bias, m, n, b, r, k);
}

LEANMATCH_EXPORT(dense_sparse_floats)
int dense_sparse_floats(const float* atoms, const std::uint16_t* indices, const float* values, const float* column,
                        const float* bias, int m, int n, int b, int r, int k) {
    require_factor_sizes(m, n, b, r, k);
    return decoded(atoms, indices, nullptr, nullptr, values, column, bias, m, n, b, r, k);
}

LEANMATCH_EXPORT(low_rank) int low_rank(int left, int right) {
    Packed last = taken(linears, left, "layer"), first = taken(linears, right, "layer");
    lin::require(last.factor.empty() && first.factor.empty(), "low-rank factors with scaled inputs");
    return kept(lin::pack_low_rank(std::move(last.linear), std::move(first.linear)));
}

// The model's parts, in any order, but a block before its layers.

LEANMATCH_EXPORT(begin)
void begin(std::size_t width, std::size_t heads, std::size_t key_heads, std::size_t head_width, std::size_t inner,
           float scale, int activation, int gated, int pre_norm, int pad_id) {
    draft.ops = &ops_wasm();
    draft.isa = kIsa;
    draft.width = width;
    draft.heads = heads;
    draft.key_heads = key_heads;
    draft.head_width = head_width;
    draft.inner = inner;
    draft.scale = scale;
    draft.activation = choice(activation, Activation::sigmoid, "activation");
    draft.gated = gated != 0;
    draft.pre_norm = pre_norm != 0;
    draft.pad_id = pad_id;
}

LEANMATCH_EXPORT(words) void words(int table) { draft.words = taken(tables, table, "table"); }

LEANMATCH_EXPORT(positions) void positions(const float* values, std::size_t rows, std::size_t width) {
    draft.positions = copied(values, rows * width);
    draft.position_rows = rows;
}

LEANMATCH_EXPORT(token_type) void token_type(const float* values, std::size_t width) {
    draft.token_type = copied(values, width);
}

LEANMATCH_EXPORT(relative_bias) void relative_bias(const float* values, std::size_t heads, std::size_t columns) {
    lin::require(columns % 2 == 1, "the relative attention bias needs an odd number of columns");
    draft.relative_bias = copied(values, heads * columns);
    draft.relative_span = (columns + 1) / 2;
}

LEANMATCH_EXPORT(rotary) void rotary(const float* values, std::size_t rows, std::size_t width) {
    draft.rotary.push_back({copied(values, rows * width), rows});
}

LEANMATCH_EXPORT(start_block) void start_block(int rotary, int window) {
    draft.blocks.emplace_back();
    block().rotary = rotary;
    if (window >= 0) block().window = std::size_t(window);
}

LEANMATCH_EXPORT(layer) void layer(int place, int linear, const float* factor) {
    Layer made = layer_of(linear, factor);
    switch (choice(place, Place::projection, "place")) {
        case Place::qkv: block().qkv.push_back(std::move(made)); return;
        case Place::up: block().up.push_back(std::move(made)); return;
        case Place::out: block().out = std::move(made); return;
        case Place::down: block().down = std::move(made); return;
        case Place::projection: draft.projection = std::move(made); return;
    }
}

LEANMATCH_EXPORT(norm)
void norm(int place, const float* gamma, const float* beta, std::size_t width, float eps) {
    Norm made = norm_of(gamma, beta, width, eps);
    switch (choice(place, NormPlace::final, "place")) {
        case NormPlace::attention: block().attention_norm = std::move(made); return;
        case NormPlace::feed_forward: block().feed_forward_norm = std::move(made); return;
        case NormPlace::embedding: draft.embedding_norm = std::move(made); return;
        case NormPlace::final: draft.final_norm = std::move(made); return;
    }
}

LEANMATCH_EXPORT(order) void order(int block) { draft.order.push_back(block); }

LEANMATCH_EXPORT(pooling) void pooling(int kind) { draft.pooling.push_back(choice(kind, Pooling::last, "pooling")); }

LEANMATCH_EXPORT(head_dense) void head_dense(int linear, int activation) {
    Head head{Head::Kind::dense, layer_of(linear, nullptr), choice(activation, Activation::sigmoid, "activation"), {}};
    draft.post.push_back(std::move(head));
}

LEANMATCH_EXPORT(head_norm)
void head_norm(const float* gamma, const float* beta, std::size_t width, float eps) {
    draft.post.push_back({Head::Kind::layer_norm, {}, Activation::none, norm_of(gamma, beta, width, eps)});
}

LEANMATCH_EXPORT(head_normalize) void head_normalize() {
    draft.post.push_back({Head::Kind::normalize, {}, Activation::none, {}});
}

LEANMATCH_EXPORT(finish) void finish() {
    encoder = std::make_unique<Encoder>(std::move(draft));
    tables.clear();
    linears.clear();
}

LEANMATCH_EXPORT(dimension) std::size_t dimension() { return encoder->dimension(); }

// Tokens of the longest text; 0 for no limit.
LEANMATCH_EXPORT(most_tokens) std::size_t most_tokens() {
    const std::size_t most = encoder->most_tokens();
    return most == std::size_t(-1) ? 0 : most;
}

LEANMATCH_EXPORT(weight_bytes) std::size_t weight_bytes() { return encoder->bytes(); }

// ids of all texts, offsets (texts + 1): out (texts, dimension).
LEANMATCH_EXPORT(encode)
void encode(const std::int32_t* ids, const std::int32_t* offsets, std::size_t texts, float* out) {
    const std::vector<std::int64_t> wide(offsets, offsets + texts + 1);
    encoder->run({ids, wide.data(), texts, out}, 1);
}

// A transformer text encoder as one call: token ids of a batch of texts in, one vector a text out.
//
// Texts are packed without padding: tokens of all texts follow one another (T in all), text i is the range
// offsets[i] .. offsets[i + 1]. Linear layers see tokens, attention sees texts. Layers are post-norm (BERT and kin) or
// pre-norm (T5, ModernBERT):
//
//   x = norm(word[id] + position[p] (+ type), then a projection where there is one)
//   post:  a = attention(q, k, v of x);        x = norm(x + out(a));  x = norm(x + f(x))
//   pre:   a = attention(q, k, v of norm(x));  x = x + out(a);        x = x + f(norm(x));  at the end, once: x = norm(x)
//   f(x) = down(act(up(x))), or gated: down(act(u) * w) where up(x) is u and w side by side
//
// Attention: scores are scaled, biased by distance (MPNet, T5), of queries and keys that were turned by their position
// (rotary), over the whole text or a window; several heads of queries may share keys and values.
//
// Threads. Between two attentions everything is local to a token, so each thread owns a range of tokens for the whole
// network. A large batch is cut into groups of whole texts that threads take from a counter: no waiting at all. A small one
// is cut evenly by tokens, and threads meet once a layer, after q, k and v (which alternate between two buffers).
//
// Memory: a group's activations (see `Workspace`) a thread, freed or reused after the call; nothing grows with the batch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "linear/linear.h"
#include "encoder/ops/ops.h"
#include "pool.h"
#include "table.h"

namespace leanmatch {
namespace encoder {

using linear::Linear;

// The linear layer to run, by how many tokens a call has: the last entry whose `from` is not above it.
class Layer {
public:
    struct Choice {
        int from;
        std::shared_ptr<const Linear> linear;
        std::vector<float> input_factor;  // empty, or (inputs,): the layer was packed for x * input_factor
    };
    Layer() = default;
    explicit Layer(std::vector<Choice> choices);  // ascending, first `from` 0; throws std::invalid_argument
    bool empty() const { return choices_.empty(); }
    const Choice& at(int tokens) const;
    bool scales_inputs() const;
    int inputs() const { return choices_[0].linear->inputs(); }
    int outputs() const { return choices_[0].linear->outputs(); }
    std::size_t scratch_bytes(int tokens) const;
    bool takes_quantized() const;
    std::size_t bytes() const;

private:
    std::vector<Choice> choices_;
};

struct Norm {
    std::vector<float> gamma, beta;  // no beta: root mean square norm (T5), else LayerNorm
    float eps = 1e-12f;
    bool empty() const { return gamma.empty(); }
    void run(const Ops& ops, const float* x, std::size_t rows, float* y) const;
};

struct Block {
    std::vector<Layer> qkv;  // one of queries, keys and values stacked, or three
    std::vector<Layer> up;   // one, whose outputs are the activated half and the other where gated; or these as two
    Layer out, down;
    Norm attention_norm, feed_forward_norm;  // after the sum, or (pre-norm) before the layers; the first may be empty then
    int rotary = -1;                         // which of Model::rotary turns queries and keys; -1: none
    std::size_t window = std::size_t(-1);    // tokens from a query to the farthest key that it sees
};

// Row p: the cosines, then the sines, by which halves of a head at position p are turned.
struct Rotary {
    std::vector<float> values;  // (rows, head width)
    std::size_t rows = 0;
};

enum class Pooling : int { mean, cls, max, mean_sqrt, weighted_mean, last };

// One step after pooling: a linear layer with an activation, or a LayerNorm, or division by the norm.
struct Head {
    enum class Kind { dense, layer_norm, normalize } kind;
    Layer dense;
    Activation activation = Activation::none;
    Norm norm;
};

struct Model {
    std::shared_ptr<Table> words;
    std::vector<float> positions;  // (position_rows, width of words), token type 0 added; empty: none
    std::size_t position_rows = 0;
    std::vector<float> token_type;    // (width of words), where there are no positions to add it to; empty: none
    std::int32_t pad_id = -1;         // >= 0: positions count from pad_id + 1 and pass over tokens that are pad_id (RoBERTa)
    Norm embedding_norm;              // empty: none
    Layer projection;                 // empty: none
    std::vector<Block> blocks;        // with `order`, so that ALBERT can use one block many times
    std::vector<int> order;
    std::size_t width = 0, heads = 1, inner = 0;
    std::size_t key_heads = 1, head_width = 0;  // heads of keys and of values; a divisor of `heads`
    float scale = 1.0f;                         // of the scores
    bool pre_norm = false, gated = false;
    Norm final_norm;                            // of a pre-norm model; empty: none
    std::vector<Rotary> rotary;
    Activation activation = Activation::gelu;
    std::vector<float> relative_bias;  // (heads, 2 * relative_span - 1), by key - query; empty: none
    std::size_t relative_span = 0;
    std::vector<Pooling> pooling;      // concatenated
    std::vector<Head> post;
    bool rounds_attention = false;     // bfloat16 products in attention where the CPU has them (attention_bf16.cpp)
    const Ops* ops = nullptr;
    linear::Isa isa = linear::Isa::portable;

    std::size_t query_width() const { return heads * head_width; }
    std::size_t key_width() const { return key_heads * head_width; }
    std::size_t inputs() const { return 2 * width + query_width() + inner; }  // of a block's q k v, out, up and down
};

struct Batch {
    const std::int32_t* ids;       // checked: 0 <= id < words->rows()
    const std::int64_t* offsets;   // (texts + 1), ascending from 0
    std::size_t texts;
    float* out;                    // (texts, dimension)
    float* ranges = nullptr;       // see Encoder::input_ranges; one thread only
};

struct Tuning {
    // Tokens of a group of whole texts, at most. Each group reads all weights once.
    int group_tokens = 240;
    // Tokens that go through a run of token-local steps together: whole pieces of 20, which wide dense-sparse layers take.
    int tile_tokens = 80;
    int alone_tokens = 24;    // fewest tokens that are worth a thread of their own: below that, one that is not scheduled
                              // at once (a busy machine) costs many times what it could save
};

class Workspace;

class Encoder {
public:
    explicit Encoder(Model model);  // throws std::invalid_argument where shapes do not fit
    ~Encoder();

    std::size_t dimension() const { return dimension_; }
    std::size_t bytes() const;             // of weights, as they lie in memory
    std::size_t most_tokens() const;       // longest text; SIZE_MAX where positions do not limit it
    const Model& model() const { return model_; }
    Tuning& tuning() { return tuning_; }
    const Tuning& tuning() const { return tuning_; }

    // Safe from several threads: a call that finds the pool busy runs on the caller's thread alone.
    // Throws std::invalid_argument for ids, offsets or lengths out of range.
    void run(const Batch& batch, int threads) const;

    // Widens ranges (2, blocks, Model::inputs()) to the least and the largest value of each input of each block's linear
    // layers: q, k and v, out, up, down, one after the other. Runs on one thread.
    void input_ranges(const Batch& batch, float* ranges) const;

private:
    struct State;
    State& state() const;  // the pool and workspaces of this process: made again after a fork
    void check(const Batch& batch) const;
    void run_group(const Batch& batch, std::size_t first, std::size_t last, Workspace& shared, Workspace& own, int rank,
                   int threads, Barrier& barrier) const;
    void embed(const Batch& batch, std::size_t first, std::size_t last, std::size_t from, std::size_t to, Workspace& shared,
               Workspace& own) const;
    void attend(const Batch& batch, std::size_t first, std::size_t last, std::size_t from, std::size_t to,
                const Block& block, const float* qkv, Workspace& shared, Workspace& own) const;
    void project(const std::vector<Layer>& layers, const float* x, std::size_t total, std::size_t row, int tokens, float* y,
                 linear::Activation first, Workspace& own) const;
    void feed_forward(const Block& block, const float* x, int tokens, Workspace& own) const;
    void rotate(const Block& block, std::size_t total, std::size_t row, std::size_t count, float* qkv, const std::int32_t* places) const;
    const float* scaled(const Layer::Choice& choice, const float* x, int tokens, Workspace& own) const;
    void apply(const Layer& layer, const float* x, int tokens, float* y, const linear::Epilogue& epilogue,
               Workspace& own) const;
    void pool_texts(const Batch& batch, std::size_t first, std::size_t last, std::size_t base, const Workspace& shared,
                    Workspace& own) const;

    Model model_;
    Tuning tuning_;
    void (*attention_)(const Attention&) = nullptr;
    std::size_t dimension_ = 0;
    mutable std::atomic<State*> state_{nullptr};
};

}  // namespace encoder
}  // namespace leanmatch

#include "encoder.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "workspace.h"

namespace leanmatch {
namespace encoder {

namespace {

long process() {
#if defined(__unix__) || defined(__APPLE__)
    return long(getpid());
#else
    return 0;
#endif
}

// For messages that cost nothing; others are put together only when they are thrown.
void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

void require_layer(const Layer& layer, std::size_t inputs, std::size_t outputs, const char* name) {
    if (layer.empty()) throw std::invalid_argument(std::string(name) + ": no weights");
    if (std::size_t(layer.inputs()) == inputs && std::size_t(layer.outputs()) == outputs) return;
    throw std::invalid_argument(std::string(name) + ": weights are (" + std::to_string(layer.outputs()) + ", " +
                                std::to_string(layer.inputs()) + "), expected (" + std::to_string(outputs) + ", " +
                                std::to_string(inputs) + ")");
}

void require_norm(const Norm& norm, std::size_t width, const char* name) {
    if (norm.gamma.size() == width && (norm.beta.empty() || norm.beta.size() == width)) return;
    throw std::invalid_argument(std::string(name) + ": a norm of " + std::to_string(norm.gamma.size()) +
                                ", expected " + std::to_string(width));
}

// Layers beside one another that read the same rows: one with all outputs, or one for each part.
void require_parts(const std::vector<Layer>& layers, std::size_t inputs, const std::vector<std::size_t>& outputs, const char* name) {
    if (layers.size() == 1)
        return require_layer(layers[0], inputs, std::accumulate(outputs.begin(), outputs.end(), std::size_t(0)), name);
    if (layers.size() != outputs.size())
        throw std::invalid_argument(std::string(name) + ": needs one stacked layer or " + std::to_string(outputs.size()));
    for (std::size_t i = 0; i < layers.size(); ++i) require_layer(layers[i], inputs, outputs[i], name);
}

}  // namespace

void Norm::run(const Ops& ops, const float* x, std::size_t rows, float* y) const {
    if (beta.empty()) ops.rms_norm(x, gamma.data(), eps, rows, gamma.size(), y);
    else ops.layer_norm(x, gamma.data(), beta.data(), eps, rows, gamma.size(), y);
}

Layer::Layer(std::vector<Choice> choices) : choices_(std::move(choices)) {
    require(!choices_.empty() && choices_[0].from == 0, "a layer's first choice must start at 0 tokens");
    for (std::size_t i = 0; i < choices_.size(); ++i) {
        require(choices_[i].linear != nullptr, "a layer without weights");
        require(i == 0 || choices_[i].from > choices_[i - 1].from, "a layer's choices must ascend");
        require(choices_[i].linear->inputs() == inputs() && choices_[i].linear->outputs() == outputs(),
                "a layer's choices differ in shape");
        require(choices_[i].input_factor.empty() || choices_[i].input_factor.size() == std::size_t(inputs()),
                "a layer's input factors do not fit its inputs");
    }
}

const Layer::Choice& Layer::at(int tokens) const {
    std::size_t i = choices_.size() - 1;
    while (choices_[i].from > tokens) --i;
    return choices_[i];
}

bool Layer::scales_inputs() const {
    return std::any_of(choices_.begin(), choices_.end(), [](const Choice& c) { return !c.input_factor.empty(); });
}

std::size_t Layer::scratch_bytes(int tokens) const {
    std::size_t most = 0;
    for (const Choice& choice : choices_) most = std::max(most, choice.linear->scratch_bytes(tokens));
    return most;
}

bool Layer::takes_quantized() const {
    return std::any_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.linear->takes_quantized(); });
}

std::size_t Layer::bytes() const {
    std::size_t total = 0;
    for (std::size_t i = 0; i < choices_.size(); ++i) {
        bool counted = false;
        for (std::size_t j = 0; j < i; ++j) counted |= choices_[j].linear == choices_[i].linear;
        if (!counted) total += choices_[i].linear->bytes();
    }
    return total;
}

// The pool and the workspaces of one process. A forked child must not touch its parent's: their threads do not exist
// there, and their locks may be held for ever.
struct Encoder::State {
    const long owner = process();
    Mutex pool_lock;
    Pool pool;
    Mutex spare_lock;
    std::vector<std::unique_ptr<Workspace>> spare;

    std::unique_ptr<Workspace> take() {
        const Lock lock(spare_lock);
        if (spare.empty()) return std::make_unique<Workspace>();
        std::unique_ptr<Workspace> one = std::move(spare.back());
        spare.pop_back();
        return one;
    }
    void give(std::unique_ptr<Workspace> one) {
        const Lock lock(spare_lock);
        spare.push_back(std::move(one));
    }
};

Encoder::State& Encoder::state() const {
    State* current = state_.load(std::memory_order_acquire);
    const long here = process();
    while (current == nullptr || current->owner != here) {
        State* fresh = new State;  // the parent's, if any, is left as it is
        if (state_.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
        delete fresh;
    }
    return *current;
}

Encoder::Encoder(Model model) : model_(std::move(model)) {
    const Model& m = model_;
    require(m.ops != nullptr, "no kernels were chosen");
    require(m.words != nullptr && m.words->rows() > 0, "no word embeddings");
    const std::size_t embedded = m.words->width();
    if (m.position_rows) require(m.positions.size() == m.position_rows * embedded, "position embeddings: wrong width");
    if (!m.embedding_norm.empty()) require_norm(m.embedding_norm, embedded, "embeddings");
    if (m.projection.empty()) require(embedded == m.width, "word embeddings are not as wide as the layers");
    else require_layer(m.projection, embedded, m.width, "embedding projection");
    require(m.token_type.empty() || m.token_type.size() == embedded, "token type embeddings: wrong width");
    require(m.heads > 0 && m.key_heads > 0 && m.heads % m.key_heads == 0,
            "the number of heads is no multiple of that of keys");
    require(m.blocks.empty() || m.head_width > 0, "heads without a width");
    for (const Rotary& rotary : m.rotary) {
        require(m.head_width % 2 == 0, "rotary positions need heads of an even width");
        require(rotary.rows > 0 && rotary.values.size() == rotary.rows * m.head_width, "rotary positions: wrong size");
    }
    const std::vector<std::size_t> qkv = {m.query_width(), m.key_width(), m.key_width()};
    const std::vector<std::size_t> up(m.gated ? 2 : 1, m.inner);
    for (const Block& block : m.blocks) {
        require_parts(block.qkv, m.width, qkv, "attention input");
        require_layer(block.out, m.query_width(), m.width, "attention output");
        require_parts(block.up, m.width, up, "feed-forward input");
        require_layer(block.down, m.inner, m.width, "feed-forward output");
        if (!m.pre_norm || !block.attention_norm.empty()) require_norm(block.attention_norm, m.width, "attention");
        require_norm(block.feed_forward_norm, m.width, "feed-forward");
        require(block.rotary >= -1 && block.rotary < int(m.rotary.size()), "attention: no such rotary positions");
    }
    if (!m.final_norm.empty()) require_norm(m.final_norm, m.width, "final norm");
    for (int at : m.order) require(at >= 0 && std::size_t(at) < m.blocks.size(), "layer order: no such block");
    if (!m.relative_bias.empty())
        require(m.relative_span > 0 && m.relative_bias.size() == m.heads * (2 * m.relative_span - 1),
                "relative attention bias: wrong size");
    attention_ = m.ops->attention;
#if defined(__x86_64__) || defined(_M_X64)
    const bool wide = m.ops == &ops_avx512();
    if (m.rounds_attention && wide && linear::has_bf16() && m.head_width && m.head_width % 32 == 0) attention_ = attention_bf16;
#endif
    require(!m.pooling.empty(), "no pooling");
    dimension_ = m.width * m.pooling.size();
    for (const Head& head : m.post) {
        if (head.kind == Head::Kind::dense) {
            require(!head.dense.empty(), "dense head: no weights");
            require_layer(head.dense, dimension_, std::size_t(head.dense.outputs()), "dense head");
            dimension_ = std::size_t(head.dense.outputs());
        } else if (head.kind == Head::Kind::layer_norm) {
            require_norm(head.norm, dimension_, "LayerNorm head");
        }
    }
}

Encoder::~Encoder() {
    State* current = state_.load();
    if (current != nullptr && current->owner == process()) delete current;
}

std::size_t Encoder::bytes() const {
    const Model& m = model_;
    const auto norm = [](const Norm& one) { return (one.gamma.size() + one.beta.size()) * sizeof(float); };
    std::size_t total = m.words->bytes() + (m.positions.size() + m.relative_bias.size()) * sizeof(float);
    total += norm(m.embedding_norm) + norm(m.final_norm) + (m.projection.empty() ? 0 : m.projection.bytes());
    total += m.token_type.size() * sizeof(float);
    for (const Rotary& rotary : m.rotary) total += rotary.values.size() * sizeof(float);
    for (const Block& block : m.blocks) {
        for (const Layer& layer : block.qkv) total += layer.bytes();
        for (const Layer& layer : block.up) total += layer.bytes();
        total += block.out.bytes() + block.down.bytes();
        total += norm(block.attention_norm) + norm(block.feed_forward_norm);
    }
    for (const Head& head : m.post) total += norm(head.norm) + (head.dense.empty() ? 0 : head.dense.bytes());
    return total;
}

std::size_t Encoder::most_tokens() const {
    std::size_t most = std::numeric_limits<std::size_t>::max();
    if (model_.position_rows) {
        const std::size_t first = model_.pad_id >= 0 ? std::size_t(model_.pad_id) + 1 : 0;
        most = model_.position_rows > first ? model_.position_rows - first : 0;
    }
    if (!model_.relative_bias.empty()) most = std::min(most, model_.relative_span);
    for (const Rotary& rotary : model_.rotary) most = std::min(most, rotary.rows);
    return most;
}

void Encoder::check(const Batch& batch) const {
    require(batch.offsets[0] == 0, "offsets must start at 0");
    const std::int64_t most = std::int64_t(std::min<std::size_t>(most_tokens(), std::size_t(1) << 30));
    for (std::size_t i = 0; i < batch.texts; ++i) {
        const std::int64_t length = batch.offsets[i + 1] - batch.offsets[i];
        require(length >= 0, "offsets must ascend");
        if (length > most)
            throw std::invalid_argument("text " + std::to_string(i) + " has " + std::to_string(length) +
                                    " tokens, the model takes at most " + std::to_string(most));
    }
    const std::size_t tokens = std::size_t(batch.offsets[batch.texts]);
    for (std::size_t t = 0; t < tokens; ++t) {
        if (batch.ids[t] < 0 || std::size_t(batch.ids[t]) >= model_.words->rows())
            throw std::invalid_argument("token id " + std::to_string(batch.ids[t]) + " is outside the vocabulary of " +
                                        std::to_string(model_.words->rows()));
    }
}

void Encoder::input_ranges(const Batch& batch, float* ranges) const {
    std::vector<float> out(batch.texts * dimension_);
    run({batch.ids, batch.offsets, batch.texts, out.data(), ranges}, 1);
}

void Encoder::run(const Batch& batch, int threads) const {
    check(batch);
    if (batch.texts == 0) return;
    State& here = state();
    const std::size_t tokens = std::size_t(batch.offsets[batch.texts]);
    const std::size_t worth = std::max<std::size_t>(1, tokens / std::size_t(std::max(1, tuning_.alone_tokens)));
    threads = int(std::min<std::size_t>(std::size_t(std::max(1, threads)), worth));

    // Longest first, so that the last groups that threads take are the small ones; order of equals as given.
    std::vector<std::size_t> order(batch.texts);
    std::iota(order.begin(), order.end(), std::size_t(0));
    const auto length = [&](std::size_t i) { return batch.offsets[i + 1] - batch.offsets[i]; };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return length(a) > length(b); });
    std::vector<std::int32_t> ids(tokens);
    std::vector<std::int64_t> offsets(batch.texts + 1, 0);
    for (std::size_t i = 0; i < batch.texts; ++i) {
        const std::size_t from = std::size_t(batch.offsets[order[i]]), count = std::size_t(length(order[i]));
        std::copy_n(batch.ids + from, count, ids.begin() + std::ptrdiff_t(offsets[i]));
        offsets[i + 1] = offsets[i] + std::int64_t(count);
    }
    std::vector<float> out(batch.texts * dimension_);
    const Batch sorted{ids.data(), offsets.data(), batch.texts, out.data(), batch.ranges};

    const TryLock pool(here.pool_lock, threads > 1);
    if (!pool) threads = 1;
    std::vector<std::unique_ptr<Workspace>> spaces;
    for (int i = 0; i < threads; ++i) spaces.push_back(here.take());

    // Groups of whole texts, each of about group_tokens tokens; smaller ones, down to a tile, where each of several threads
    // would get fewer than eight. With too few of them for the threads, one group for all.
    std::vector<std::size_t> starts{0};
    std::int64_t most = tuning_.group_tokens;
    if (threads > 1) most = std::min(most, std::max<std::int64_t>(tuning_.tile_tokens, std::int64_t(tokens) / (8 * threads)));
    for (std::size_t i = 1; i <= batch.texts; ++i) {
        if (i == batch.texts || offsets[i + 1] - offsets[starts.back()] > most) starts.push_back(i);
    }
    const std::size_t groups = starts.size() - 1;
    const bool together = threads > 1 && groups < 2 * std::size_t(threads) && !model_.order.empty();
    std::atomic<bool> failed{false};
    std::atomic<std::size_t> next{0};
    const auto job = [&](int rank) {
        Barrier alone(1);
        try {
            for (std::size_t g = next++; g < groups && !failed; g = next++)
                run_group(sorted, starts[g], starts[g + 1], *spaces[rank], *spaces[rank], 0, 1, alone);
        } catch (...) {
            failed = true;
        }
    };
    if (together) {
        for (int i = 0; i < threads; ++i) spaces[i]->reserve(*this, i == 0 ? tokens : 0, sorted, 0, batch.texts);
        Barrier barrier(threads);
        here.pool.run(threads, [&](int rank) {
            run_group(sorted, 0, batch.texts, *spaces[0], *spaces[rank], rank, threads, barrier);
        });
    } else {
        here.pool.run(threads, job);
    }
    for (std::unique_ptr<Workspace>& space : spaces) here.give(std::move(space));
    if (failed) throw std::bad_alloc();
    for (std::size_t i = 0; i < batch.texts; ++i)
        std::copy_n(out.begin() + std::ptrdiff_t(i * dimension_), dimension_, batch.out + order[i] * dimension_);
}

}  // namespace encoder
}  // namespace leanmatch

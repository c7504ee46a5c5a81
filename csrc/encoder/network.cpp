// The encoder's passes over one group of texts, as one thread of it sees them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "encoder.h"
#include "workspace.h"

namespace leanmatch {
namespace encoder {

namespace {

bool is_fused(Activation kind) {
    return kind == Activation::none || kind == Activation::gelu || kind == Activation::relu;
}

linear::Activation fused(Activation kind) {
    if (kind == Activation::gelu) return linear::Activation::gelu;
    return kind == Activation::relu ? linear::Activation::relu : linear::Activation::none;
}

std::size_t length_of(const Batch& batch, std::size_t text) {
    return std::size_t(batch.offsets[text + 1] - batch.offsets[text]);
}

// Where thread `rank` of `threads` starts in `total` tokens: whole tiles of four where there are many.
std::size_t share(std::size_t total, int rank, int threads) {
    const std::size_t at = total * std::size_t(rank) / std::size_t(threads);
    return rank == threads ? total : total >= 8 * std::size_t(threads) ? at / 4 * 4 : at;
}

void pool_one(const Ops& ops, Pooling pooling, const float* x, std::size_t length, std::size_t width, float* y) {
    if (length == 0) {
        std::memset(y, 0, width * sizeof(float));
        return;
    }
    float factor = 1.0f;
    switch (pooling) {
        case Pooling::cls: std::memcpy(y, x, width * sizeof(float)); return;
        case Pooling::last: std::memcpy(y, x + (length - 1) * width, width * sizeof(float)); return;
        case Pooling::max: ops.max_rows(x, length, width, y); return;
        case Pooling::weighted_mean:
            std::memset(y, 0, width * sizeof(float));
            for (std::size_t t = 0; t < length; ++t) ops.axpy(float(t + 1), x + t * width, width, y);
            factor = 2.0f / (float(length) * float(length + 1));
            break;
        case Pooling::mean:
        case Pooling::mean_sqrt:
            ops.sum_rows(x, length, width, y);
            factor = pooling == Pooling::mean ? 1.0f / float(length) : 1.0f / std::sqrt(float(length));
    }
    for (std::size_t i = 0; i < width; ++i) y[i] *= factor;
}

}  // namespace

void Workspace::reserve(const Encoder& encoder, std::size_t tokens, const Batch& batch, std::size_t first,
                        std::size_t last) {
    const Model& m = encoder.model();
    const std::size_t tile = std::size_t(std::max(1, encoder.tuning().tile_tokens));
    std::size_t longest = 0;
    for (std::size_t text = first; text < last; ++text) longest = std::max(longest, length_of(batch, text));
    if (tokens) {
        x.reserve(tokens * m.width + 64);
        if (!m.order.empty()) {
            for (Buffer<float>& one : qkv) one.reserve(tokens * (m.query_width() + 2 * m.key_width()) + 64);
            mixed.reserve(tokens * m.query_width() + 64);
        }
    }
    std::size_t widest = std::max(m.width, m.words->width()), bytes = 0, factors = 0;
    const auto need = [&](const Layer& layer, std::size_t rows) {
        if (layer.empty()) return;
        widest = std::max(widest, std::size_t(layer.inputs()));
        bytes = std::max(bytes, layer.scratch_bytes(int(rows)));
        if (layer.scales_inputs()) factors = std::max(factors, std::size_t(layer.inputs()));
    };
    need(m.projection, tile);
    for (const Block& block : m.blocks) {
        for (const Layer& layer : block.qkv) need(layer, tile);
        need(block.out, tile);
        for (const Layer& layer : block.up) need(layer, tile);
        need(block.down, tile);
    }
    std::size_t dimension = m.width * m.pooling.size();
    for (const Head& head : m.post) {
        if (head.kind != Head::Kind::dense) continue;
        need(head.dense, tile);
        dimension = std::max(dimension, std::size_t(head.dense.outputs()));
    }
    widest = std::max(widest, dimension);
    if (!m.projection.empty()) embedded.reserve(tile * m.words->width());
    if (m.pre_norm) normed.reserve(tile * m.width);
    if (m.inner) inner.reserve(tile * m.inner * (m.gated ? 2 : 1));
    if (!m.rotary.empty()) places.reserve(std::size_t(batch.offsets[last] - batch.offsets[first]));
    heads.reserve(attention_scratch(longest, m.head_width));
    for (Buffer<float>& one : pooled) one.reserve(tile * dimension);
    scaled.reserve(tile * factors);
    scratch.reserve(bytes + 64);
    codes.reserve(tile * linear::quantized_stride(int(widest)));
    scales.reserve(tile);
    zeros.reserve(tile);
}

// y = layer(x) for `tokens` tokens, at most a tile.
void Encoder::apply(const Layer& layer, const float* x, int tokens, float* y, const linear::Epilogue& epilogue,
                    Workspace& own) const {
    const Layer::Choice& choice = layer.at(tokens);
    choice.linear->run(scaled(choice, x, tokens, own), tokens, y, epilogue, own.scratch.data());
}

// The rows that a choice was packed for: x itself, or x * input_factor in the workspace.
const float* Encoder::scaled(const Layer::Choice& choice, const float* x, int tokens, Workspace& own) const {
    if (choice.input_factor.empty()) return x;
    model_.ops->multiply_rows(x, choice.input_factor.data(), std::size_t(tokens), choice.input_factor.size(),
                              own.scaled.data());
    return own.scaled.data();
}

// Layers that read the same rows `row` .. `row + tokens` of `total` (x points at the first), one's outputs behind another's:
// rows that several layers read are quantized once. The first may have an activation.
void Encoder::project(const std::vector<Layer>& layers, const float* x, std::size_t total, std::size_t row, int tokens,
                      float* y, linear::Activation first, Workspace& own) const {
    linear::QuantizedRows rows{nullptr, own.scales.data(), own.zeros.data(), 0};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const Layer::Choice& choice = layers[i].at(tokens);
        const Linear& layer = *choice.linear;
        const std::size_t width = std::size_t(layer.outputs());
        const linear::Epilogue epilogue{i == 0 ? first : linear::Activation::none, nullptr};
        float* out = y + row * width;
        y += total * width;
        if (layers.size() == 1 || !layer.takes_quantized() || layer.own_rows() || !choice.input_factor.empty()) {
            layer.run(scaled(choice, x, tokens, own), tokens, out, epilogue, own.scratch.data());
            continue;
        }
        if (rows.values == nullptr) {
            rows.values = own.codes.data();
            rows.stride = linear::quantized_stride(layer.inputs());
            linear::quantize_rows(layer.isa(), x, tokens, layer.inputs(), rows);
        }
        layer.run_quantized(rows, tokens, out, epilogue, own.scratch.data());
    }
}

// own.inner = what the last layer of a block reads: act(up(x)), or act(u) * w.
void Encoder::feed_forward(const Block& block, const float* x, int tokens, Workspace& own) const {
    const Model& m = model_;
    const std::size_t rows = std::size_t(tokens), count = rows * m.inner;
    float* inner = own.inner.data();
    if (m.gated && block.up.size() == 1) {
        project(block.up, x, rows, 0, tokens, inner, linear::Activation::none, own);
        m.ops->gate(m.activation, rows, m.inner, inner);
        return;
    }
    project(block.up, x, rows, 0, tokens, inner, fused(m.activation), own);
    if (!is_fused(m.activation)) m.ops->activate(m.activation, count, inner);
    if (m.gated) m.ops->multiply_rows(inner, inner + count, 1, count, inner);
}

// Turns queries and keys of rows `row` .. `row + count` of `total` by their places in their texts.
void Encoder::rotate(const Block& block, std::size_t total, std::size_t row, std::size_t count, float* qkv,
                     const std::int32_t* places) const {
    const Model& m = model_;
    const Rotary& rotary = m.rotary[std::size_t(block.rotary)];
    const std::size_t half = m.head_width / 2, queries = m.query_width(), keys = m.key_width();
    const bool stacked = block.qkv.size() == 1;
    const std::size_t stride = stacked ? queries + 2 * keys : queries;
    for (std::size_t i = 0; i < count; ++i) {
        const float* turn = rotary.values.data() + std::size_t(places[i]) * m.head_width;
        float* query = qkv + (row + i) * stride;
        m.ops->rotate(turn, stacked ? m.heads + m.key_heads : m.heads, half, query);
        if (!stacked) m.ops->rotate(turn, m.key_heads, half, qkv + total * queries + (row + i) * keys);
    }
}

void Encoder::embed(const Batch& batch, std::size_t first, std::size_t last, std::size_t from, std::size_t to,
                    Workspace& shared, Workspace& own) const {
    const Model& m = model_;
    if (from >= to) return;
    const std::size_t base = std::size_t(batch.offsets[first]), embedded = m.words->width();
    const std::size_t tile = std::size_t(std::max(1, tuning_.tile_tokens));
    std::size_t text = first, position = 0, at = 0;  // the next token is number `at` of its text
    std::size_t t = std::size_t(batch.offsets[first]) - base;
    while (text < last && std::size_t(batch.offsets[text + 1]) - base <= from) ++text;
    if (text < last) t = std::size_t(batch.offsets[text]) - base;
    const bool skips = m.pad_id >= 0;
    std::size_t pending = from;
    for (; t < to; ++t, ++at) {
        while (std::size_t(batch.offsets[text + 1]) - base <= t) {
            ++text;
            at = position = 0;
        }
        const std::int32_t id = batch.ids[base + t];
        std::size_t place = at;
        if (skips) place = id == m.pad_id ? std::size_t(m.pad_id) : std::size_t(m.pad_id) + ++position;
        if (t < from) continue;
        if (!m.rotary.empty()) own.places.data()[t - from] = std::int32_t(at);
        float* row = m.projection.empty() ? shared.x.data() + t * m.width : own.embedded.data() + (t - pending) * embedded;
        m.words->decode(*m.ops, std::size_t(id), row);
        if (m.position_rows) m.ops->add(m.positions.data() + place * embedded, embedded, row);
        if (!m.token_type.empty()) m.ops->add(m.token_type.data(), embedded, row);
        if (!m.embedding_norm.empty()) m.embedding_norm.run(*m.ops, row, 1, row);
        if (!m.projection.empty() && (t + 1 == to || t + 1 - pending == tile)) {
            apply(m.projection, own.embedded.data(), int(t + 1 - pending), shared.x.data() + pending * m.width, {}, own);
            pending = t + 1;
        }
    }
}

void Encoder::attend(const Batch& batch, std::size_t first, std::size_t last, std::size_t from, std::size_t to,
                     const Block& block, const float* qkv, Workspace& shared, Workspace& own) const {
    const Model& m = model_;
    const std::size_t base = std::size_t(batch.offsets[first]), total = std::size_t(batch.offsets[last]) - base;
    const std::size_t width = m.head_width, queries = m.query_width(), keys = m.key_width(), share = m.heads / m.key_heads;
    const bool stacked = block.qkv.size() == 1;
    const std::size_t query_stride = stacked ? queries + 2 * keys : queries, stride = stacked ? query_stride : keys;
    const float* key = qkv + (stacked ? queries : total * queries);
    const float* value = key + (stacked ? keys : total * keys);
    for (std::size_t text = first; text < last; ++text) {
        const std::size_t begin = std::size_t(batch.offsets[text]) - base, length = length_of(batch, text);
        if (begin + length <= from || length == 0) continue;
        if (begin >= to) break;
        Attention one;
        one.query_stride = query_stride;
        one.stride = stride;
        one.out_stride = queries;
        one.window = block.window;
        one.length = length;
        one.width = width;
        one.from = from > begin ? from - begin : 0;
        one.to = std::min(to - begin, length);
        one.scale = m.scale;
        one.scratch = own.heads.data();
        for (std::size_t head = 0; head < m.heads; ++head) {
            one.query = qkv + begin * query_stride + head * width;
            one.key = key + begin * stride + head / share * width;
            one.value = value + begin * stride + head / share * width;
            one.out = shared.mixed.data() + begin * queries + head * width;
            one.bias = m.relative_bias.empty()
                           ? nullptr
                           : m.relative_bias.data() + head * (2 * m.relative_span - 1) + (m.relative_span - 1);
            attention_(one);
        }
    }
}

void Encoder::run_group(const Batch& batch, std::size_t first, std::size_t last, Workspace& shared, Workspace& own,
                        int rank, int threads, Barrier& barrier) const {
    const Model& m = model_;
    const std::size_t base = std::size_t(batch.offsets[first]), total = std::size_t(batch.offsets[last]) - base;
    if (threads == 1) own.reserve(*this, total, batch, first, last);
    const std::size_t from = share(total, rank, threads), to = share(total, rank + 1, threads);
    const std::size_t tile = std::size_t(std::max(1, tuning_.tile_tokens)), w = m.width;
    // What a layer of a pre-norm model reads: norm(x), in the workspace; in a post-norm model x is normed already.
    const auto normed = [&](const Norm& one, const float* x, std::size_t count) {
        if (!m.pre_norm || one.empty()) return x;
        one.run(*m.ops, x, count, own.normed.data());
        return static_cast<const float*>(own.normed.data());
    };
    const auto record = [&](std::size_t step, int part, const float* x, std::size_t count) {
        if (batch.ranges == nullptr) return;
        const std::size_t starts[] = {0, w, w + m.query_width(), 2 * w + m.query_width(), m.inputs()};
        const std::size_t width = starts[part + 1] - starts[part], columns = m.inputs(), block = std::size_t(m.order[step]);
        float* least = batch.ranges + block * columns + starts[part];
        float* most = least + m.blocks.size() * columns;
        for (std::size_t i = 0; i < count * width; ++i) {
            least[i % width] = std::min(least[i % width], x[i]);
            most[i % width] = std::max(most[i % width], x[i]);
        }
    };
    embed(batch, first, last, from, to, shared, own);
    const auto project_tile = [&](std::size_t step, std::size_t row, std::size_t count) {
        const Block& block = m.blocks[std::size_t(m.order[step])];
        const float* x = normed(block.attention_norm, shared.x.data() + row * w, count);
        float* qkv = shared.qkv[step % 2].data();
        record(step, 0, x, count);
        project(block.qkv, x, total, row, int(count), qkv, linear::Activation::none, own);
        if (block.rotary >= 0) rotate(block, total, row, count, qkv, own.places.data() + (row - from));
    };
    if (!m.order.empty())
        for (std::size_t row = from; row < to; row += tile) project_tile(0, row, std::min(tile, to - row));
    for (std::size_t step = 0; step < m.order.size(); ++step) {
        const Block& block = m.blocks[std::size_t(m.order[step])];
        barrier.wait();
        attend(batch, first, last, from, to, block, shared.qkv[step % 2].data(), shared, own);
        for (std::size_t row = from; row < to; row += tile) {
            const std::size_t count = std::min(tile, to - row);
            float* x = shared.x.data() + row * w;
            const float* mixed = shared.mixed.data() + row * m.query_width();
            record(step, 1, mixed, count);
            apply(block.out, mixed, int(count), x, {linear::Activation::none, x}, own);
            if (!m.pre_norm) block.attention_norm.run(*m.ops, x, count, x);
            const float* read = normed(block.feed_forward_norm, x, count);
            record(step, 2, read, count);
            feed_forward(block, read, int(count), own);
            record(step, 3, own.inner.data(), count);
            apply(block.down, own.inner.data(), int(count), x, {linear::Activation::none, x}, own);
            if (!m.pre_norm) block.feed_forward_norm.run(*m.ops, x, count, x);
            if (step + 1 < m.order.size()) project_tile(step + 1, row, count);
        }
    }
    if (!m.final_norm.empty()) {
        float* x = shared.x.data() + from * w;
        m.final_norm.run(*m.ops, x, to - from, x);
    }
    barrier.wait();
    const std::size_t texts = last - first;
    pool_texts(batch, first + texts * std::size_t(rank) / std::size_t(threads),
               first + texts * std::size_t(rank + 1) / std::size_t(threads), base, shared, own);
}

void Encoder::pool_texts(const Batch& batch, std::size_t first, std::size_t last, std::size_t base,
                         const Workspace& shared, Workspace& own) const {
    const Model& m = model_;
    const std::size_t tile = std::size_t(std::max(1, tuning_.tile_tokens));
    for (std::size_t text = first; text < last; text += tile) {
        const std::size_t count = std::min(tile, last - text);
        std::size_t width = m.width * m.pooling.size();
        float* y = own.pooled[0].data();
        float* other = own.pooled[1].data();
        for (std::size_t i = 0; i < count; ++i) {
            const float* x = shared.x.data() + (std::size_t(batch.offsets[text + i]) - base) * m.width;
            for (std::size_t p = 0; p < m.pooling.size(); ++p)
                pool_one(*m.ops, m.pooling[p], x, length_of(batch, text + i), m.width, y + i * width + p * m.width);
        }
        for (const Head& head : m.post) {
            if (head.kind == Head::Kind::dense) {
                apply(head.dense, y, int(count), other, {fused(head.activation), nullptr}, own);
                std::swap(y, other);
                width = std::size_t(head.dense.outputs());
                if (!is_fused(head.activation)) m.ops->activate(head.activation, count * width, y);
            } else if (head.kind == Head::Kind::layer_norm) {
                m.ops->layer_norm(y, head.norm.gamma.data(), head.norm.beta.data(), head.norm.eps, count, width, y);
            } else {
                for (std::size_t i = 0; i < count; ++i) m.ops->normalize(width, 1e-12f, y + i * width);
            }
        }
        std::memcpy(batch.out + text * dimension_, y, count * width * sizeof(float));
    }
}

}  // namespace encoder
}  // namespace leanmatch

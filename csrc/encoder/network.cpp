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
            qkv[0].reserve(tokens * 3 * m.width + 64);
            qkv[1].reserve(tokens * 3 * m.width + 64);
            mixed.reserve(tokens * m.width + 64);
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
        need(block.up, tile);
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
    if (m.inner) inner.reserve(tile * m.inner);
    heads.reserve(attention_scratch(longest, m.width / m.heads));
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

// q, k and v of rows `row` .. `row + tokens` (x points at the first): where several layers read them, they are quantized once.
void Encoder::project(const std::vector<Layer>& layers, const float* x, std::size_t total, std::size_t row, int tokens,
                      float* y, Workspace& own) const {
    linear::QuantizedRows rows{nullptr, own.scales.data(), own.zeros.data(), 0};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const Layer::Choice& choice = layers[i].at(tokens);
        const Linear& layer = *choice.linear;
        const std::size_t width = std::size_t(layer.outputs());
        float* out = y + i * total * width + row * width;
        if (layers.size() == 1 || !layer.takes_quantized() || layer.own_rows() || !choice.input_factor.empty()) {
            layer.run(scaled(choice, x, tokens, own), tokens, out, {}, own.scratch.data());
            continue;
        }
        if (rows.values == nullptr) {
            rows.values = own.codes.data();
            rows.stride = linear::quantized_stride(layer.inputs());
            linear::quantize_rows(layer.isa(), x, tokens, layer.inputs(), rows);
        }
        layer.run_quantized(rows, tokens, out, {}, own.scratch.data());
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
        float* row = m.projection.empty() ? shared.x.data() + t * m.width : own.embedded.data() + (t - pending) * embedded;
        m.words->decode(*m.ops, std::size_t(id), row);
        if (m.position_rows) m.ops->add(m.positions.data() + place * embedded, embedded, row);
        if (!m.embedding_norm.empty()) {
            m.ops->layer_norm(row, m.embedding_norm.gamma.data(), m.embedding_norm.beta.data(), m.embedding_norm.eps, 1,
                              embedded, row);
        }
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
    const std::size_t width = m.width / m.heads;
    const bool stacked = block.qkv.size() == 1;
    const std::size_t stride = stacked ? 3 * m.width : m.width, part = stacked ? m.width : total * m.width;
    for (std::size_t text = first; text < last; ++text) {
        const std::size_t begin = std::size_t(batch.offsets[text]) - base, length = length_of(batch, text);
        if (begin + length <= from || length == 0) continue;
        if (begin >= to) break;
        Attention one;
        one.stride = stride;
        one.out_stride = m.width;
        one.length = length;
        one.width = width;
        one.from = from > begin ? from - begin : 0;
        one.to = std::min(to - begin, length);
        one.scale = 1.0f / std::sqrt(float(width));
        one.scratch = own.heads.data();
        for (std::size_t head = 0; head < m.heads; ++head) {
            one.query = qkv + begin * stride + head * width;
            one.key = one.query + part;
            one.value = one.key + part;
            one.out = shared.mixed.data() + begin * m.width + head * width;
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
    const auto norm = [&](const Norm& one, std::size_t row, std::size_t count) {
        float* x = shared.x.data() + row * w;
        m.ops->layer_norm(x, one.gamma.data(), one.beta.data(), one.eps, count, w, x);
    };
    const auto record = [&](std::size_t step, int part, const float* x, std::size_t count) {
        if (batch.ranges == nullptr) return;
        const std::size_t width = part == 3 ? m.inner : w, block = std::size_t(m.order[step]);
        const std::size_t columns = 3 * w + m.inner;
        float* least = batch.ranges + block * columns + std::size_t(part) * w;
        float* most = least + m.blocks.size() * columns;
        for (std::size_t i = 0; i < count * width; ++i) {
            least[i % width] = std::min(least[i % width], x[i]);
            most[i % width] = std::max(most[i % width], x[i]);
        }
    };
    embed(batch, first, last, from, to, shared, own);
    const auto project_tile = [&](std::size_t step, std::size_t row, std::size_t count) {
        record(step, 0, shared.x.data() + row * w, count);
        project(m.blocks[std::size_t(m.order[step])].qkv, shared.x.data() + row * w, total, row, int(count),
                shared.qkv[step % 2].data(), own);
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
            record(step, 1, shared.mixed.data() + row * w, count);
            apply(block.out, shared.mixed.data() + row * w, int(count), x, {linear::Activation::none, x}, own);
            norm(block.attention_norm, row, count);
            record(step, 2, x, count);
            apply(block.up, x, int(count), own.inner.data(), {fused(m.activation), nullptr}, own);
            if (!is_fused(m.activation)) m.ops->activate(m.activation, count * m.inner, own.inner.data());
            record(step, 3, own.inner.data(), count);
            apply(block.down, own.inner.data(), int(count), x, {linear::Activation::none, x}, own);
            norm(block.output_norm, row, count);
            if (step + 1 < m.order.size()) project_tile(step + 1, row, count);
        }
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

// The encoder under the address and undefined-behaviour sanitizers: random models at every level that this CPU has,
// texts of 0, 1, 63, 64, 65 and more tokens, alone and together, on one and on three threads. Results must agree across
// numbers of threads; everything else is the sanitizers' to say. Built and run by scripts/sanitize.sh.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/features.h"
#include "encoder/encoder.h"
#include "linear/linear.h"

using namespace leanmatch;
using namespace leanmatch::encoder;

namespace {

std::mt19937 rng(7);

std::vector<float> numbers(std::size_t count, float scale = 0.3f) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> out(count);
    for (float& one : out) one = normal(rng);
    return out;
}

Layer layer(linear::Isa isa, int m, int n, bool int8, bool factor) {
    const std::vector<float> weight = numbers(std::size_t(m) * std::size_t(n)), bias = numbers(std::size_t(m));
    linear::LinearPtr made = int8 ? linear::pack_dense_i8(isa, weight.data(), bias.data(), m, n)
                                  : linear::pack_dense_f32(isa, weight.data(), bias.data(), m, n);
    return Layer({{0, std::shared_ptr<const Linear>(std::move(made)), factor ? numbers(std::size_t(n)) : std::vector<float>()}});
}

Norm norm(std::size_t width) { return {numbers(width), numbers(width), 1e-5f}; }

Norm root(std::size_t width) { return {numbers(width), {}, 1e-6f}; }

Model model(linear::Isa isa, const Ops& ops, bool int8, bool apart, int width, int heads, int inner) {
    Model m;
    m.ops = &ops;
    m.isa = isa;
    m.words = std::make_shared<FloatTable>(numbers(50 * std::size_t(width)), 50, std::size_t(width));
    m.position_rows = 200;
    m.positions = numbers(200 * std::size_t(width));
    m.pad_id = apart ? 1 : -1;
    m.embedding_norm = norm(std::size_t(width));
    m.width = std::size_t(width);
    m.heads = m.key_heads = std::size_t(heads);
    m.head_width = std::size_t(width / heads);
    m.scale = 1.0f / std::sqrt(float(m.head_width));
    m.inner = std::size_t(inner);
    m.activation = apart ? Activation::silu : Activation::gelu;
    for (int i = 0; i < 2; ++i) {
        Block block;
        if (apart) for (int j = 0; j < 3; ++j) block.qkv.push_back(layer(isa, width, width, int8, j == 1));
        else block.qkv.push_back(layer(isa, 3 * width, width, int8, false));
        block.out = layer(isa, width, width, int8, false);
        block.up.push_back(layer(isa, inner, width, int8, true));
        block.down = layer(isa, width, inner, int8, false);
        block.attention_norm = norm(std::size_t(width));
        block.feed_forward_norm = norm(std::size_t(width));
        m.blocks.push_back(std::move(block));
        m.order.push_back(i);
    }
    if (apart) {
        m.relative_span = 198;
        m.relative_bias = numbers(std::size_t(heads) * (2 * 198 - 1));
    }
    m.pooling = {Pooling::mean, Pooling::max};
    Head head;
    head.kind = Head::Kind::dense;
    head.dense = layer(isa, 21, 2 * width, false, false);
    head.activation = Activation::tanh;
    m.post.push_back(std::move(head));
    return m;
}

// The same with norms in front, gates, rotary positions and windows; `apart`: keys shared by heads, layers not stacked.
Model gated_model(linear::Isa isa, const Ops& ops, bool int8, bool apart, int width, int heads, int inner) {
    Model m = model(isa, ops, int8, false, width, heads, inner);
    m.position_rows = 0;
    m.positions.clear();
    m.token_type = numbers(std::size_t(width));
    m.pre_norm = m.gated = true;
    m.final_norm = root(std::size_t(width));
    m.head_width = 10;
    m.key_heads = apart ? 1 : m.heads;
    m.activation = apart ? Activation::gelu : Activation::silu;
    m.rotary = {{numbers(198 * 10), 198}, {numbers(200 * 10), 200}};
    const int queries = heads * 10, keys = int(m.key_heads) * 10;
    for (int i = 0; i < 2; ++i) {
        Block& block = m.blocks[std::size_t(i)];
        block.qkv.clear();
        block.up.clear();
        if (apart) {
            for (int outputs : {queries, keys, keys}) block.qkv.push_back(layer(isa, outputs, width, int8, false));
            for (int j = 0; j < 2; ++j) block.up.push_back(layer(isa, inner, width, int8, j == 1));
        } else {
            block.qkv.push_back(layer(isa, queries + 2 * keys, width, int8, false));
            block.up.push_back(layer(isa, 2 * inner, width, int8, false));
        }
        block.out = layer(isa, width, queries, int8, false);
        block.attention_norm = i == 0 ? Norm() : root(std::size_t(width));
        block.feed_forward_norm = norm(std::size_t(width));
        block.rotary = i;
        if (i == 1) block.window = 9;
    }
    return m;
}

void check(const Encoder& encoder, const std::vector<int>& lengths) {
    std::vector<std::int64_t> offsets{0};
    for (int length : lengths) offsets.push_back(offsets.back() + length);
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < offsets.back(); ++i) ids.push_back(std::int32_t(rng() % 50));
    std::vector<float> first(lengths.size() * encoder.dimension()), again(first.size());
    encoder.run({ids.data(), offsets.data(), lengths.size(), first.data()}, 1);
    encoder.run({ids.data(), offsets.data(), lengths.size(), again.data()}, 3);
    for (std::size_t i = 0; i < first.size(); ++i) {
        if (std::isfinite(first[i]) && std::fabs(first[i] - again[i]) <= 1e-3f) continue;
        std::fprintf(stderr, "one and three threads differ: %g and %g\n", double(first[i]), double(again[i]));
        std::exit(1);
    }
}

bool has(const Features& features, const Level& level) {
    for (const std::string& need : level.needs) {
        bool found = false;
        for (const auto& [name, usable] : features) found |= name == need && usable;
        if (!found) return false;
    }
    return true;
}

}  // namespace

int main() {
    const Features features = cpu_features();
    for (const Level& level : levels()) {
        if (!has(features, level)) continue;
        const linear::Isa isa = linear::isa_from_name(level.name.c_str());
        for (int kind = 0; kind < 8; ++kind)
            for (int width : {24, 40}) {
                const bool int8 = kind & 1, apart = kind & 2;
                const auto make = kind & 4 ? gated_model : model;
                Encoder encoder(make(isa, *ops_of(level.name.c_str()), int8, apart, width, width / 8, 56));
                encoder.tuning() = {width == 24 ? 16 : 128, width == 24 ? 7 : 64, 4};
                for (int length : {0, 1, 2, 5, 63, 64, 65, 130, 198}) check(encoder, {length});
                check(encoder, {});
                check(encoder, {0, 65, 1, 64, 0, 63, 3, 198, 7, 7, 7, 12, 1});
                std::vector<int> many(90, 9);
                check(encoder, many);
                std::thread other([&] { check(encoder, {5, 6}); });  // while nothing else runs: rng is not shared
                other.join();
                for (const std::vector<std::int64_t>& wrong : {std::vector<std::int64_t>{0, 201}, {0, -1}, {1, 2}}) {
                    std::vector<std::int32_t> ids(201, 3);
                    std::vector<float> out(encoder.dimension());
                    bool thrown = false;
                    try {
                        encoder.run({ids.data(), wrong.data(), 1, out.data()}, 1);
                    } catch (const std::invalid_argument&) {
                        thrown = true;
                    }
                    if (!thrown) {
                        std::fprintf(stderr, "offsets 0, %d were taken\n", int(wrong[1]));
                        return 1;
                    }
                }
            }
        std::printf("encoder %s: clean\n", level.name.c_str());
    }
    return 0;
}

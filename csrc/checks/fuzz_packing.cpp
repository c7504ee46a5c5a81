// Damaged weights against the checks in front of the kernels, for the sanitizers: sizes, indices, codes, scales, orders and
// token ids are drawn at random, most of them valid, some not. Packing must throw std::invalid_argument or give a layer that
// runs on any rows without touching memory beyond its buffers. Usage: fuzz_packing [ROUNDS] [SEED]; scripts/sanitize.sh runs
// it for some seconds.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "encoder/encoder.h"
#include "linear/linear.h"

namespace {

using namespace leanmatch;
using namespace leanmatch::linear;

std::mt19937 rng;

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }
bool rarely() { return draw(0, 19) == 0; }
std::size_t sz(int i) { return static_cast<std::size_t>(i); }

float number() {
    static const float odd[] = {0.0f, -1.0f, 1e-45f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    return rarely() ? odd[draw(0, 7)] : std::normal_distribution<float>(0.0f, 1.0f)(rng);
}

std::vector<float> numbers(std::size_t count) {
    std::vector<float> out(count);
    const bool damaged = rarely();
    for (float& one : out) one = damaged ? number() : std::fabs(std::normal_distribution<float>(0.0f, 1.0f)(rng)) + 0.01f;
    return out;
}

std::vector<std::int8_t> codes(std::size_t count) {
    std::vector<std::int8_t> out(count);
    const int least = rarely() ? -128 : -127;
    for (std::int8_t& one : out) one = static_cast<std::int8_t>(draw(least, 127));
    return out;
}

// Exactly as large as the interface says.
void run(const Linear& layer) {
    const int T = draw(0, 70);
    std::vector<float> x(sz(T) * sz(layer.inputs())), y(sz(T) * sz(layer.outputs()));
    const bool damaged = rarely();
    for (float& one : x) one = damaged ? number() : std::normal_distribution<float>(0.0f, 1.0f)(rng);
    const std::size_t bytes = (layer.scratch_bytes(T) + 63) / 64 * 64;
    const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes ? bytes : 64), std::free);
    layer.run(x.data(), T, y.data(), {Activation(draw(0, 2)), nullptr}, scratch.get());
}

int size() { return rarely() ? draw(-2, 0) : draw(1, 40); }

LinearPtr dense(Isa isa) {
    const int m = size(), n = size();
    const std::size_t rows = sz(m < 0 ? 0 : m), count = rows * sz(n < 0 ? 0 : n);
    const std::vector<float> scale = numbers(rows), bias = numbers(rows), weight = numbers(count);
    const std::vector<std::int8_t> q = codes(count);
    switch (draw(0, 2)) {
        case 0: return pack_dense_i8(isa, q.data(), scale.data(), bias.data(), m, n);
        case 1: return pack_dense_i8(isa, weight.data(), nullptr, m, n);
        default: return pack_dense_f32(isa, weight.data(), bias.data(), m, n);
    }
}

LinearPtr sparse(Isa isa) {
    const int m = size(), b = rarely() ? size() : draw(1, 20), blocks = draw(1, 9), k = rarely() ? size() : draw(1, 6);
    const int r = rarely() ? draw(-1, 300) : draw(1, 128), n = rarely() ? draw(0, 200) : b * blocks;
    const std::size_t atoms = sz(r < 0 ? 0 : r) * sz(n < 0 ? 0 : n) + 8;
    const std::size_t of_row = sz(b > 0 && n >= b ? n / b : 1) * sz(k < 0 ? 0 : k), values = sz(m < 0 ? 0 : m) * of_row;
    const std::vector<float> atoms_scale = numbers(atoms), values_scale = numbers(sz(m < 0 ? 0 : m)), v = numbers(values);
    const std::vector<std::int8_t> atoms_q = codes(atoms), values_q = codes(values);
    std::vector<std::uint16_t> indices(values);
    for (std::uint16_t& one : indices) one = std::uint16_t(draw(0, r > 1 ? r - 1 : 0));
    if (rarely() && !indices.empty()) indices[sz(draw(0, int(indices.size()) - 1))] = std::uint16_t(draw(0, 65535));
    const std::size_t count = sz(b > 0 && n >= b ? n / b : 1);
    std::vector<std::int32_t> order(count);
    for (std::size_t i = 0; i < count; i++) order[i] = std::int32_t(count - 1 - i);
    if (rarely()) order[sz(draw(0, int(count) - 1))] = draw(-3, int(count) + 3);
    const TableInputs inputs{rarely() ? draw(-300, 300) : draw(1, 254), draw(0, 1) ? order.data() : nullptr,
                             rarely() ? draw(-2, 20) : draw(0, int(count))};
    if (draw(0, 3) == 0)
        return pack_dense_sparse_f32(isa, atoms_scale.data(), indices.data(), v.data(), nullptr, m, n, b, r, k);
    return pack_dense_sparse_i8(isa, atoms_q.data(), atoms_scale.data(), indices.data(), values_q.data(),
                                values_scale.data(), nullptr, m, n, b, r, k, inputs);
}

// Levels that this CPU runs; the others are refused before anything else is looked at.
std::vector<Isa> supported() {
    std::vector<Isa> out;
    for (int i = 0; i < kIsas; i++)
        if (runs(Isa(i))) out.push_back(Isa(i));
    return out;
}

// An encoder without layers, whose tables and positions are the ones that token ids reach into.
void encode() {
    encoder::Model model;
    const int rows = draw(1, 30), width = draw(1, 20), positions = draw(0, 12);
    model.ops = &encoder::ops_portable();
    model.words = std::make_shared<encoder::FloatTable>(numbers(sz(rows) * sz(width)), sz(rows), sz(width));
    model.position_rows = sz(positions);
    model.positions = numbers(sz(rarely() ? draw(0, 300) : positions * width));
    model.pad_id = draw(-1, 3);
    model.width = sz(rarely() ? draw(0, 30) : width);
    model.pooling = {encoder::Pooling(draw(0, 5))};
    const encoder::Encoder made(std::move(model));
    const int texts = draw(0, 4);
    std::vector<std::int64_t> offsets{0};
    for (int i = 0; i < texts; i++) offsets.push_back(offsets.back() + (rarely() ? draw(-5, 30) : draw(0, 9)));
    std::vector<std::int32_t> ids(offsets.back() > 0 ? std::size_t(offsets.back()) : 0);
    for (std::int32_t& id : ids) id = rarely() ? draw(-5, 100) : draw(0, rows - 1);
    for (std::size_t i = 0; i + 1 < offsets.size(); i++)  // what the binding checks: the ids end with the last offset
        if (offsets[i] > offsets.back()) return;
    std::vector<float> out(sz(texts) * made.dimension());
    made.run({ids.data(), offsets.data(), sz(texts), out.data()}, 1);
}

}  // namespace

int main(int count, char** arguments) {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 3000;
    rng.seed(count > 2 ? unsigned(std::atoi(arguments[2])) : 1u);
    const std::vector<Isa> levels = supported();
    int refused = 0, ran = 0;
    for (int i = 0; i < rounds; i++) {
        try {
            if (i % 5 == 0) {
                encode();
            } else {
                const Isa isa = levels[sz(draw(0, int(levels.size()) - 1))];
                run(i % 5 == 1 ? *dense(isa) : *sparse(isa));
            }
            ran++;
        } catch (const std::invalid_argument&) {
            refused++;
        }
    }
    std::printf("fuzz_packing: %d rounds, %d ran, %d refused\n", rounds, ran, refused);
    return ran && refused ? 0 : 1;
}

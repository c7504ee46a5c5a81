// Every linear path at every level of this CPU on odd sizes, for the address and undefined-behaviour sanitizers
// (`make sanitize`). Buffers are exactly as large as the interface says, so that a read or write beyond them is
// seen. Outputs are compared with the portable level; check_linear.cpp and tests/runtime/test_linear.py measure
// errors.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "linear/linear.h"
#include "linear/peaks.h"

namespace {

using namespace leanmatch::linear;

std::mt19937 generator(5);

std::size_t sz(int i) { return static_cast<std::size_t>(i); }

std::vector<float> normal(std::size_t count) {
    std::normal_distribution<float> draw;
    std::vector<float> out(count);
    for (float& v : out) v = draw(generator);
    return out;
}

std::vector<std::int8_t> codes(std::size_t count) {
    std::uniform_int_distribution<int> draw(-127, 127);
    std::vector<std::int8_t> out(count);
    for (std::int8_t& v : out) v = static_cast<std::int8_t>(draw(generator));
    return out;
}

struct Free {
    void operator()(void* p) const { std::free(p); }
};

// Runs at T tokens; returns the outputs.
std::vector<float> run(const Linear& layer, int T, const std::vector<float>& x, const Epilogue& epilogue) {
    std::vector<float> y(sz(T) * sz(layer.outputs()));
    const std::size_t bytes = (layer.scratch_bytes(T) + 63) / 64 * 64;
    const std::unique_ptr<void, Free> scratch(std::aligned_alloc(64, bytes ? bytes : 64));
    layer.run(x.data(), T, y.data(), epilogue, scratch.get());
    if (layer.takes_quantized()) {
        const std::size_t stride = quantized_stride(layer.inputs());
        std::vector<std::uint8_t> values(sz(T) * stride);
        std::vector<float> scale(sz(T)), head_scale(sz(T)), again(y.size());
        std::vector<std::int32_t> zero(sz(T));
        const QuantizedRows rows{values.data(), scale.data(), zero.data(), stride, head_scale.data()};
        layer.quantize(x.data(), T, rows);
        layer.run_quantized(rows, T, again.data(), epilogue, scratch.get());
        if (!y.empty() &&
            std::memcmp(again.data(), y.data(), y.size() * sizeof(float)) != 0)  // bits: NaN equals NaN
            std::printf("%s at %s: quantized rows give another result\n", layer.path(), isa_name(layer.isa())),
                std::exit(1);
    }
    return y;
}

struct Size {
    int m, b, blocks, r, k;
};

std::vector<LinearPtr> layers(Isa isa, const Size& s, unsigned seed) {
    generator.seed(seed);  // the same weights for every level
    const int n = s.b * s.blocks;
    const std::vector<float> weight = normal(sz(s.m) * sz(n)), bias = normal(sz(s.m));
    const std::vector<float> atoms = normal(sz(n) * sz(s.r)), values = normal(sz(s.m) * sz(s.blocks) * sz(s.k));
    const std::vector<std::int8_t> q = codes(sz(s.m) * sz(n)), atoms_q = codes(atoms.size()),
                                   values_q = codes(values.size());
    const std::vector<float> ones(sz(s.m), 0.01f), atoms_scale(sz(s.blocks) * sz(s.r), 0.01f);
    std::vector<std::uint16_t> indices(values.size());
    for (std::uint16_t& i : indices) i = static_cast<std::uint16_t>(generator() % static_cast<unsigned>(s.r));
    std::vector<LinearPtr> out;
    out.push_back(pack_dense_f32(isa, weight.data(), bias.data(), s.m, n));
    out.push_back(pack_dense_i8(isa, q.data(), ones.data(), nullptr, s.m, n));
    out.push_back(pack_dense_i8(isa, weight.data(), bias.data(), s.m, n));
    out.push_back(pack_dense_sparse_f32(isa, atoms.data(), indices.data(), values.data(), bias.data(), s.m, n, s.b,
                                        s.r, s.k));
    out.push_back(pack_dense_sparse_i8(isa, atoms_q.data(), atoms_scale.data(), indices.data(), values_q.data(),
                                       ones.data(), bias.data(), s.m, n, s.b, s.r, s.k));
    std::vector<std::int32_t> order(sz(s.blocks));
    for (int i = 0; i < s.blocks; i++) order[sz(i)] = s.blocks - 1 - i;
    out.push_back(pack_dense_sparse_i8(isa, atoms_q.data(), atoms_scale.data(), indices.data(), values_q.data(),
                                       ones.data(), nullptr, s.m, n, s.b, s.r, s.k, {100, order.data(), s.blocks / 2, true}));
    out.push_back(pack_low_rank(pack_dense_i8(isa, weight.data(), bias.data(), s.m, n),
                                pack_dense_f32(isa, std::vector<float>(sz(n) * 3, 0.1f).data(), nullptr, n, 3)));
    out.push_back(isa >= Isa::avx512 && has_bf16() ? pack_dense_bf16(isa, weight.data(), bias.data(), s.m, n)
                                                   : pack_dense_f32(isa, weight.data(), bias.data(), s.m, n));
    return out;
}

}  // namespace

int main() {
    const Size sizes[] = {{1, 1, 1, 1, 1},     {17, 3, 2, 5, 2},    {65, 16, 3, 64, 4}, {33, 8, 5, 64, 3},
                          {64, 16, 4, 128, 4}, {31, 16, 3, 96, 5},  {70, 4, 7, 16, 2},  {40, 8, 6, 32, 4},
                          {16, 32, 3, 100, 9}, {130, 16, 24, 64, 4}};
    int compared = 0;
    unsigned seed = 0;
    for (const Size& size : sizes) {
        seed++;
        const std::vector<LinearPtr> reference = layers(Isa::portable, size, seed);
        for (int level = 0; level < kIsas; level++) {
            const Isa isa = static_cast<Isa>(level);
            if (!runs(isa)) continue;
            const std::vector<LinearPtr> found = layers(isa, size, seed);
            for (std::size_t i = 0; i < found.size(); i++)
                for (int T : {0, 1, 5, 17, 65, 101})
                    for (Activation activation : {Activation::none, Activation::gelu}) {
                        const std::vector<float> x = normal(sz(T) * sz(found[i]->inputs())),
                                                 residual = normal(sz(T) * sz(size.m));
                        const Epilogue epilogue{activation, T % 2 ? residual.data() : nullptr};
                        const std::vector<float> y = run(*found[i], T, x, epilogue),
                                                 expected = run(*reference[i], T, x, epilogue);
                        double error = 0.0, norm = 0.0;
                        for (std::size_t j = 0; j < y.size(); j++) {
                            error += double(y[j] - expected[j]) * double(y[j] - expected[j]);
                            norm += double(expected[j]) * double(expected[j]);
                        }
                        if (!(error <= 0.05 * 0.05 * norm + 1e-3)) {
                            std::printf("%s at %s differs from portable: %g of %g\n", found[i]->path(),
                                        isa_name(isa), error, norm);
                            return 1;
                        }
                        compared++;
                    }
            measure_peaks(isa);
        }
    }
    // Rows that are not numbers, huge or tiny must not reach undefined conversions.
    for (int level = 0; level < kIsas; level++) {
        const Isa isa = static_cast<Isa>(level);
        if (!runs(isa)) continue;
        for (const LinearPtr& layer : layers(isa, {33, 8, 5, 64, 4}, 99))
            for (float bad : {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f, 0.0f}) {
                std::vector<float> x = normal(7 * sz(layer->inputs()));
                x[x.size() / 2] = bad;
                x[0] = -bad;
                run(*layer, layer->inputs() == 3 ? 6 : 7, x, Epilogue{});
            }
    }
    std::printf("sanitize_linear: %d comparisons, all levels that this CPU runs\n", compared);
    return 0;
}

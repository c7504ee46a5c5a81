// Every linear path of every level of this CPU against slow references: float64 within the tolerances of linear.h for the
// fp32 paths, exact integers for the int8 ones. `make sanitize` and `make arm` run it; the latter has no Python, whose
// tests/runtime/test_linear.py measures the same and more. Usage: check_linear [ROUNDS]: random weights for each size.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "table_reference.h"

namespace {

using namespace leanmatch;
using namespace leanmatch::linear;

std::mt19937 rng(11);
long long compared = 0;

std::size_t sz(int i) { return static_cast<std::size_t>(i); }
int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

std::vector<float> normal(std::size_t count, float scale = 1.0f) {
    std::normal_distribution<float> one(0.0f, scale);
    std::vector<float> out(count);
    for (float& v : out) v = one(rng);
    return out;
}
std::vector<std::int8_t> codes(std::size_t count) {
    std::vector<std::int8_t> out(count);
    for (std::int8_t& v : out) v = static_cast<std::int8_t>(draw(-127, 127));
    return out;
}

void expect(double found, double expected, double tolerance, const Linear& layer, const char* what) {
    compared++;
    if (std::fabs(found - expected) <= tolerance) return;
    std::printf("%s at %s, m=%d n=%d, %s: %.9g instead of %.9g (tolerance %.3g)\n", layer.path(), isa_name(layer.isa()),
                layer.outputs(), layer.inputs(), what, found, expected, tolerance);
    std::exit(1);
}

struct Scratch {
    explicit Scratch(const Linear& layer, int T)
        : memory(std::aligned_alloc(64, (layer.scratch_bytes(T) + 64) / 64 * 64), std::free) {}
    std::unique_ptr<void, void (*)(void*)> memory;
};

// y = act(W x + bias) + residual in float64, and the sum of absolute products.
void check_f32(const Linear& layer, const std::vector<double>& weight, const std::vector<float>& bias) {
    const int m = layer.outputs(), n = layer.inputs();
    for (int T : {0, 1, 5, 17, 31})
        for (Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
            const std::vector<float> x = normal(sz(T) * sz(n)), residual = normal(sz(T) * sz(m));
            std::vector<float> y(sz(T) * sz(m));
            const Scratch scratch(layer, T);
            layer.run(x.data(), T, y.data(), {activation, T % 2 ? residual.data() : nullptr}, scratch.memory.get());
            for (int t = 0; t < T; t++)
                for (int i = 0; i < m; i++) {
                    double sum = double(bias[sz(i)]), size = std::fabs(sum);
                    for (int j = 0; j < n; j++) {
                        const double product = weight[sz(i) * sz(n) + sz(j)] * double(x[sz(t) * sz(n) + sz(j)]);
                        sum += product, size += std::fabs(product);
                    }
                    double tolerance = std::ldexp(n + 4, -24) * size + 1e-7;
                    if (activation == Activation::relu) sum = std::max(0.0, sum);
                    if (activation == Activation::gelu) {
                        tolerance = 1.2 * tolerance + 1e-6 * std::max(1.0, std::fabs(sum));
                        sum *= 0.5 * std::erfc(-sum / std::sqrt(2.0));
                    }
                    const std::size_t at = sz(t) * sz(m) + sz(i);
                    if (T % 2) sum += double(residual[at]), tolerance += std::ldexp(std::fabs(sum), -23);
                    expect(double(y[at]), sum, tolerance, layer, "float64");
                }
        }
}

// Inputs that are whole numbers and reach i16_steps(n) are rounded to themselves: sums must be exact, as large as they can be.
void check_dense_i16(const Linear& layer, const std::vector<std::int8_t>& q, int T, bool extreme) {
    const int m = layer.outputs(), n = layer.inputs(), steps = i16_steps(n);
    std::vector<float> x(sz(T) * sz(n)), y(sz(T) * sz(m));
    for (int t = 0; t < T; t++) {
        for (int j = 0; j < n; j++) x[sz(t) * sz(n) + sz(j)] = float(extreme ? steps : draw(-steps, steps));
        x[sz(t) * sz(n) + sz(draw(0, n - 1))] = float(t % 2 ? -steps : steps);
    }
    const Scratch scratch(layer, T);
    layer.run(x.data(), T, y.data(), {}, scratch.memory.get());
    for (int t = 0; t < T; t++)
        for (int i = 0; i < m; i++) {
            long long sum = 0;
            for (int j = 0; j < n; j++) sum += (long long)(q[sz(i) * sz(n) + sz(j)]) * (long long)(x[sz(t) * sz(n) + sz(j)]);
            expect(double(y[sz(t) * sz(m) + sz(i)]), double(float(sum) * 0.5f), 0.0, layer, "exact integers");
        }
    if (T < 2 || extreme) return;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    x[sz(draw(0, n - 1))] = bad[sz(draw(0, 2))];
    std::fill(x.begin() + n, x.begin() + 2 * n, 0.0f);
    layer.run(x.data(), T, y.data(), {}, scratch.memory.get());
    for (int i = 0; i < m; i++) {
        expect(std::isnan(y[sz(i)]) ? 1.0 : 0.0, 1.0, 0.0, layer, "NaN of a NaN");
        expect(double(y[sz(m + i)]), 0.0, 0.0, layer, "zero of zeros");
    }
}

// Rows that are drawn, not rounded from numbers, so that every code and zero point is tried; `extreme`: the sums as large as
// they can be.
void check_dense_i8(Isa isa, int m, int n, int T, bool extreme) {
    std::vector<std::int8_t> q = codes(sz(m) * sz(n));
    if (extreme)
        for (std::size_t i = 0; i < q.size(); i++) q[i] = i / sz(n) % 2 ? -127 : 127;
    const std::vector<float> scale(sz(m), 0.5f);  // powers of two: the epilogue rounds once
    const LinearPtr layer = pack_dense_i8(isa, q.data(), scale.data(), nullptr, m, n);
    if (!layer->takes_quantized()) return check_dense_i16(*layer, q, T, extreme);
    const std::size_t stride = quantized_stride(n);
    std::vector<std::uint8_t> u(sz(T) * stride);
    std::vector<float> unit(sz(T), 0.25f), y(sz(T) * sz(m));
    std::vector<std::int32_t> zero(sz(T));
    const int top = quantized_max(layer->isa());
    for (int t = 0; t < T; t++) {
        zero[sz(t)] = extreme ? t % 2 * top : draw(0, top);
        for (int j = 0; j < n; j++)
            u[sz(t) * stride + sz(j)] = std::uint8_t(extreme ? top - zero[sz(t)] : draw(0, top));
    }
    const Scratch scratch(*layer, T);
    layer->run_quantized({u.data(), unit.data(), zero.data(), stride}, T, y.data(), {}, scratch.memory.get());
    for (int t = 0; t < T; t++)
        for (int i = 0; i < m; i++) {
            long long sum = 0;
            for (int j = 0; j < n; j++)
                sum += (long long)(q[sz(i) * sz(n) + sz(j)]) * (u[sz(t) * stride + sz(j)] - zero[sz(t)]);
            expect(double(y[sz(t) * sz(m) + sz(i)]), double(float(sum) * 0.125f), 0.0, *layer, "exact integers");
        }
}

// Each code lies within half a step of its number: |x - scale (u - zero)| <= scale / 2.
void check_rounding(const Linear& layer, const std::vector<float>& x, int t, const QuantizedRows& rows, float scale,
                    int zero, int from, int to) {
    for (int j = from; j < to; j++) {
        const double back = double(scale) * (int(rows.values[sz(t) * rows.stride + sz(j)]) - zero);
        const double number = double(x[sz(t) * sz(layer.inputs()) + sz(j)]);
        expect(back, number, double(scale) * 0.502 + 1e-6 * std::fabs(number), layer, "rounding");
    }
}

struct Rows {
    Rows(const Linear& layer, const std::vector<float>& x, int T)
        : values(sz(T) * quantized_stride(layer.inputs())), scale(sz(T)), head_scale(sz(T)), zero(sz(T)) {
        rows = {values.data(), scale.data(), zero.data(), quantized_stride(layer.inputs()), head_scale.data()};
        layer.quantize(x.data(), T, rows);
    }
    std::vector<std::uint8_t> values;
    std::vector<float> scale, head_scale;
    std::vector<std::int32_t> zero;
    QuantizedRows rows{};
};

void check_tables(Isa isa, const checks::SparseCodes& w) {
    const LinearPtr layer =
        pack_dense_sparse_i8(isa, w.atoms.data(), w.atoms_scale.data(), w.indices.data(), w.values.data(),
                             w.values_scale.data(), w.bias.data(), w.m, w.n(), w.b, w.r, w.k,
                             {w.zero, w.order.empty() ? nullptr : w.order.data(), w.head, w.choose});
    if (std::string(layer->path()) != "dense_sparse_i8") return;  // this level decodes the factors to fp32
    const checks::TableReference reference(w);
    for (int T : {1, 2, 7, 23, 103}) {
        std::vector<float> x = normal(sz(T) * sz(w.n()));
        for (int t = 0; t < T; t++)
            if (t % 3) x[sz(t) * sz(w.n()) + sz(draw(0, w.n() - 1))] *= t % 3 == 1 ? 20.0f : -20.0f;
        const Rows rows(*layer, x, T);
        std::vector<float> y(sz(T) * sz(w.m));
        const Scratch scratch(*layer, T);
        layer->run_quantized(rows.rows, T, y.data(), {}, scratch.memory.get());
        for (int t = 0; t < T; t++) {
            const float scale = rows.scale[sz(t)], head_scale = rows.head_scale[sz(t)];
            const int zero = rows.zero[sz(t)] & 255, head_zero = rows.zero[sz(t)] >> 8 & 255;
            if (!reference.knows(zero)) expect(zero, w.zero, 0.0, *layer, "zero point");
            for (int i = 0; i < w.blocks; i++) {
                const bool head = reference.is_head(i);
                check_rounding(*layer, x, t, rows.rows, head ? head_scale : scale, head ? head_zero : zero, i * w.b,
                               (i + 1) * w.b);
            }
            const std::vector<double> expected =
                reference.run(rows.values.data() + sz(t) * rows.rows.stride, scale, rows.zero[sz(t)], head_scale);
            double largest = 1e-3;
            for (int i = 0; i < w.m; i++)  // of the terms, which may cancel
                largest = std::max(largest, std::fabs(expected[sz(i)]) + std::fabs(double(w.bias[sz(i)])));
            for (int i = 0; i < w.m; i++)
                expect(double(y[sz(t) * sz(w.m) + sz(i)]), expected[sz(i)], 1e-6 * largest, *layer, "the scalar model");
        }
    }
}

void check_sparse(Isa isa, int m, int b, int blocks, int r, int k) {
    const int n = b * blocks;
    std::vector<std::uint16_t> indices(sz(m) * sz(blocks) * sz(k));
    for (std::uint16_t& one : indices) one = std::uint16_t(draw(0, r - 1));
    const std::vector<float> atoms = normal(sz(n) * sz(r)), values = normal(indices.size()), bias = normal(sz(m));
    std::vector<double> weight(sz(m) * sz(n));
    for (int row = 0; row < m; row++)
        for (int i = 0; i < blocks; i++)
            for (int q = 0; q < k; q++)
                for (int c = 0; c < b; c++) {
                    const std::size_t at = (sz(row) * sz(blocks) + sz(i)) * sz(k) + sz(q);
                    weight[sz(row) * sz(n) + sz(i * b + c)] +=
                        double(values[at]) * double(atoms[(sz(i) * sz(r) + indices[at]) * sz(b) + sz(c)]);
                }
    // Two stages: sums of b, then of blocks * k products, whose sizes cancel in `weight`: a wide tolerance on the way.
    const LinearPtr layer =
        pack_dense_sparse_f32(isa, atoms.data(), indices.data(), values.data(), bias.data(), m, n, b, r, k);
    const std::vector<float> x = normal(sz(19) * sz(n));
    std::vector<float> y(19 * sz(m));
    const Scratch scratch(*layer, 19);
    layer->run(x.data(), 19, y.data(), {}, scratch.memory.get());
    for (int t = 0; t < 19; t++)
        for (int row = 0; row < m; row++) {
            double sum = double(bias[sz(row)]);
            for (int j = 0; j < n; j++) sum += weight[sz(row) * sz(n) + sz(j)] * double(x[sz(t) * sz(n) + sz(j)]);
            const double size = std::sqrt(double(n) * k) * 8.0;
            expect(double(y[sz(t) * sz(m) + sz(row)]), sum, std::ldexp(b + blocks * k + 4, -24) * size, *layer,
                   "float64");
        }
    // The same supports in int8; a table each where r > 48 (there a head), several blocks to a table below.
    checks::SparseCodes w{m, b, blocks, r, k, codes(atoms.size()), codes(values.size()), {}, {}, bias, indices, 128, 0, false, {}};
    w.values_scale = std::vector<float>(sz(m), 0.01f);
    for (bool scaled : {false, true})
        for (int kind = 0; kind < 3; kind++) {  // plain; choosing; in another order, with a head where it can be
            w.atoms_scale.assign(sz(blocks) * sz(r), 0.01f);
            if (scaled)
                for (float& one : w.atoms_scale) one *= float(draw(1, 100)) / 100.0f;
            w.zero = kind ? 100 : draw(1, 254);
            w.choose = kind > 0;
            w.head = 0;
            w.order.clear();
            if (kind == 2) {
                for (int i = 0; i < blocks; i++) w.order.push_back((i + 1) % blocks);
                if (r > 48) w.head = (blocks + 1) / 3;
            }
            check_tables(isa, w);
        }
}

// dense_sparse_i16: its error is at most a unit of y for every nonzero, and half a step of x. What a unit is worth follows from the norms
// of the rows (kernels/wasm/sparse.cpp). Inputs along a row reach the bound: a sum that wrapped around would be far off.
void check_sparse_i16(Isa isa, int m, int b, int blocks, int r, int k) {
    if (!runs_dense_sparse_i16(isa, m, b * blocks, b, r, k)) {
        if (isa == Isa::wasm) std::printf("dense_sparse_i16 should run m=%d b=%d B=%d r=%d k=%d\n", m, b, blocks, r, k), std::exit(1);
        return;
    }
    const int n = b * blocks;
    std::vector<std::uint16_t> indices(sz(m) * sz(blocks) * sz(k));
    for (std::uint16_t& one : indices) one = std::uint16_t(draw(0, r - 1));
    const std::vector<std::int8_t> atoms = codes(sz(n) * sz(r)), values = codes(indices.size());
    std::vector<float> atoms_scale(sz(blocks) * sz(r)), values_scale(sz(m)), bias = normal(sz(m));
    for (float& one : atoms_scale) one = 0.001f * float(draw(1, 100));
    for (float& one : values_scale) one = 0.001f * float(draw(1, 100));
    std::vector<double> weight(sz(m) * sz(n)), norm(sz(m)), size(sz(m));  // size: the norm without the row's scale
    double largest = 0.0;
    for (int row = 0; row < m; row++) {
        for (int i = 0; i < blocks; i++)
            for (int q = 0; q < k; q++)
                for (int c = 0; c < b; c++) {
                    const std::size_t at = (sz(row) * sz(blocks) + sz(i)) * sz(k) + sz(q), atom = sz(i) * sz(r) + indices[at];
                    weight[sz(row) * sz(n) + sz(i * b + c)] += double(values[at]) * double(values_scale[sz(row)]) *
                                                               double(atoms[atom * sz(b) + sz(c)]) * double(atoms_scale[atom]);
                }
        for (int j = 0; j < n; j++) norm[sz(row)] += weight[sz(row) * sz(n) + sz(j)] * weight[sz(row) * sz(n) + sz(j)];
        norm[sz(row)] = std::sqrt(norm[sz(row)]);
        size[sz(row)] = norm[sz(row)] / double(values_scale[sz(row)]);
        largest = std::max(largest, size[sz(row)]);
    }
    const LinearPtr layer = pack_dense_sparse_i16(
        isa, {atoms.data(), atoms_scale.data(), indices.data(), values.data(), values_scale.data()}, bias.data(), m, n, b, r, k);
    for (int T : {1, 4, 7, 8, 9, 16, 27}) {
        std::vector<float> x = normal(sz(T) * sz(n)), residual = normal(sz(T) * sz(m)), y(sz(T) * sz(m));
        for (int t = 0; t < T; t++) {
            if (t % 4 == 1) x[sz(t) * sz(n) + sz(draw(0, n - 1))] *= 100.0f;
            if (t % 4 != 2) continue;
            const int row = draw(0, m - 1);
            for (int j = 0; j < n; j++) x[sz(t) * sz(n) + sz(j)] = float(weight[sz(row) * sz(n) + sz(j)]);
        }
        const Scratch scratch(*layer, T);
        layer->run(x.data(), T, y.data(), {Activation::relu, T % 2 ? residual.data() : nullptr}, scratch.memory.get());
        for (int t = 0; t < T; t++) {
            double length = 0.0, most = 0.0;
            for (int j = 0; j < n; j++) {
                const double one = double(x[sz(t) * sz(n) + sz(j)]);
                length += one * one, most = std::max(most, std::fabs(one));
            }
            length = std::sqrt(length);
            for (int i = 0; i < m; i++) {
                double sum = double(bias[sz(i)]);
                for (int j = 0; j < n; j++) sum += weight[sz(i) * sz(n) + sz(j)] * double(x[sz(t) * sz(n) + sz(j)]);
                const double unit = std::max(size[sz(i)], largest / 4) * double(values_scale[sz(i)]) * length / (32760.0 - blocks * k);
                const double tolerance = unit * blocks * k + norm[sz(i)] * std::sqrt(double(n)) * most / 32767.0 + 1e-6;
                const double shown = std::max(0.0, sum) + (T % 2 ? double(residual[sz(t) * sz(m) + sz(i)]) : 0.0);
                expect(double(y[sz(t) * sz(m) + sz(i)]), shown, tolerance, *layer, "float64");
            }
        }
        // A text's vector must not depend on what stands beside it.
        std::vector<float> alone(sz(m));
        layer->run(x.data() + sz(T - 1) * sz(n), 1, alone.data(), {Activation::relu, T % 2 ? residual.data() + sz(T - 1) * sz(m) : nullptr},
                   scratch.memory.get());
        for (int i = 0; i < m; i++) expect(double(alone[sz(i)]), double(y[sz(T - 1) * sz(m) + sz(i)]), 0.0, *layer, "one token alone");
        if (T < 2) continue;
        const float bad[] = {NAN, INFINITY, -INFINITY};
        x[sz(draw(0, n - 1))] = bad[sz(draw(0, 2))];
        std::fill(x.begin() + n, x.begin() + 2 * n, 0.0f);
        layer->run(x.data(), T, y.data(), {}, scratch.memory.get());
        for (int i = 0; i < m; i++) {
            expect(std::isnan(y[sz(i)]) ? 1.0 : 0.0, 1.0, 0.0, *layer, "NaN");
            expect(double(y[sz(m + i)]), double(bias[sz(i)]), 0.0, *layer, "zeros");
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 3;
    std::string levels;
    for (int level = 0; level < kIsas; level++) {
        const Isa isa = static_cast<Isa>(level);
        if (!runs(isa)) continue;
        for (int round = 0; round < rounds; round++) {
            for (int m : {1, 3, 4, 7, 16, 17, 29, 70})
                for (int n : {1, 2, 5, 9, 13, 16, 33, 36, 70}) {  // every end of a vector of inputs
                    const std::vector<float> weight = normal(sz(m) * sz(n)), bias = normal(sz(m));
                    check_f32(*pack_dense_f32(isa, weight.data(), bias.data(), m, n),
                              std::vector<double>(weight.begin(), weight.end()), bias);
                    for (int T : {1, 2, 3, 5, 12}) check_dense_i8(isa, m, n, T, false);
                }
            const int sizes[][5] = {{1, 1, 1, 1, 1},   {17, 3, 2, 5, 2},    {65, 16, 3, 64, 4},  {33, 8, 5, 64, 3},
                                    {64, 16, 4, 128, 4}, {31, 16, 3, 96, 5},  {70, 4, 7, 16, 2},   {40, 8, 6, 32, 4},
                                    {16, 32, 3, 100, 9}, {100, 16, 12, 64, 4}, {130, 6, 5, 128, 1}, {49, 13, 4, 49, 6}};
            for (const auto& s : sizes) check_sparse(isa, s[0], s[1], s[2], s[3], s[4]);
            const int many[][5] = {{70, 16, 4, 8, 2},  {129, 24, 5, 13, 3}, {66, 6, 20, 1, 1},    {257, 48, 3, 64, 4},
                                   {301, 10, 9, 17, 1}, {96, 18, 7, 5, 5},  {384, 16, 24, 64, 4}, {65, 50, 2, 9, 7}};
            for (const auto& s : many) check_sparse_i16(isa, s[0], s[1], s[2], s[3], s[4]);
        }
        check_dense_i8(isa, 5, 66311, 3, true);  // as many inputs as packing takes: no sum may overflow
        levels += std::string(levels.empty() ? "" : " ") + isa_name(isa);
    }
    std::printf("check_linear: %lld numbers; levels: %s\n", compared, levels.c_str());
    return 0;
}

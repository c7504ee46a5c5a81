// The encoder's kernels beside the linear layers (ops.h), every level of this CPU against float64, within the tolerances of
// ops.h, on lengths about each vector's width. tests/runtime/test_ops.py measures the same from Python. Usage: check_ops
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cpu/features.h"
#include "encoder/ops/ops.h"

using namespace leanmatch;
using namespace leanmatch::encoder;

namespace {

std::mt19937 rng(13);
long long compared = 0;
std::string level_name;

std::vector<float> numbers(std::size_t count, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> out(count);
    for (float& one : out) one = normal(rng);
    return out;
}

void expect(float found, double expected, double tolerance, const char* what, std::size_t width) {
    compared++;
    if (std::fabs(double(found) - expected) <= tolerance) return;
    std::printf("%s at %s, width %zu: %.9g instead of %.9g (tolerance %.3g)\n", what, level_name.c_str(), width,
                double(found), expected, tolerance);
    std::exit(1);
}

double exact(Activation kind, double x) {
    switch (kind) {
        case Activation::none: return x;
        case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        case Activation::relu: return std::max(x, 0.0);
        case Activation::gelu_tanh: return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
        case Activation::tanh: return std::tanh(x);
        case Activation::silu: return x / (1.0 + std::exp(-x));
        case Activation::sigmoid: return 1.0 / (1.0 + std::exp(-x));
    }
    return x;
}

void check_activations(const Ops& ops, std::size_t width) {
    for (int kind = 0; kind <= int(Activation::sigmoid); ++kind) {
        std::vector<float> x = numbers(width, 4.0f), y;
        const float far[] = {0.0f, -0.0f, 6.0f, -6.0f, 60.0f, -60.0f, 1e4f, -1e4f, 1e-30f};
        for (std::size_t i = 0; i < width; i += 3) x[i] = far[i / 3 % 9];
        y = x;
        ops.activate(Activation(kind), width, y.data());
        for (std::size_t i = 0; i < width; ++i)
            expect(y[i], exact(Activation(kind), double(x[i])), 2e-6 * std::max(1.0, std::fabs(double(x[i]))), "activate", width);
    }
}

void check_rows(const Ops& ops, std::size_t width) {
    const std::size_t rows = 3;
    const std::vector<float> x = numbers(rows * width), factor = numbers(width), shift = numbers(width);
    std::vector<float> y(x.size()), total(width), most(width);
    ops.multiply_rows(x.data(), factor.data(), rows, width, y.data());
    for (std::size_t i = 0; i < x.size(); ++i)
        expect(y[i], double(x[i]) * double(factor[i % width]), std::fabs(double(x[i]) * 1e-6), "multiply_rows", width);
    ops.sum_rows(x.data(), rows, width, total.data());
    ops.max_rows(x.data(), rows, width, most.data());
    for (std::size_t i = 0; i < width; ++i) {
        const double a = double(x[i]), b = double(x[width + i]), c = double(x[2 * width + i]);
        expect(total[i], a + b + c, 1e-6, "sum_rows", width);
        expect(most[i], std::max(a, std::max(b, c)), 0.0, "max_rows", width);
    }
    y = x;
    ops.add(x.data() + width, width, y.data());
    ops.axpy(0.37f, x.data() + 2 * width, width, y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double sum = double(x[i]) + double(x[(width + i) % x.size()]) + double(0.37f) * double(x[(2 * width + i) % x.size()]);
        expect(y[i], i < width ? sum : double(x[i]), i < width ? 2e-6 : 0.0, "add and axpy", width);
    }
    ops.layer_norm(x.data(), factor.data(), shift.data(), 1e-5f, rows, width, y.data());
    for (std::size_t row = 0; row < rows; ++row) {
        double mean = 0.0, variance = 0.0;
        for (std::size_t i = 0; i < width; ++i) mean += double(x[row * width + i]) / double(width);
        for (std::size_t i = 0; i < width; ++i) variance += std::pow(double(x[row * width + i]) - mean, 2) / double(width);
        // The smaller the variance, the more a rounding error of the mean counts; 1 / sqrt(eps) at most.
        const double scale = 1.0 / std::sqrt(variance + 1e-5), tolerance = 2e-6 * (1.0 + scale) * std::sqrt(double(width) + 8);
        for (std::size_t i = 0; i < width; ++i)
            expect(y[row * width + i], (double(x[row * width + i]) - mean) * scale * double(factor[i]) + double(shift[i]),
                   tolerance * (1.0 + std::fabs(double(factor[i]))), "layer_norm", width);
    }
    ops.rms_norm(x.data(), factor.data(), 1e-5f, rows, width, y.data());
    for (std::size_t row = 0; row < rows; ++row) {
        double mean = 0.0;
        for (std::size_t i = 0; i < width; ++i) mean += std::pow(double(x[row * width + i]), 2) / double(width);
        for (std::size_t i = 0; i < width; ++i) {
            const double exact = double(x[row * width + i]) / std::sqrt(mean + 1e-5) * double(factor[i]);
            expect(y[row * width + i], exact, 1e-6 * (1.0 + std::fabs(exact)), "rms_norm", width);
        }
    }
    y.assign(x.begin(), x.begin() + std::ptrdiff_t(width));
    double squares = 0.0;
    for (float one : y) squares += double(one) * double(one);
    ops.normalize(width, 1e-12f, y.data());
    for (std::size_t i = 0; i < width; ++i) expect(y[i], double(x[i]) / std::sqrt(squares), 1e-6, "normalize", width);
}

void check_gates(const Ops& ops, std::size_t width) {
    const std::size_t rows = 3;
    for (int kind = 0; kind <= int(Activation::sigmoid); ++kind) {
        const std::vector<float> x = numbers(2 * rows * width, 2.0f);
        std::vector<float> y = x;
        ops.gate(Activation(kind), rows, width, y.data());
        for (std::size_t i = 0; i < rows * width; ++i) {
            const double a = double(x[i / width * 2 * width + i % width]), b = double(x[(i / width * 2 + 1) * width + i % width]);
            expect(y[i], exact(Activation(kind), a) * b, 3e-6 * std::max(1.0, std::fabs(a)) * (1.0 + std::fabs(b)), "gate", width);
        }
        for (std::size_t i = rows * width; kind == 0 && i < y.size(); ++i) expect(y[i], double(x[i]), 0.0, "behind gate", width);
    }
    const std::size_t heads = 3;
    const std::vector<float> turn = numbers(2 * width), x = numbers(heads * 2 * width + 1);
    std::vector<float> y = x;
    ops.rotate(turn.data(), heads, width, y.data());
    for (std::size_t head = 0; head < heads; ++head)
        for (std::size_t i = 0; i < width; ++i) {
            const std::size_t at = head * 2 * width + i;
            const double c = double(turn[i]), s = double(turn[width + i]), a = double(x[at]), b = double(x[at + width]);
            const double tolerance = 3e-7 * (std::fabs(a) + std::fabs(b)) * (std::fabs(c) + std::fabs(s));
            expect(y[at], a * c - b * s, tolerance, "rotate", width);
            expect(y[at + width], b * c + a * s, tolerance, "rotate", width);
        }
    expect(y.back(), double(x.back()), 0.0, "behind rotate", width);
}

void check_codes(const Ops& ops, std::size_t width) {
    std::vector<std::int8_t> q(width);
    for (std::int8_t& one : q) one = static_cast<std::int8_t>(int(rng() % 256) - 128);
    std::vector<float> y(width);
    ops.dequantize(q.data(), 0.25f, width, y.data());
    for (std::size_t i = 0; i < width; ++i) expect(y[i], 0.25 * q[i], 0.0, "dequantize", width);
    const std::size_t blocks = 2, atoms_per_block = 5, nonzeros = 3;
    const std::vector<float> atoms = numbers(blocks * atoms_per_block * width), code_scale = {0.5f, 0.25f};
    std::vector<std::uint16_t> indices(2 * blocks * nonzeros);
    std::vector<std::int8_t> codes(indices.size());
    for (std::uint16_t& one : indices) one = std::uint16_t(rng() % atoms_per_block);
    for (std::int8_t& one : codes) one = static_cast<std::int8_t>(int(rng() % 255) - 127);
    std::vector<float> row(blocks * width);
    ops.decode_row({atoms.data(), indices.data(), codes.data(), code_scale.data(), nullptr, blocks, atoms_per_block, width, nonzeros},
                   1, row.data());
    for (std::size_t block = 0; block < blocks; ++block)
        for (std::size_t i = 0; i < width; ++i) {
            double sum = 0.0;
            for (std::size_t j = 0; j < nonzeros; ++j) {
                const std::size_t at = (blocks + block) * nonzeros + j;
                sum += 0.25 * codes[at] * double(atoms[(block * atoms_per_block + indices[at]) * width + i]);
            }
            expect(row[block * width + i], sum, 1e-4, "decode_row", width);
        }
}

void check_attention(const Ops& ops, std::size_t length, std::size_t width, std::size_t window) {
    const std::size_t stride = 3 * width + 1, out_stride = width + 2, from = length > 4 ? 1 : 0;
    const std::vector<float> qkv = numbers(length * stride), bias = numbers(2 * length - 1);
    std::vector<float> out(length * out_stride, 7.0f), scratch(attention_scratch(length, width));
    const float scale = 1.0f / std::sqrt(float(width));
    for (bool biased : {false, true}) {
        ops.attention({qkv.data(), qkv.data() + width, qkv.data() + 2 * width, out.data(), biased ? bias.data() + length - 1 : nullptr,
                       stride, stride, out_stride, length, width, from, length, scale, scratch.data(), window});
        std::vector<float> alone(out.size()), room(scratch.size());  // a query has the same bits whoever stands beside it
        for (std::size_t q = from; q < length; ++q) {
            ops.attention({qkv.data(), qkv.data() + width, qkv.data() + 2 * width, alone.data(), biased ? bias.data() + length - 1 : nullptr,
                           stride, stride, out_stride, length, width, q, q + 1, scale, room.data(), window});
            for (std::size_t d = 0; d < width; ++d)
                expect(alone[q * out_stride + d], double(out[q * out_stride + d]), 0.0, "attention alone", width);
        }
        for (std::size_t q = 0; q < length; ++q) {
            std::vector<double> weight(length);
            double total = 0.0;
            for (std::size_t k = 0; k < length; ++k) {
                if ((k > q ? k - q : q - k) > window) continue;
                double score = biased ? double(bias[length - 1 + k - q]) : 0.0;
                for (std::size_t d = 0; d < width; ++d)
                    score += double(qkv[q * stride + d]) * double(qkv[k * stride + width + d]) * double(scale);
                total += weight[k] = std::exp(score);
            }
            for (std::size_t d = 0; d < out_stride; ++d) {
                double sum = 0.0;
                for (std::size_t k = 0; k < length && d < width; ++k)
                    sum += weight[k] / total * double(qkv[k * stride + 2 * width + d]);
                const bool written = q >= from && d < width;  // nothing else may be touched
                expect(out[q * out_stride + d], written ? sum : 7.0, written ? 2e-5 : 0.0, "attention", width);
            }
        }
    }
}

}  // namespace

int main() {
    const Features features = cpu_features();
    std::string levels_run;
    for (const Level& level : levels()) {
        const bool runs = std::all_of(level.needs.begin(), level.needs.end(), [&](const std::string& need) {
            return std::find(features.begin(), features.end(), std::make_pair(need, true)) != features.end();
        });
        const Ops* ops = ops_of(level.name.c_str());
        if (!ops) return std::printf("level %s has no kernels\n", level.name.c_str()), 1;
        if (!runs) continue;
        level_name = level.name;
        for (std::size_t width = 1; width <= 37; ++width) {
            check_activations(*ops, width);
            check_rows(*ops, width);
            check_codes(*ops, width);
            check_gates(*ops, width);
        }
        check_rows(*ops, 384);
        for (std::size_t length : {1, 2, 3, 4, 5, 7, 16, 17, 33, 70})
            for (std::size_t width : {1, 3, 4, 8, 13, 32, 64})
                for (std::size_t window : {std::size_t(-1), std::size_t(0), std::size_t(1), std::size_t(5), std::size_t(20)})
                    check_attention(*ops, length, width, window);
        levels_run += (levels_run.empty() ? "" : " ") + level.name;
    }
    std::printf("check_ops: %lld numbers; levels: %s\n", compared, levels_run.c_str());
    return 0;
}

// dense_sparse_i8 as linear.h describes it, one number at a time: what vbmi.cpp and neon_tables.cpp must give, integer for
// integer. Only for weights whose blocks have a table each (then the head is not rounded up to whole tables); others
// must have no head.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "linear/kernels.h"
#include "linear/linear.h"

namespace leanmatch {
namespace checks {

struct SparseCodes {  // arguments of pack_dense_sparse_i8
    int m, b, blocks, r, k;
    std::vector<std::int8_t> atoms, values;
    std::vector<float> atoms_scale, values_scale, bias;
    std::vector<std::uint16_t> indices;
    int zero = 128, head = 0;
    bool choose = false;
    std::vector<std::int32_t> order;
    int n() const { return b * blocks; }
};

class TableReference {
public:
    explicit TableReference(const SparseCodes& codes) : w_(codes) {
        zeros_ = {w_.zero};
        if (w_.choose && w_.zero >= 64)
            for (int step : {-80, -40, 40, 80}) zeros_.push_back(std::min(254, std::max(1, w_.zero + step)));
        int most = 0;
        for (std::size_t a = 0; a < w_.atoms_scale.size(); a++) {
            int sum = 0;
            for (int c = 0; c < w_.b; c++) sum += std::abs(int(w_.atoms[a * std::size_t(w_.b) + std::size_t(c)]));
            most = std::max(most, sum);
        }
        const long long reach = std::max(*std::max_element(zeros_.begin(), zeros_.end()),
                                         255 - *std::min_element(zeros_.begin(), zeros_.end()));
        while (((reach * most + (1LL << shift_) / 2) >> shift_) > 32766) shift_++;
        largest_ = *std::max_element(w_.atoms_scale.begin(), w_.atoms_scale.end());
        scaled_ = *std::min_element(w_.atoms_scale.begin(), w_.atoms_scale.end()) != largest_;
        unit_ = largest_ * float(1 << shift_) * (scaled_ ? 32768.0f / 32767.0f : 1.0f);
        head_ = std::min(w_.head, w_.blocks - 1);
        limit_ = head_ ? float(1 << 30) / (32385.0f * 4.0f * float(head_) * float((w_.k + 3) / 4)) : 1.0f;
    }

    bool is_head(int block) const {  // by its place in memory
        for (int p = 0; p < head_; p++)
            if (w_.order[std::size_t(p)] == block) return true;
        return false;
    }
    bool knows(int zero) const { return std::find(zeros_.begin(), zeros_.end(), zero) != zeros_.end(); }

    // y of one row of quantized inputs, before any activation; (m,) in float64.
    std::vector<double> run(const std::uint8_t* u, float scale, std::int32_t zero, float head_scale) const {
        std::vector<int> wide(std::size_t(w_.blocks) * std::size_t(w_.r));
        int most[2] = {0, 0}, least[2] = {0, 0};
        for (int i = 0; i < w_.blocks; i++)
            for (int a = 0; a < w_.r; a++) {
                const int part = is_head(i), z = stage1(i, a, u, part ? zero >> 8 & 255 : zero & 255);
                wide[std::size_t(i * w_.r + a)] = z;
                most[part] = std::max(most[part], z), least[part] = std::min(least[part], z);
            }
        Rounding rest = rounding(most[0], least[0]), head = rounding(most[1], least[1]);
        float unit = scale * unit_ * rest.back, ratio = 0.0f;
        if (head_) {
            const float head_unit = head_scale * unit_ * head.back, lowest = head_unit / limit_;
            if (unit < lowest) {
                rest.factor = int(float(rest.factor) * (unit / lowest));
                unit = lowest;
            }
            ratio = unit > 0.0f ? head_unit / unit : 0.0f;
        }
        std::vector<double> y(std::size_t(w_.m));
        for (int row = 0; row < w_.m; row++) {
            long long sums[2] = {0, 0};
            for (int i = 0; i < w_.blocks; i++)
                for (int q = 0; q < w_.k; q++) {
                    const std::size_t at = (std::size_t(row) * std::size_t(w_.blocks) + std::size_t(i)) * std::size_t(w_.k) +
                                           std::size_t(q);
                    const int part = is_head(i);
                    const Rounding& by = part ? head : rest;
                    const int z16 = wide[std::size_t(i * w_.r + w_.indices[at])];
                    const int z = std::min(255, std::max(0, ((z16 * by.factor + 0x4000) >> 15) + by.zero));
                    sums[part] += (long long)(w_.values[at]) * (z - by.zero);
                }
            const double moved = head_ ? double(std::nearbyint(float(sums[1]) * ratio)) : 0.0;
            y[std::size_t(row)] = (moved + double(sums[0])) * double(w_.values_scale[std::size_t(row)]) * double(unit) +
                                  double(w_.bias[std::size_t(row)]);
        }
        return y;
    }

private:
    struct Rounding {
        int zero, factor;
        float back;
    };

    int stage1(int block, int atom, const std::uint8_t* u, int zero) const {
        const std::size_t a = std::size_t(block * w_.r + atom);
        int sum = (1 << shift_) / 2;
        for (int c = 0; c < w_.b; c++)
            sum += int(w_.atoms[a * std::size_t(w_.b) + std::size_t(c)]) * (int(u[block * w_.b + c]) - zero);
        int z = std::min(32767, std::max(-32768, sum >> shift_));
        if (scaled_) z = (z * int(w_.atoms_scale[a] / largest_ * 32767.0f + 0.5f) + 0x4000) >> 15;
        return z;
    }

    Rounding rounding(int most, int least) const {
        Rounding best{0, 0, 0.0f};
        float widest = 0.0f;
        for (int zero : linear::kTableZeros) {
            const float up = float(255 - zero) / float(std::max(most, 1)), down = float(zero) / float(std::max(-least, 1));
            if (std::min(up, down) > widest) widest = std::min(up, down), best.zero = zero;
            if (!w_.choose) break;
        }
        best.factor = widest >= 1.0f ? 32767 : int(widest * 32768.0f);
        best.back = widest >= 1.0f ? 1.0f : 32768.0f / float(best.factor);
        return best;
    }

    SparseCodes w_;
    std::vector<int> zeros_;
    int shift_ = 0, head_ = 0;
    float largest_ = 0.0f, unit_ = 0.0f, limit_ = 1.0f;
    bool scaled_ = false;
};

}  // namespace checks
}  // namespace leanmatch

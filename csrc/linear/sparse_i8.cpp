// Packing int8 dense-sparse factors for vbmi.cpp.
#include <algorithm>
#include <cstdlib>

#include "integer.h"
#include "sparse.h"

namespace leanmatch {
namespace linear {

#if defined(LEANMATCH_X86_KERNELS)

namespace {

// How many blocks share a table. Costs of a lookup and its multiply in registers, measured on Zen 4 (nanoseconds).
struct Fold {
    int blocks, stride, slots, quads;  // stride: slots of one block
};

Fold best_fold(int r, int k, int blocks) {
    const int stride = (r + 15) / 16 * 16;
    Fold best{};
    double least = 0.0;
    for (int fold = 1; fold <= 8 && fold * stride <= 128 && fold <= blocks; fold++) {
        const Fold here{fold, stride, fold * stride <= 64 ? 64 : 128, (fold * k + 3) / 4};
        const double cost = here.quads * (here.slots == 64 ? 0.37 : 0.53) / fold;
        if (best.blocks == 0 || cost < least || (cost <= least && here.slots == best.slots)) {
            best = here;  // at the same cost more blocks in a table: less padding in stage 1
            least = cost;
        }
    }
    return best;
}

std::size_t sz(int i) { return static_cast<std::size_t>(i); }

class TableLinear final : public IntegerLinear {
public:
    TableLinear(const std::int8_t* atoms_q, const float* atoms_scale, const std::uint16_t* indices,
                const std::int8_t* values_q, const float* values_scale, const float* bias, int m, int n, int b,
                int r, int k)
        : IntegerLinear("dense_sparse_i8", Isa::avx512_vbmi_vnni, m, n),
          blocks_(n / b),
          fold_(best_fold(r, k, blocks_)),
          tables_((blocks_ + fold_.blocks - 1) / fold_.blocks),
          units_(tables_ * fold_.slots / 64),
          steps_((b + 3) / 4),
          rows_((m + 15) / 16 * 16),
          atoms_(sz(units_) * sz(steps_) * 256),
          offset_(sz(units_) * 4),
          atom_sums_(sz(units_) * 64),
          atom_scale_(sz(units_) * 64),
          codes_(sz(rows_) * sz(tables_) * sz(fold_.quads) * 8),
          start_(sz(rows_)),
          scale_(sz(rows_)),
          bias_(sz(rows_)) {
        std::copy(values_scale, values_scale + m, scale_.data());
        if (bias) std::copy(bias, bias + m, bias_.data());
        pack_atoms(atoms_q, atoms_scale, b, r);
        pack_codes(indices, values_q, k);
        weights_.m = m;
        weights_.n = n;
        weights_.tables = tables_;
        weights_.slots = fold_.slots;
        weights_.quads = fold_.quads;
        weights_.steps = steps_;
        weights_.shared = fold_.blocks == 1 || fold_.stride == 64;
        weights_.atoms = atoms_.data();
        weights_.offset = offset_.data();
        weights_.atom_sums = atom_sums_.data();
        weights_.atom_scale = atom_scale_.data();
        weights_.codes = codes_.data();
        weights_.start = start_.data();
        weights_.scale = scale_.data();
    }

    std::size_t bytes() const override {
        return atoms_.bytes() + offset_.bytes() + atom_sums_.bytes() + atom_scale_.bytes() + codes_.bytes() +
               start_.bytes() + scale_.bytes() + bias_.bytes();
    }

protected:
    std::size_t kernel_scratch(int T) const override { return dense_sparse_i8_scratch(weights_, T); }
    void apply(const Quantized& x, int T, float* y, const Epilogue& epilogue, int t,
               void* scratch) const override {
        dense_sparse_i8_vbmi(weights_, x, T, y, tail_at(bias_.data(), epilogue, t, m_), scratch);
    }

private:
    // Block and atom that slot `slot` of table `table` holds; false where it holds none.
    bool at_slot(int table, int slot, int r, int& block, int& atom) const {
        block = table * fold_.blocks + slot / fold_.stride;
        atom = slot % fold_.stride;
        return slot / fold_.stride < fold_.blocks && block < blocks_ && atom < r;
    }

    void pack_atoms(const std::int8_t* q, const float* scale, int b, int r) {
        const std::size_t count = sz(blocks_) * sz(r);
        const float largest = *std::max_element(scale, scale + count);
        int most = 0;  // sum of an atom's absolute codes
        for (std::size_t a = 0; a < count; a++) {
            int sum = 0;
            for (int c = 0; c < b; c++) sum += std::abs(int(q[a * sz(b) + sz(c)]));
            most = std::max(most, sum);
        }
        int shift = 0;
        while (((255LL * most + (1LL << shift) / 2) >> shift) > 32766 || ((256LL * most) >> shift) > 32767)
            shift++;
        weights_.shift = shift;
        weights_.atom_unit = largest * float(1 << shift) * (32768.0f / 32767.0f);
        for (int unit = 0; unit < units_; unit++) {
            const int per_table = fold_.slots / 64, table = unit / per_table, base = unit % per_table * 64;
            for (int j = 0; j < 4; j++) {
                int block, atom;
                const bool any = at_slot(table, base + 16 * j, r, block, atom);
                offset_[sz(unit) * 4 + sz(j)] = any ? block * b : 0;
            }
            for (int g = 0; g < 4; g++)
                for (int lane = 0; lane < 16; lane++) {
                    const int j = lane / 4, e = lane % 4, slot = base + 16 * j + 4 * g + e;
                    int block, atom;
                    if (!at_slot(table, slot, r, block, atom)) continue;
                    const std::size_t a = sz(block) * sz(r) + sz(atom);
                    int sum = 0;
                    for (int c = 0; c < b; c++) {
                        const std::int8_t code = q[a * sz(b) + sz(c)];
                        sum += code;
                        atoms_[(((sz(unit) * sz(steps_) + sz(c / 4)) * 4 + sz(g)) * 16 + sz(lane)) * 4 +
                               sz(c % 4)] = code;
                    }
                    // packs(sum 0, sum 1): four lanes of each in turn; then the same of sums 2 and 3.
                    const std::size_t packed = sz(g / 2) * 32 + sz(j) * 8 + sz(g % 2) * 4 + sz(e);
                    atom_sums_[sz(unit) * 64 + packed] = std::int16_t(sum * 256 / (1 << shift));
                    atom_scale_[sz(unit) * 64 + packed] =
                        largest > 0.0f ? std::int16_t(scale[a] / largest * 32767.0f + 0.5f) : std::int16_t(0);
                }
        }
    }

    void pack_codes(const std::uint16_t* indices, const std::int8_t* values, int k) {
        const int groups = rows_ / 16, panel = 4;
        std::size_t at = 0;
        for (int first = 0; first < groups; first += panel)
            for (int table = 0; table < tables_; table++)
                for (int quad = 0; quad < fold_.quads; quad++)
                    for (int group = first; group < std::min(groups, first + panel); group++, at += 128)
                        for (int e = 0; e < 64; e++) {
                            const int row = group * 16 + e / 4, term = quad * 4 + e % 4;
                            const int h = term / k, block = table * fold_.blocks + h;
                            if (row >= m_ || h >= fold_.blocks || block >= blocks_) continue;
                            const std::size_t from = (sz(row) * sz(blocks_) + sz(block)) * sz(k) + sz(term % k);
                            codes_[at + sz(e)] = std::uint8_t(h * fold_.stride + indices[from]);
                            codes_[at + 64 + sz(e)] = static_cast<std::uint8_t>(values[from]);
                            start_[sz(row)] -= 128 * values[from];
                        }
    }

    int blocks_;
    Fold fold_;
    int tables_, units_, steps_, rows_;
    Buffer<std::int8_t> atoms_;
    Buffer<std::int32_t> offset_;
    Buffer<std::int16_t> atom_sums_, atom_scale_;
    Buffer<std::uint8_t> codes_;
    Buffer<std::int32_t> start_;
    Buffer<float> scale_, bias_;
    SparseI8 weights_{};
};

}  // namespace

LinearPtr make_table_linear(const std::int8_t* atoms_q, const float* atoms_scale, const std::uint16_t* indices,
                            const std::int8_t* values_q, const float* values_scale, const float* bias, int m,
                            int n, int b, int r, int k) {
    return std::make_unique<TableLinear>(atoms_q, atoms_scale, indices, values_q, values_scale, bias, m, n, b, r,
                                         k);
}

#endif

}  // namespace linear
}  // namespace leanmatch

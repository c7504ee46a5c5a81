// Packing int8 dense-sparse factors for vbmi.cpp and neon_tables.cpp.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "integer.h"
#include "sparse.h"

namespace leanmatch {
namespace linear {

#if defined(LEANMATCH_X86_KERNELS) || defined(LEANMATCH_NEON_KERNELS)

namespace {

// What the packing of one level depends on, and its kernels. Costs are those of a lookup and its multiply in registers, of
// 64 and of 128 slots: measured on Zen 4 (nanoseconds), counted on NEON (instructions; no machine has measured them).
struct TableLevel {
    Isa isa;
    int center;
    double cost64, cost128;
    decltype(&quantize_tables_vbmi) quantize;
    decltype(&dense_sparse_i8_scratch_vbmi) scratch;
    decltype(&dense_sparse_i8_vbmi) run;
};
#if defined(LEANMATCH_X86_KERNELS)
constexpr TableLevel kLevel{Isa::avx512_vbmi_vnni, 0, 0.37, 0.53, quantize_tables_vbmi, dense_sparse_i8_scratch_vbmi,
                            dense_sparse_i8_vbmi};
#else
constexpr TableLevel kLevel{Isa::neon_dotprod, 128, 2.0, 4.0, quantize_tables_neon_dotprod,
                            dense_sparse_i8_scratch_neon_dotprod, dense_sparse_i8_neon_dotprod};
#endif

// How many blocks share a table.
struct Fold {
    int blocks, stride, slots, quads;  // stride: slots of one block
};

Fold best_fold(int r, int k, int blocks) {
    const int stride = (r + 15) / 16 * 16;
    Fold best{};
    double least = 0.0;
    for (int fold = 1; fold <= 8 && fold * stride <= 128 && fold <= blocks; fold++) {
        const Fold here{fold, stride, fold * stride <= 64 ? 64 : 128, (fold * k + 3) / 4};
        const double cost = here.quads * (here.slots == 64 ? kLevel.cost64 : kLevel.cost128) / fold;
        if (best.blocks == 0 || cost < least || (cost <= least && here.slots == best.slots)) {
            best = here;  // at the same cost more blocks in a table: less padding in stage 1
            least = cost;
        }
    }
    return best;
}

std::size_t sz(int i) { return static_cast<std::size_t>(i); }

// The zero points of the inputs that a token may choose from: about the given one.
std::array<int, kZeros> table_zeros(int zero) {
    return {zero, std::max(zero - 80, 1), std::max(zero - 40, 1), std::min(zero + 40, 254), std::min(zero + 80, 254)};
}

constexpr int kLeastChoice = 64;  // below it inputs lie on one side of zero

class TableLinear final : public IntegerLinear {
public:
    TableLinear(const std::int8_t* atoms_q, const float* atoms_scale, const std::uint16_t* indices,
                const std::int8_t* values_q, const float* values_scale, const float* bias, int m, int n, int b,
                int r, int k, const TableInputs& inputs)
        : IntegerLinear("dense_sparse_i8", kLevel.isa, m, n),
          blocks_(n / b),
          fold_(best_fold(r, k, blocks_)),
          tables_((blocks_ + fold_.blocks - 1) / fold_.blocks),
          units_(tables_ * fold_.slots / 64),
          steps_((b + 3) / 4),
          rows_((m + 15) / 16 * 16),
          atoms_(sz(units_) * sz(steps_) * 256),
          offset_(sz(units_) * 4),
          zero_count_(inputs.choose && inputs.zero >= kLeastChoice ? kZeros : 1),
          first_(sz(units_) * sz(zero_count_) * 64),
          atom_scale_(sz(units_) * 64),
          codes_(sz(rows_) * sz(tables_) * sz(fold_.quads) * 8),
          start_(sz(rows_)),
          head_start_(sz(rows_)),
          column_(sz(blocks_)),
          run_ends_(sz(blocks_)),
          run_of_head_(sz(blocks_)),
          order_(sz(blocks_)),
          scale_(sz(rows_)),
          bias_(sz(rows_)) {
        std::copy(values_scale, values_scale + m, scale_.data());
        if (bias) std::copy(bias, bias + m, bias_.data());
        int head = (inputs.head + fold_.blocks - 1) / fold_.blocks;
        if (head >= tables_) head = tables_ - 1;
        for (int i = 0; i < blocks_; i++) {
            order_[sz(i)] = inputs.order ? inputs.order[i] : i;
            column_[sz(i)] = order_[sz(i)] * b;
        }
        weights_.choose = inputs.choose;
        weights_.zero_count = zero_count_;
        choose_zeros(inputs.zero);
        weights_.head = head;
        find_runs(head * fold_.blocks, b);
        // Sums of the head stay below 2^30 in the others' unit.
        weights_.limit = head ? float(1 << 30) / (32385.0f * 4.0f * float(head) * float(fold_.quads)) : 1.0f;
        pack_atoms(atoms_q, atoms_scale, b, r);
        pack_codes(indices, values_q, k);
        for (Buffer<std::int32_t>* sums : {&start_, &head_start_})
            for (std::size_t i = 0; i < sz(rows_) && kLevel.center == 0; i++) (*sums)[i] = parted((*sums)[i]);
        weights_.m = m;
        weights_.n = n;
        weights_.tables = tables_;
        weights_.slots = fold_.slots;
        weights_.quads = fold_.quads;
        weights_.steps = steps_;
        weights_.unit_blocks = fold_.blocks == 1 || fold_.stride == 64 ? 1 : fold_.stride == 32 ? 2 : 4;
        weights_.atoms = atoms_.data();
        weights_.offset = offset_.data();
        weights_.center = kLevel.center;
        weights_.first = first_.data();
        weights_.run_ends = run_ends_.data();
        weights_.run_of_head = run_of_head_.data();
        weights_.head_start = head_start_.data();
        weights_.atom_scale = atom_scale_.data();
        weights_.codes = codes_.data();
        weights_.start = start_.data();
        weights_.scale = scale_.data();
    }

    std::size_t bytes() const override {
        return atoms_.bytes() + offset_.bytes() + first_.bytes() + atom_scale_.bytes() + codes_.bytes() +
               start_.bytes() + head_start_.bytes() + column_.bytes() + run_ends_.bytes() + run_of_head_.bytes() + order_.bytes() + scale_.bytes() + bias_.bytes();
    }

    bool own_rows() const override { return true; }
    void quantize(const float* x, int T, const QuantizedRows& out) const override {
        kLevel.quantize(weights_, x, T, out.values, out.scale, out.zero, out.head_scale, out.stride);
    }

protected:
    std::size_t kernel_scratch(int T) const override { return kLevel.scratch(weights_, T); }
    void apply(const Quantized& x, int T, float* y, const Epilogue& epilogue, int t,
               void* scratch) const override {
        kLevel.run(weights_, x, T, y, tail_at(bias_.data(), epilogue, t, m_), scratch);
    }

private:
    // Block (by its place in the order) and atom that slot `slot` of table `table` holds; false where it holds none.
    bool at_slot(int table, int slot, int r, int& block, int& atom) const {
        block = table * fold_.blocks + slot / fold_.stride;
        atom = slot % fold_.stride;
        return slot / fold_.stride < fold_.blocks && block < blocks_ && atom < r;
    }

    // sum = low + kStartUnit * high, both int16: it is at most 127 * kMostTableTerms in size.
    static std::int32_t parted(std::int32_t sum) {
        const std::int32_t high = sum / kStartUnit, low = sum - high * kStartUnit;
        return std::int32_t(std::uint32_t(high) << 16 | (std::uint32_t(low) & 0xffff));
    }

    void find_runs(int head_blocks, int b) {
        std::vector<bool> is_head(sz(blocks_), false);
        for (int i = 0; i < head_blocks; i++) is_head[sz(order_[sz(i)])] = true;
        int runs = 0;
        for (int i = 0; i < blocks_; i++) {
            if (i == 0 || is_head[sz(i)] != is_head[sz(i - 1)]) runs++;
            run_ends_[sz(runs - 1)] = (i + 1) * b;
            run_of_head_[sz(runs - 1)] = is_head[sz(i)];
        }
        weights_.runs = runs;
    }

    void choose_zeros(int zero) {
        const std::array<int, kZeros> zeros = table_zeros(zero);
        std::fill(weights_.start_of, weights_.start_of + 256, 0);
        for (int i = weights_.zero_count - 1; i >= 0; i--) {
            weights_.zeros[i] = zeros[sz(i)];
            weights_.per_up[i] = 1.0f / float(255 - zeros[sz(i)]);
            weights_.per_down[i] = 1.0f / float(zeros[sz(i)]);
            weights_.start_of[zeros[sz(i)]] = i * 64;
        }
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
        const auto ends = std::minmax_element(weights_.zeros, weights_.zeros + weights_.zero_count);
        const long long reach = std::max(*ends.second, 255 - *ends.first);
        int shift = 0;
        while (((reach * most + (1LL << shift) / 2) >> shift) > 32766) shift++;
        weights_.shift = shift;
        weights_.scaled = *std::min_element(scale, scale + count) != largest;
        weights_.atom_unit = largest * float(1 << shift) * (weights_.scaled ? 32768.0f / 32767.0f : 1.0f);
        for (int unit = 0; unit < units_; unit++) {
            const int per_table = fold_.slots / 64, table = unit / per_table, base = unit % per_table * 64;
            for (int j = 0; j < 4; j++) {
                int block, atom;
                const bool any = at_slot(table, base + 16 * j, r, block, atom);
                offset_[sz(unit) * 4 + sz(j)] = any ? column_[sz(block)] : 0;
            }
            for (int g = 0; g < 4; g++)
                for (int lane = 0; lane < 16; lane++) {
                    const int j = lane / 4, e = lane % 4, slot = base + 16 * j + 4 * g + e;
                    int block, atom;
                    if (!at_slot(table, slot, r, block, atom)) continue;
                    const std::size_t a = sz(order_[sz(block)]) * sz(r) + sz(atom);
                    int sum = 0;
                    for (int c = 0; c < b; c++) {
                        const std::int8_t code = q[a * sz(b) + sz(c)];
                        sum += code;
                        atoms_[(((sz(unit) * sz(steps_) + sz(c / 4)) * 4 + sz(g)) * 16 + sz(lane)) * 4 +
                               sz(c % 4)] = code;
                    }
                    // packs(sum 0, sum 1): four lanes of each in turn; then the same of sums 2 and 3.
                    const std::size_t packed = sz(g / 2) * 32 + sz(j) * 8 + sz(g % 2) * 4 + sz(e);
                    for (int i = 0; i < weights_.zero_count; i++)
                        first_[((sz(unit) * sz(zero_count_) + sz(i)) * 4 + sz(g)) * 16 + sz(lane)] =
                            (1 << shift) / 2 - (weights_.zeros[i] - kLevel.center) * sum;
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
                            const std::size_t from =
                                (sz(row) * sz(blocks_) + sz(order_[sz(block)])) * sz(k) + sz(term % k);
                            codes_[at + sz(e)] = std::uint8_t(h * fold_.stride + indices[from]);
                            codes_[at + 64 + sz(e)] = static_cast<std::uint8_t>(values[from]);
                            (table < weights_.head ? head_start_ : start_)[sz(row)] -= values[from];
                        }
    }

    int blocks_;
    Fold fold_;
    int tables_, units_, steps_, rows_;
    Buffer<std::int8_t> atoms_;
    Buffer<std::int32_t> offset_;
    int zero_count_;
    Buffer<std::int32_t> first_;
    Buffer<std::int16_t> atom_scale_;
    Buffer<std::uint8_t> codes_;
    Buffer<std::int32_t> start_, head_start_, column_, run_ends_, run_of_head_, order_;
    Buffer<float> scale_, bias_;
    SparseI8 weights_{};
};

}  // namespace

LinearPtr make_table_linear(const std::int8_t* atoms_q, const float* atoms_scale, const std::uint16_t* indices,
                            const std::int8_t* values_q, const float* values_scale, const float* bias, int m,
                            int n, int b, int r, int k, const TableInputs& inputs) {
    return std::make_unique<TableLinear>(atoms_q, atoms_scale, indices, values_q, values_scale, bias, m, n, b, r,
                                         k, inputs);
}

#endif

}  // namespace linear
}  // namespace leanmatch

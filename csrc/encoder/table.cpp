#include "table.h"

#include <cstring>
#include <utility>

namespace leanmatch {
namespace encoder {

void FloatTable::decode(const Ops&, std::size_t row, float* y) const {
    std::memcpy(y, values_.data() + row * width_, width_ * sizeof(float));
}

void Int8Table::decode(const Ops& ops, std::size_t row, float* y) const {
    const std::size_t part = width_ / groups_;
    for (std::size_t group = 0; group < groups_; ++group) {
        ops.dequantize(q_.data() + row * width_ + group * part, scale_[row * groups_ + group], part, y + group * part);
    }
}

SparseTable::SparseTable(std::vector<float> atoms, std::vector<std::uint16_t> indices, std::vector<std::int8_t> codes,
                         std::vector<float> code_scale, std::vector<float> values, std::size_t rows, std::size_t blocks,
                         std::size_t atoms_per_block, std::size_t block_width, std::size_t nonzeros)
    : Table(rows, blocks * block_width),
      atoms_(std::move(atoms)),
      indices_(std::move(indices)),
      codes_(std::move(codes)),
      code_scale_(std::move(code_scale)),
      values_(std::move(values)) {
    view_ = {atoms_.data(), indices_.data(), codes_.empty() ? nullptr : codes_.data(), code_scale_.data(),
             values_.data(), blocks, atoms_per_block, block_width, nonzeros};
}

std::size_t SparseTable::bytes() const {
    return (atoms_.size() + code_scale_.size() + values_.size()) * sizeof(float) +
           indices_.size() * sizeof(std::uint16_t) + codes_.size();
}

void SparseTable::decode(const Ops& ops, std::size_t row, float* y) const { ops.decode_row(view_, row, y); }

void LowRankTable::decode(const Ops& ops, std::size_t row, float* y) const {
    const std::size_t rank = left_->width();
    std::vector<float> factors(rank);
    left_->decode(ops, row, factors.data());
    std::memset(y, 0, width_ * sizeof(float));
    for (std::size_t i = 0; i < rank; ++i) ops.axpy(factors[i], right_.data() + i * width_, width_, y);
}

}  // namespace encoder
}  // namespace leanmatch

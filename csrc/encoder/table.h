// Embedding tables: dense float32, int8 with scales, dense-sparse factors, low rank. Rows are decoded when they are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "encoder/ops/ops.h"

namespace leanmatch {
namespace encoder {

class Table {
public:
    virtual ~Table() = default;
    std::size_t rows() const { return rows_; }
    std::size_t width() const { return width_; }
    virtual std::size_t bytes() const = 0;
    // y = row `row`, which is below rows().
    virtual void decode(const Ops& ops, std::size_t row, float* y) const = 0;

protected:
    Table(std::size_t rows, std::size_t width) : rows_(rows), width_(width) {}
    std::size_t rows_, width_;
};

class FloatTable : public Table {
public:
    FloatTable(std::vector<float> values, std::size_t rows, std::size_t width)
        : Table(rows, width), values_(std::move(values)) {}
    std::size_t bytes() const override { return values_.size() * sizeof(float); }
    void decode(const Ops& ops, std::size_t row, float* y) const override;

private:
    std::vector<float> values_;
};

// values = q * scale, one scale for each of `groups` equal parts of a row.
class Int8Table : public Table {
public:
    Int8Table(std::vector<std::int8_t> q, std::vector<float> scale, std::size_t rows, std::size_t width, std::size_t groups)
        : Table(rows, width), q_(std::move(q)), scale_(std::move(scale)), groups_(groups) {}
    std::size_t bytes() const override { return q_.size() + scale_.size() * sizeof(float); }
    void decode(const Ops& ops, std::size_t row, float* y) const override;

private:
    std::vector<std::int8_t> q_;
    std::vector<float> scale_;
    std::size_t groups_;
};

// Exactly one of `codes` (with `code_scale`) and `values` is filled. Indices are checked by the binding.
class SparseTable : public Table {
public:
    SparseTable(std::vector<float> atoms, std::vector<std::uint16_t> indices, std::vector<std::int8_t> codes,
                std::vector<float> code_scale, std::vector<float> values, std::size_t rows, std::size_t blocks,
                std::size_t atoms_per_block, std::size_t block_width, std::size_t nonzeros);
    std::size_t bytes() const override;
    void decode(const Ops& ops, std::size_t row, float* y) const override;

private:
    std::vector<float> atoms_;
    std::vector<std::uint16_t> indices_;
    std::vector<std::int8_t> codes_;
    std::vector<float> code_scale_, values_;
    SparseRows view_;
};

// values = left right; `left` is itself a table, one coefficient a row of `right`.
class LowRankTable : public Table {
public:
    LowRankTable(std::shared_ptr<Table> left, std::vector<float> right, std::size_t width)
        : Table(left->rows(), width), left_(std::move(left)), right_(std::move(right)) {}
    std::size_t bytes() const override { return left_->bytes() + right_.size() * sizeof(float); }
    void decode(const Ops& ops, std::size_t row, float* y) const override;

private:
    std::shared_ptr<Table> left_;
    std::vector<float> right_;
};

}  // namespace encoder
}  // namespace leanmatch

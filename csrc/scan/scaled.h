// Rows in 8-bit codes with a scale each, and the best of them for a query: what a catalogue in a web page searches. Unlike
// scan::Codes it keeps no float vectors; scores are those of the codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "linear/storage.h"

namespace leanmatch {
namespace scan {

class ScaledCodes {
public:
    explicit ScaledCodes(int dimension);  // 1 to 32768, else std::invalid_argument

    // Appends rows: codes int8 (count, dimension), -127 to 127; scales (count,), finite and not negative. What they hold is
    // copied; throws std::invalid_argument for others, or beyond 2^31 - 1 rows.
    void add(const std::int8_t* codes, const float* scales, int count);

    int rows() const { return rows_; }
    int dimension() const { return dimension_; }
    std::size_t bytes() const;

    // The best `k` rows by scale[row] * sum_j query[j] * codes[row][j], best first; of rows with equal scores the lower one.
    // `keep`: a bit a row, lowest first; null for all. Returns how many there are: fewer than k where too few are kept.
    //
    // The query is rounded to `query_steps(dimension)` steps on either side of zero, 32767 for up to 516 numbers, so that the
    // sum of products is exact in int32: |sum| <= 127 * steps * dimension < 2^31. Its rounding changes a score by at most
    // |score unit| = scale * largest |query| * 127 * dimension / (2 steps); typically 1e-5 of the vectors' lengths.
    int top(const float* query, int k, const std::uint8_t* keep, std::int32_t* rows, float* scores) const;

private:
    struct Part {
        linear::Buffer<std::int8_t> codes;  // (rows, stride)
        std::vector<float> scales;
    };
    int dimension_, stride_;
    int rows_ = 0;
    std::vector<Part> parts_;
};

int query_steps(int dimension);
const char* scaled_level();  // whose kernel runs: "portable" or "wasm"

}  // namespace scan
}  // namespace leanmatch

// Rows in 8-bit codes, and the best of them for some queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "linear/storage.h"

namespace leanmatch {
namespace scan {

// The level whose kernels this build has, "none" where it has none; `search` needs a CPU that runs it.
const char* kernel_level();

class Codes {
public:
    Codes(int rows, int dimension);  // std::invalid_argument where either is out of range

    // Codes of `count` rows from row `start` on, int8 (count, dimension), -127 to 127.
    void put(int start, int count, const std::int8_t* codes);

    int rows() const { return rows_; }
    int dimension() const { return dimension_; }

    // For each query its best `fetch[q]` rows by the sum over codes, among those that `keep` (a bit a row, lowest
    // first; null for all) leaves, in the order of their score, then of their row. The score is the inner product
    // in float64 of the query's line of `exact` (count, dimension) with the row of `vectors`; scores whose products
    // with `rounding` round to the same integer are a tie. `scores` and `out` are (count, width); what is left of
    // a line is -inf and -1. No other row's sum is above `worst[q]`.
    void search(const std::int8_t* queries, const float* exact, int count, const std::int32_t* fetch, int width,
                const float* vectors, const std::uint8_t* keep, double rounding, double* scores,
                std::int64_t* out, std::int32_t* worst) const;

private:
    int rows_, dimension_, steps_, groups_;
    linear::Buffer<std::uint8_t> packed_;
    std::vector<std::uint8_t> all_;  // a bit for every row there is: the last group may not be full
};

}  // namespace scan
}  // namespace leanmatch

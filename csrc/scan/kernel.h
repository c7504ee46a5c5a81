// Inner products of 8-bit codes with several queries at once, and which of them may be among the best.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace leanmatch {
namespace scan {

constexpr int kLanes = 16;  // rows of a group: one of each 32-bit lane
constexpr int kDepth = 4;   // neighbouring inputs that one instruction multiplies

// What has been found for a query so far: `count` rows whose sum is above `above`.
struct Candidates {
    int32_t above;
    int32_t count;
    int32_t* rows;
    int32_t* sums;
};

// Rows [16 * first, 16 * last) of codes that are packed as [group][input / 4][row of the group][4], stored as code
// + 128. Each query has 4 * steps int8 codes, `queries` one after another. Rows whose sum over the stored codes is
// above the query's bar are appended; there must be room for all and for kLanes more, which are written over. `keep`,
// a bit a row, leaves rows out.
using GroupsKernel = void(const uint8_t* packed, int steps, int first, int last, const int8_t* queries, int count,
                          const uint8_t* keep, Candidates* found);
GroupsKernel groups_vnni, groups_neon_dotprod;

// Inner products in float64 of a query with `count` rows of `vectors`, both of float32.
using ProductsKernel = void(const float* query, const float* vectors, int dimension, const int32_t* rows, int count,
                            double* products);
ProductsKernel products_vnni, products_neon_dotprod;

// sums[row] = sum_j codes[row][j] * query[j], exact in int32; `stride` codes a row, a multiple of 16.
using ScaledSumsKernel = void(const int8_t* codes, int stride, int rows, const int16_t* query, int32_t* sums);
ScaledSumsKernel scaled_sums_wasm;

}  // namespace scan
}  // namespace leanmatch

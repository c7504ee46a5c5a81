// Dense-sparse factors in int8 with tables in registers; see vbmi.cpp and neon_tables.cpp.
#pragma once

#include "linear.h"

namespace leanmatch {
namespace linear {

// Arguments as pack_dense_sparse_i8, checked already; b <= 256.
LinearPtr make_table_linear(const std::int8_t* atoms_q, const float* atoms_scale, const std::uint16_t* indices,
                            const std::int8_t* values_q, const float* values_scale, const float* bias, int m,
                            int n, int b, int r, int k, const TableInputs& inputs);

}  // namespace linear
}  // namespace leanmatch

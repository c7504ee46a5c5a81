// Dense int8 with NEON's dot products (sdot): four products and their sum a lane in one instruction, 16 an instruction.
#include <arm_neon.h>
#include <string.h>

#include "linear/kernels.h"

namespace leanmatch {
namespace linear {
namespace {

#include "neon_vectors.inc.h"
#include "linear/kernels/vector_math.inc.h"

template <int L>
inline int8x16_t pick(int8x16_t x) {
    return x;  // sdot names the lane itself
}
template <int L>
inline int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
    return vdotq_laneq_s32(sum, w, x, L);
}
#include "neon_i8.inc.h"

}  // namespace

void dense_i8_neon_dotprod(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    dense_i8(w, x, T, y, tail);
}

}  // namespace linear
}  // namespace leanmatch

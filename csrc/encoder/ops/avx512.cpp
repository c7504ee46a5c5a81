// The encoder's kernels for AVX-512 (F, BW, DQ, VL): vectors of sixteen floats.
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ops.h"

namespace leanmatch {
namespace encoder {
namespace {

constexpr size_t W = 16;
using V = __m512;

inline __mmask16 first(size_t n) { return __mmask16((1u << n) - 1u); }

inline V splat(float a) { return _mm512_set1_ps(a); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline V load_part(const float* p, size_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline V load_i8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store(float* p, V a) { _mm512_storeu_ps(p, a); }
inline void store_part(float* p, V a, size_t n) { _mm512_mask_storeu_ps(p, first(n), a); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V div(V a, V b) { return _mm512_div_ps(a, b); }
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V max(V a, V b) { return _mm512_max_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V round_(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V scale_by_power(V a, V n) { return _mm512_scalef_ps(a, n); }
inline V zero_below(V a, V x, V limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ), a);
}
inline float sum(V a) { return _mm512_reduce_add_ps(a); }
inline float largest(V a) { return _mm512_reduce_max_ps(a); }

#include "body.h"

}  // namespace

const Ops& ops_avx512() { return kOps; }

}  // namespace encoder
}  // namespace leanmatch

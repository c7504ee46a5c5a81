// Pursuit, AVX-512: 16 lanes. Equal scores come as a mask register.
#include <immintrin.h>

#include "decode_kernel.h"

namespace {

struct Avx512 {
    using type = __m512;
    static constexpr size_t kWidth = 16, kGroup = 4;

    static type zero() { return _mm512_setzero_ps(); }
    static type load(const float* p) { return _mm512_load_ps(p); }
    static type load_any(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, type x) { _mm512_store_ps(p, x); }
    static void store_any(float* p, type x) { _mm512_storeu_ps(p, x); }
    static type broadcast(float x) { return _mm512_set1_ps(x); }
    static type fma(type x, type y, type z) { return _mm512_fmadd_ps(x, y, z); }
    static type mul(type x, type y) { return _mm512_mul_ps(x, y); }
    static type sub(type x, type y) { return _mm512_sub_ps(x, y); }
    static type max(type x, type y) { return _mm512_max_ps(x, y); }
    static type abs(type x) { return _mm512_abs_ps(x); }
    static float reduce_max(type x) { return _mm512_reduce_max_ps(x); }
    static float reduce_sum(type x) { return _mm512_reduce_add_ps(x); }
    static unsigned equal(type x, type y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
    static type zero_unless_below(type x, float bound) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(bound), _CMP_LT_OQ), x);
    }
    // 1 / x where x is above the limit, else 0; one Newton step after the estimate of 14 bits.
    static type inverse_above(type x, float limit) {
        const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_GT_OQ);
        const type estimate = _mm512_rcp14_ps(x);
        const type two = _mm512_set1_ps(2);
        return _mm512_maskz_mul_ps(above, estimate, _mm512_fnmadd_ps(x, estimate, two));
    }
};

}  // namespace

namespace leanmatch {
extern const PursuitKernels kPursuitAvx512 = kernels_of<Avx512>();
}

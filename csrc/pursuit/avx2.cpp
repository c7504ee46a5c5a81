// Pursuit, AVX2 with FMA: 8 lanes.
#include <immintrin.h>

#include "decode_kernel.h"

namespace {

struct Avx2 {
    using type = __m256;
    static constexpr size_t kWidth = 8, kGroup = 2;

    static type zero() { return _mm256_setzero_ps(); }
    static type load(const float* p) { return _mm256_load_ps(p); }
    static type load_any(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, type x) { _mm256_store_ps(p, x); }
    static void store_any(float* p, type x) { _mm256_storeu_ps(p, x); }
    static type broadcast(float x) { return _mm256_set1_ps(x); }
    static type fma(type x, type y, type z) { return _mm256_fmadd_ps(x, y, z); }
    static type mul(type x, type y) { return _mm256_mul_ps(x, y); }
    static type sub(type x, type y) { return _mm256_sub_ps(x, y); }
    static type max(type x, type y) { return _mm256_max_ps(x, y); }
    static type abs(type x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
    static float reduce_max(type x) {
        __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_max_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
    }
    static float reduce_sum(type x) {
        __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        y = _mm_add_ps(y, _mm_movehl_ps(y, y));
        return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
    }
    static unsigned equal(type x, type y) {
        return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_EQ_OQ)));
    }
    static type zero_unless_below(type x, float bound) {
        return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(bound), _CMP_LT_OQ), x);
    }
    // 1 / x where x is above the limit, else 0; one Newton step after the estimate of 12 bits.
    static type inverse_above(type x, float limit) {
        const type above = _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_GT_OQ);
        const type estimate = _mm256_rcp_ps(x);
        const type better = _mm256_mul_ps(estimate, _mm256_fnmadd_ps(x, estimate, _mm256_set1_ps(2)));
        return _mm256_and_ps(above, better);
    }
};

}  // namespace

namespace leanmatch {
extern const PursuitKernels kPursuitAvx2 = kernels_of<Avx2>();
}

// fp32 multiply-add in registers with AVX2; see peaks.h.
#include <immintrin.h>

#include "linear/peaks_kernels.h"

namespace leanmatch {
namespace linear {

long long fma_avx2(long count) {
    __m256 sum[12], x = _mm256_set1_ps(0.5f);
    for (__m256& s : sum) s = _mm256_setzero_ps();
    for (long i = 0; i < count / 12; i++)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(sum[j]) : "x"(x));
    __m256 total = _mm256_setzero_ps();
    for (const __m256& s : sum) total = _mm256_add_ps(total, s);
    return static_cast<long long>(_mm256_cvtss_f32(total));
}

}  // namespace linear
}  // namespace leanmatch

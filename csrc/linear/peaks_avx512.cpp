// AVX-512 instructions in registers, and loads; see peaks.h. Inline assembly, so that no compiler removes what is timed and
// the instructions of other feature sets (VNNI, VBMI, BF16) need no flags: each runs only after its probe.
#include <immintrin.h>

#include "peaks_kernels.h"

namespace leanmatch {
namespace linear {
namespace {

constexpr int kChains = 16;

long long total_of(const __m512i (&sum)[kChains]) {
    __m512i total = _mm512_setzero_si512();
    for (const __m512i& s : sum) total = _mm512_add_epi32(total, s);
    return _mm512_reduce_add_epi32(total);
}

}  // namespace

// Independent sums, more than latency needs; x and index keep their values.
#define LEANMATCH_PEAK(name, body)                                        \
    long long name(long count) {                                          \
        __m512i sum[kChains], x = _mm512_set1_epi32(0x01020304);          \
        for (__m512i& s : sum) s = _mm512_setzero_si512();                \
        for (long i = 0; i < count / kChains; i++) {                      \
            _Pragma("GCC unroll 16") for (int j = 0; j < kChains; j++) { \
                __m512i& s = sum[j];                                       \
                body                                                      \
            }                                                             \
        }                                                                 \
        return total_of(sum);                                             \
    }

LEANMATCH_PEAK(fma_avx512, __asm__ volatile("vfmadd231ps %1, %1, %0" : "+v"(s) : "v"(x));)
LEANMATCH_PEAK(dpbf16_avx512, __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(s) : "v"(x));)
LEANMATCH_PEAK(dpbusd_vnni, __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(s) : "v"(x));)
LEANMATCH_PEAK(permb_vbmi, __asm__ volatile("vpermb %1, %1, %0" : "=v"(s) : "v"(x));)
LEANMATCH_PEAK(lookup_vbmi, __m512i z;
               __asm__ volatile("vpermb %2, %2, %1\n\tvpdpbusd %2, %1, %0" : "+v"(s), "=&v"(z) : "v"(x));)
LEANMATCH_PEAK(lookup128_vbmi, __m512i z = x;
               __asm__ volatile("vpermi2b %2, %2, %1\n\tvpdpbusd %2, %1, %0" : "+v"(s), "+&v"(z) : "v"(x));)
#undef LEANMATCH_PEAK

long long load_vectors_avx512(const unsigned char* memory, long vectors, long rounds) {
    __m512i v = _mm512_setzero_si512();
    for (long round = 0; round < rounds; round++)
        for (long i = 0; i < vectors; i += 4)
#pragma GCC unroll 4
            for (long j = 0; j < 4; j++) __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const __m512i*>(memory + 64 * (i + j))));
    return _mm512_reduce_add_epi32(v);
}

}  // namespace linear
}  // namespace leanmatch

// AVX-512 instructions in registers, and loads; see peaks.h. Inline assembly on fixed registers, so that no
// compiler removes or spills what is timed and the instructions of other feature sets (VNNI, VBMI, BF16) need no
// flags: each runs only after its probe.
#include <immintrin.h>

#include "linear/peaks_kernels.h"

// zmm0 to zmm11 are independent sums, more than latency needs; zmm16 keeps its value; zmm20 to zmm31 hold
// looked-up tables.
#define LEANMATCH_TWELVE(f) \
    f(0, 20) f(1, 21) f(2, 22) f(3, 23) f(4, 24) f(5, 25) f(6, 26) f(7, 27) f(8, 28) f(9, 29) f(10, 30) f(11, 31)
#define LEANMATCH_PEAK(name, f)                                                                            \
    long long name(long count) {                                                                           \
        for (long i = 0; i < count / 12; i++)                                                              \
            __asm__ volatile(LEANMATCH_TWELVE(f)::                                                         \
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                                   "xmm9", "xmm10", "xmm11", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",  \
                                   "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");         \
        return count;                                                                                      \
    }
#define LEANMATCH_FMA(sum, table) "vfmadd231ps %%zmm16, %%zmm16, %%zmm" #sum "\n\t"
#define LEANMATCH_DPBF16(sum, table) "vdpbf16ps %%zmm16, %%zmm16, %%zmm" #sum "\n\t"
#define LEANMATCH_DPBUSD(sum, table) "vpdpbusd %%zmm16, %%zmm16, %%zmm" #sum "\n\t"
#define LEANMATCH_PERMB(sum, table) "vpermb %%zmm16, %%zmm16, %%zmm" #table "\n\t"
#define LEANMATCH_LOOKUP(sum, table) \
    "vpermb %%zmm16, %%zmm16, %%zmm" #table "\n\tvpdpbusd %%zmm16, %%zmm" #table ", %%zmm" #sum "\n\t"
#define LEANMATCH_LOOKUP128(sum, table)                                             \
    "vmovdqa64 %%zmm16, %%zmm" #table "\n\tvpermi2b %%zmm16, %%zmm16, %%zmm" #table \
    "\n\tvpdpbusd %%zmm16, %%zmm" #table ", %%zmm" #sum "\n\t"

namespace leanmatch {
namespace linear {

LEANMATCH_PEAK(fma_avx512, LEANMATCH_FMA)
LEANMATCH_PEAK(dpbf16_avx512, LEANMATCH_DPBF16)
LEANMATCH_PEAK(dpbusd_vnni, LEANMATCH_DPBUSD)
LEANMATCH_PEAK(permb_vbmi, LEANMATCH_PERMB)
LEANMATCH_PEAK(lookup_vbmi, LEANMATCH_LOOKUP)
LEANMATCH_PEAK(lookup128_vbmi, LEANMATCH_LOOKUP128)

long long load_vectors_avx512(const unsigned char* memory, long vectors, long rounds) {
    __m512i v = _mm512_setzero_si512();
    for (long round = 0; round < rounds; round++)
        for (long i = 0; i < vectors; i += 4) {
            const __m512i* p = reinterpret_cast<const __m512i*>(memory + 64 * i);
            __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(p[0]));
            __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(p[1]));
            __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(p[2]));
            __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(p[3]));
        }
    return _mm512_reduce_add_epi32(v);
}

}  // namespace linear
}  // namespace leanmatch

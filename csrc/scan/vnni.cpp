// AVX-512 VNNI: 16 rows in the lanes of a register, a register of sums a query. A step of 4 inputs takes one load of
// codes for up to 8 queries and a broadcast load of each query's own codes, so that with 8 queries the multiplier
// limits it (one 512-bit vpdpbusd a cycle on Zen 4), with one query the memory that the codes come from. The product is
// written in assembly: from the intrinsic g++ 12 makes two moves a product.
#include <immintrin.h>
#include <string.h>

#include "kernel.h"

#define LEANMATCH_UNROLL _Pragma("GCC unroll 8")  // or the sums would be kept in memory

namespace leanmatch {
namespace scan {
namespace {

constexpr int kQueries = 8;

inline __m512i four(const int8_t* codes) {
    int32_t bits;
    memcpy(&bits, codes, sizeof bits);
    return _mm512_set1_epi32(bits);
}

inline void dpbusd(__m512i& sum, __m512i items, __m512i query) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(items), "v"(query));
}

// Compressed in a register and stored whole, over lanes that come later: compressing into memory takes Zen 4 more
// than a hundred cycles.
inline void take(__m512i sums, int group, uint32_t keep, Candidates& found) {
    const __mmask16 above =
        _mm512_mask_cmpgt_epi32_mask(__mmask16(keep), sums, _mm512_set1_epi32(found.above));
    if (above == 0) return;
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i rows = _mm512_add_epi32(lanes, _mm512_set1_epi32(group * kLanes));
    _mm512_storeu_si512(found.rows + found.count, _mm512_maskz_compress_epi32(above, rows));
    _mm512_storeu_si512(found.sums + found.count, _mm512_maskz_compress_epi32(above, sums));
    found.count += __builtin_popcount(above);
}

// Q queries, G groups at a time: enough sums in flight to hide the multiplier's latency of 4 cycles.
template <int Q, int G>
void run(const uint8_t* packed, int steps, int first, int last, const int8_t* queries, const uint8_t* keep,
         Candidates* found) {
    const size_t stride = size_t(steps) * 64;
    int group = first;
    for (; group + G <= last; group += G) {
        uint32_t kept[G];
        uint32_t any = 0;
        for (int g = 0; g < G; g++) {
            kept[g] = 0xffff;
            if (keep) kept[g] = uint32_t(keep[2 * (group + g)]) | uint32_t(keep[2 * (group + g) + 1]) << 8;
            any |= kept[g];
        }
        if (any == 0) continue;
        const uint8_t* codes = packed + size_t(group) * stride;
        __m512i sums[Q][G];
        LEANMATCH_UNROLL
        for (int q = 0; q < Q; q++) {
            LEANMATCH_UNROLL
            for (int g = 0; g < G; g++) sums[q][g] = _mm512_setzero_si512();
        }
        for (int step = 0; step < steps; step++, codes += 64) {
            __m512i items[G];
            LEANMATCH_UNROLL
            for (int g = 0; g < G; g++) items[g] = _mm512_loadu_si512(codes + size_t(g) * stride);
            LEANMATCH_UNROLL
            for (int q = 0; q < Q; q++) {
                const __m512i query = four(queries + (size_t(q) * size_t(steps) + size_t(step)) * kDepth);
                LEANMATCH_UNROLL
                for (int g = 0; g < G; g++) dpbusd(sums[q][g], items[g], query);
            }
        }
        LEANMATCH_UNROLL
        for (int q = 0; q < Q; q++) {
            LEANMATCH_UNROLL
            for (int g = 0; g < G; g++) take(sums[q][g], group + g, kept[g], found[q]);
        }
    }
    if constexpr (G > 1) {
        if (group < last) run<Q, 1>(packed, steps, group, last, queries, keep, found);
    }
}

}  // namespace

void groups_vnni(const uint8_t* packed, int steps, int first, int last, const int8_t* queries, int count,
                 const uint8_t* keep, Candidates* found) {
    while (count > 0) {
        int done = 1;
        if (count >= kQueries) {
            done = kQueries;
            run<kQueries, 2>(packed, steps, first, last, queries, keep, found);
        } else if (count >= 4) {
            done = 4;
            run<4, 4>(packed, steps, first, last, queries, keep, found);
        } else if (count >= 2) {
            done = 2;
            run<2, 4>(packed, steps, first, last, queries, keep, found);
        } else {
            run<1, 8>(packed, steps, first, last, queries, keep, found);
        }
        queries += size_t(done) * size_t(steps) * kDepth;
        found += done;
        count -= done;
    }
}

void products_vnni(const float* query, const float* vectors, int dimension, const int32_t* rows, int count,
                   double* products) {
    constexpr int kAhead = 2;  // rows lie anywhere: they are fetched while those before them are multiplied
    const __mmask8 rest = __mmask8((1u << (dimension % 8)) - 1);
    for (int i = 0; i < count; i++) {
        if (i + kAhead < count) {
            const float* next = vectors + size_t(rows[i + kAhead]) * size_t(dimension);
            for (int j = 0; j < dimension; j += 16) _mm_prefetch(reinterpret_cast<const char*>(next + j), _MM_HINT_T0);
        }
        const float* row = vectors + size_t(rows[i]) * size_t(dimension);
        __m512d sums[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
        int j = 0;
        for (; j + 16 <= dimension; j += 16)
            for (int p = 0; p < 2; p++)
                sums[p] = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(query + j + 8 * p)),
                                          _mm512_cvtps_pd(_mm256_loadu_ps(row + j + 8 * p)), sums[p]);
        if (j + 8 <= dimension) {
            sums[0] = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(query + j)),
                                      _mm512_cvtps_pd(_mm256_loadu_ps(row + j)), sums[0]);
            j += 8;
        }
        sums[1] = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(rest, query + j)),
                                  _mm512_cvtps_pd(_mm256_maskz_loadu_ps(rest, row + j)), sums[1]);
        products[i] = _mm512_reduce_add_pd(_mm512_add_pd(sums[0], sums[1]));
    }
}

}  // namespace scan
}  // namespace leanmatch

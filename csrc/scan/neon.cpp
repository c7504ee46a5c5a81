// NEON with dot products: a group's 16 rows are 4 vectors of 4 lanes. A step of 4 inputs takes 4 loads of codes for up to 4
// queries; stored codes become signed by one exclusive or, so that the sum of a row is
//   sum_j q_j (code_j + 128) = sum_j q_j code_j + 128 sum_j q_j,
// and sums begin with the second part. |sum| <= 127 * 255 * 32768 < 2^31, as in vnni.cpp; partial sums stay below 2 * 127 *
// 128 * 32768 < 2^31. Counts only: no ARM machine has timed this.
#include <arm_neon.h>
#include <string.h>

#include "kernel.h"

#define LEANMATCH_UNROLL _Pragma("GCC unroll 8")  // or the sums would be kept in memory

namespace leanmatch {
namespace scan {
namespace {

constexpr int kQueries = 4, kVectors = kLanes / 4;

inline int8x16_t four(const int8_t* codes) {
    int32_t bits;
    memcpy(&bits, codes, sizeof bits);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}

inline int32_t sum_of(const int8_t* query, int count) {
    int32_t sum = 0;
    for (int j = 0; j < count; j++) sum += query[j];
    return sum;
}

// Rows of a group whose sum is above the query's bar. Most vectors have none.
inline void take(const int32x4_t (&sums)[kVectors], int group, uint32_t keep, Candidates& found) {
    const int32x4_t bar = vdupq_n_s32(found.above);
    for (int v = 0; v < kVectors; v++) {
        if (vmaxvq_u32(vcgtq_s32(sums[v], bar)) == 0) continue;
        int32_t lanes[4];
        vst1q_s32(lanes, sums[v]);
        for (int i = 0; i < 4; i++) {
            const int lane = v * 4 + i;
            if (lanes[i] <= found.above || !(keep >> lane & 1)) continue;
            found.rows[found.count] = group * kLanes + lane;
            found.sums[found.count] = lanes[i];
            found.count++;
        }
    }
}

template <int Q>
void run(const uint8_t* packed, int steps, int first, int last, const int8_t* queries, const uint8_t* keep,
         Candidates* found) {
    const int length = steps * kDepth;
    int32_t offset[Q];
    for (int q = 0; q < Q; q++) offset[q] = 128 * sum_of(queries + size_t(q) * size_t(length), length);
    for (int group = first; group < last; group++) {
        uint32_t kept = 0xffff;
        if (keep) kept = uint32_t(keep[2 * group]) | uint32_t(keep[2 * group + 1]) << 8;
        if (kept == 0) continue;
        const uint8_t* codes = packed + size_t(group) * size_t(steps) * kLanes * kDepth;
        int32x4_t sums[Q][kVectors];
        LEANMATCH_UNROLL
        for (int q = 0; q < Q; q++) {
            LEANMATCH_UNROLL
            for (int v = 0; v < kVectors; v++) sums[q][v] = vdupq_n_s32(offset[q]);
        }
        for (int step = 0; step < steps; step++, codes += kLanes * kDepth) {
            int8x16_t items[kVectors];
            LEANMATCH_UNROLL
            for (int v = 0; v < kVectors; v++)
                items[v] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + 16 * v), vdupq_n_u8(0x80)));
            LEANMATCH_UNROLL
            for (int q = 0; q < Q; q++) {
                const int8x16_t query = four(queries + size_t(q) * size_t(length) + size_t(step) * kDepth);
                LEANMATCH_UNROLL
                for (int v = 0; v < kVectors; v++) sums[q][v] = vdotq_s32(sums[q][v], items[v], query);
            }
        }
        for (int q = 0; q < Q; q++) take(sums[q], group, kept, found[q]);
    }
}

}  // namespace

void groups_neon_dotprod(const uint8_t* packed, int steps, int first, int last, const int8_t* queries, int count,
                         const uint8_t* keep, Candidates* found) {
    while (count > 0) {
        const int done = count >= kQueries ? kQueries : count >= 2 ? 2 : 1;
        if (done == kQueries) run<kQueries>(packed, steps, first, last, queries, keep, found);
        else if (done == 2) run<2>(packed, steps, first, last, queries, keep, found);
        else run<1>(packed, steps, first, last, queries, keep, found);
        queries += size_t(done) * size_t(steps) * kDepth;
        found += done;
        count -= done;
    }
}

void products_neon_dotprod(const float* query, const float* vectors, int dimension, const int32_t* rows, int count,
                           double* products) {
    for (int i = 0; i < count; i++) {
        const float* row = vectors + size_t(rows[i]) * size_t(dimension);
        float64x2_t sums[2] = {vdupq_n_f64(0.0), vdupq_n_f64(0.0)};
        int j = 0;
        for (; j + 4 <= dimension; j += 4) {
            const float32x4_t x = vld1q_f32(query + j), y = vld1q_f32(row + j);
            sums[0] = vfmaq_f64(sums[0], vcvt_f64_f32(vget_low_f32(x)), vcvt_f64_f32(vget_low_f32(y)));
            sums[1] = vfmaq_f64(sums[1], vcvt_high_f64_f32(x), vcvt_high_f64_f32(y));
        }
        double sum = vaddvq_f64(vaddq_f64(sums[0], sums[1]));
        for (; j < dimension; j++) sum += double(query[j]) * double(row[j]);
        products[i] = sum;
    }
}

}  // namespace scan
}  // namespace leanmatch

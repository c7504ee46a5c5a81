// W = S D and its backward pass. Included by one file per level after <stddef.h> and friends; C headers only.
//
// Rows are walked in order, blocks within them: W streams, the atoms (n r floats) stay in the second-level cache.
#pragma once

#include "beam_kernel.h"

namespace {

using leanmatch::DecodeJob;

template <class V>
struct Decode {
    // kFixed: the width of a block where it is known, so that a block's sums stay in registers; 0 for any width.
    template <size_t kFixed, class Index>
    static void rows(const DecodeJob& job, size_t begin, size_t end, float* weight) {
        const size_t b = kFixed ? kFixed : job.width, k = job.nonzeros, r = job.atom_count;
        const Index* indices = static_cast<const Index*>(job.indices);
        for (size_t row = begin; row < end; ++row) {
            for (size_t i = 0; i < job.blocks; ++i) {
                const size_t cell = row * job.blocks + i;
                const float* atoms = job.atoms + i * r * b;
                float* out = weight + cell * b;
                if (kFixed && kFixed % V::kWidth == 0) {
                    constexpr size_t kVectors = kFixed / V::kWidth ? kFixed / V::kWidth : 1;
                    typename V::type sum[kVectors];
                    for (size_t v = 0; v < kVectors; ++v) sum[v] = V::zero();
                    for (size_t j = 0; j < k; ++j) {
                        const float* atom = atoms + indices[cell * k + j] * b;
                        const typename V::type value = V::broadcast(job.values[cell * k + j]);
                        for (size_t v = 0; v < kVectors; ++v)
                            sum[v] = V::fma(value, V::load_any(atom + v * V::kWidth), sum[v]);
                    }
                    for (size_t v = 0; v < kVectors; ++v) V::store_any(out + v * V::kWidth, sum[v]);
                } else {
                    for (size_t c = 0; c < b; ++c) out[c] = 0;
                    for (size_t j = 0; j < k; ++j) {
                        const float* atom = atoms + indices[cell * k + j] * b;
                        const float value = job.values[cell * k + j];
                        for (size_t c = 0; c < b; ++c) out[c] += value * atom[c];
                    }
                }
            }
        }
    }

    template <size_t kFixed, class Index>
    static void rows_backward(const DecodeJob& job, size_t begin, size_t end, const float* gradient,
                              float* d_values, float* d_atoms) {
        const size_t b = kFixed ? kFixed : job.width, k = job.nonzeros, r = job.atom_count;
        const Index* indices = static_cast<const Index*>(job.indices);
        for (size_t row = begin; row < end; ++row) {
            for (size_t i = 0; i < job.blocks; ++i) {
                const size_t cell = row * job.blocks + i;
                const float* g = gradient + cell * b;
                for (size_t j = 0; j < k; ++j) {
                    const size_t at = (i * r + indices[cell * k + j]) * b;
                    const float value = job.values[cell * k + j];
                    const float* atom = job.atoms + at;
                    float* d_atom = d_atoms + at;
                    if (kFixed && kFixed % V::kWidth == 0) {
                        const typename V::type scale = V::broadcast(value);
                        typename V::type sum = V::zero();
                        for (size_t c = 0; c < b; c += V::kWidth) {
                            const typename V::type x = V::load_any(g + c);
                            sum = V::fma(V::load_any(atom + c), x, sum);
                            V::store_any(d_atom + c, V::fma(scale, x, V::load_any(d_atom + c)));
                        }
                        d_values[cell * k + j] = V::reduce_sum(sum);
                    } else {
                        float sum = 0;
                        for (size_t c = 0; c < b; ++c) {
                            sum += atom[c] * g[c];
                            d_atom[c] += value * g[c];
                        }
                        d_values[cell * k + j] = sum;
                    }
                }
            }
        }
    }

#define LEANMATCH_BY_WIDTH(FUNCTION, ...)                                                         \
    switch (job.width) {                                                                          \
        case 8: return job.wide ? FUNCTION<8, uint16_t>(__VA_ARGS__) : FUNCTION<8, uint8_t>(__VA_ARGS__);    \
        case 16: return job.wide ? FUNCTION<16, uint16_t>(__VA_ARGS__) : FUNCTION<16, uint8_t>(__VA_ARGS__); \
        case 32: return job.wide ? FUNCTION<32, uint16_t>(__VA_ARGS__) : FUNCTION<32, uint8_t>(__VA_ARGS__); \
        default: return job.wide ? FUNCTION<0, uint16_t>(__VA_ARGS__) : FUNCTION<0, uint8_t>(__VA_ARGS__);   \
    }

    static void decode(const DecodeJob& job, size_t begin, size_t end, float* weight) {
        LEANMATCH_BY_WIDTH(rows, job, begin, end, weight)
    }

    static void backward(const DecodeJob& job, size_t begin, size_t end, const float* gradient, float* d_values,
                         float* d_atoms) {
        LEANMATCH_BY_WIDTH(rows_backward, job, begin, end, gradient, d_values, d_atoms)
    }
#undef LEANMATCH_BY_WIDTH
};

template <class V>
constexpr leanmatch::PursuitKernels kernels_of() {
    return {&Pursuit<V>::pursue, &Decode<V>::decode, &Decode<V>::backward};
}

}  // namespace

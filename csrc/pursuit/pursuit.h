// Matching pursuit of every row and block of a matrix, decoding of the result, and the decoder's backward pass.
//
// Axis names: m rows, n = B b columns, B blocks of b columns, r atoms a block, k nonzeros a row and block. All arrays
// are row major and contiguous: weight (m, n), atoms (B, r, b), indices and values (m, B, k).
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace leanmatch {

enum class Selection { correlation, gain };

// For each row w of a block: k distinct atoms and coefficients that bring |w - sum_j values_j atoms[indices_j]|^2 down.
//
// Greedy. Selection::correlation (orthogonal matching pursuit) takes the atom with the largest |<residual, atom>| /
// |atom|; Selection::gain (orthogonal least squares) takes the one whose addition lowers the error most. Coefficients
// are those of least squares. An atom that depends on those chosen before it (sine^2 of the angle to their span at
// most kDependent) is not chosen; where no other atom can lower the error, unused atoms of the lowest number get 0.
struct PursuitJob {
    const float* weight;
    const float* atoms;
    size_t rows, blocks, atom_count, width, nonzeros;
    Selection selection;
    size_t beam;          // supports kept at every step, by their gain; 1: greedy
    const void* support;  // (m, B, k): only coefficients, on these atoms; null: atoms are chosen
    bool wide;            // indices are uint16, else uint8
    void* indices;        // not written where the support is given
    float* values;
    float* errors;        // (m, B) squared errors
};

struct DecodeJob {
    const void* indices;
    bool wide;
    const float* values;
    const float* atoms;
    size_t rows, blocks, atom_count, width, nonzeros;
};

constexpr float kDependent = 1e-4f;
constexpr size_t kMostBeamNonzeros = 64;
constexpr size_t kLanes = 16;      // of the widest level: padding of rows in scratch memory
constexpr size_t kTileRows = 8;    // rows that the kernel treats together

// What one instruction-set level offers. Row ranges and blocks are the caller's to divide among threads.
struct PursuitKernels {
    // Rows begin..end of one block. False: a weight, or a coefficient that came out, is not finite.
    bool (*pursue)(const PursuitJob& job, size_t block, size_t begin, size_t end, float* scratch);
    // weight (m, n) rows begin..end.
    void (*decode)(const DecodeJob& job, size_t begin, size_t end, float* weight);
    // From G = dL/dW (m, n): d_values (m, B, k) of the rows, and their part added to d_atoms (B, r, b).
    void (*backward)(const DecodeJob& job, size_t begin, size_t end, const float* gradient, float* d_values,
                     float* d_atoms);
};

extern const PursuitKernels kPursuitPortable;
#if defined(__x86_64__) || defined(_M_X64)
extern const PursuitKernels kPursuitAvx2;
extern const PursuitKernels kPursuitAvx512;
#endif

// Floats of aligned scratch memory that PursuitKernels::pursue needs.
inline size_t pursuit_scratch(const PursuitJob& job) {
    const size_t padded = (job.atom_count + kLanes - 1) / kLanes * kLanes;
    const size_t k = job.nonzeros;
    const size_t tables = (2 * job.width + job.atom_count + 1) * padded + kLanes;  // atoms twice, Gram, norms
    const size_t tile = kTileRows * ((k + 2) * padded + k * k + 3 * k + 4 * kLanes);
    return (tables + tile) / kLanes * kLanes + kLanes;
}

// And what a beam needs after that: vectors of every node, its row of L, the nodes, the list of candidates.
inline size_t beam_scratch(const PursuitJob& job) {
    const size_t padded = (job.atom_count + kLanes - 1) / kLanes * kLanes;
    const size_t nodes = 1 + job.nonzeros * job.beam;
    return job.beam == 1 ? 0 : padded + nodes * (3 * padded + job.nonzeros + 20) + 8 * job.beam + kLanes;
}

// The kernels of a level by name, or null.
const PursuitKernels* pursuit_kernels(const char* level);

// Whole matrices, over threads. False as above.
bool pursue(const PursuitKernels& kernels, const PursuitJob& job, size_t threads);
void decode(const PursuitKernels& kernels, const DecodeJob& job, float* weight, size_t threads);
void decode_backward(const PursuitKernels& kernels, const DecodeJob& job, const float* gradient, float* d_values,
                     float* d_atoms, size_t threads);

}  // namespace leanmatch

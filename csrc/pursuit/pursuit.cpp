#include "pursuit.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "parallel.h"

namespace leanmatch {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLeastRows = 512;  // of a task: each prepares its block's Gram matrix again

struct AlignedDelete {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(kAlignment)); }
};
using AlignedFloats = std::unique_ptr<float[], AlignedDelete>;

AlignedFloats aligned_floats(std::size_t size) {
    return AlignedFloats(static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t(kAlignment))));
}

std::size_t divided(std::size_t size, std::size_t by) { return (size + by - 1) / by; }

}  // namespace

const PursuitKernels* pursuit_kernels(const char* level) {
    if (std::strcmp(level, "portable") == 0) return &kPursuitPortable;
#if defined(__x86_64__) || defined(_M_X64)
    if (std::strcmp(level, "avx2") == 0) return &kPursuitAvx2;
    if (std::strcmp(level, "avx512") == 0) return &kPursuitAvx512;
#endif
    return nullptr;
}

bool pursue(const PursuitKernels& kernels, const PursuitJob& job, std::size_t threads) {
    if (job.rows == 0 || job.blocks == 0) return true;
    // Whole blocks where there are enough of them for all threads, else parts of their rows.
    const std::size_t wanted = divided(4 * threads, job.blocks), most = divided(job.rows, kLeastRows);
    const std::size_t parts = threads == 1 ? 1 : std::max<std::size_t>(1, std::min(wanted, most));
    const std::size_t rows = divided(job.rows, parts), tasks = job.blocks * parts;
    const std::size_t workers = std::min(tasks, threads);
    std::vector<AlignedFloats> scratch(workers);
    for (AlignedFloats& memory : scratch) memory = aligned_floats(pursuit_scratch(job) + beam_scratch(job));
    std::atomic<bool> finite{true};
    parallel_for(tasks, workers, [&](std::size_t task, std::size_t worker) {
        const std::size_t begin = task % parts * rows, end = std::min(begin + rows, job.rows);
        if (begin < end && !kernels.pursue(job, task / parts, begin, end, scratch[worker].get())) finite = false;
    });
    return finite;
}

void decode(const PursuitKernels& kernels, const DecodeJob& job, float* weight, std::size_t threads) {
    const std::size_t parts = std::min(job.rows, threads), rows = parts ? divided(job.rows, parts) : 0;
    parallel_for(parts, threads, [&](std::size_t part, std::size_t) {
        const std::size_t begin = std::min(part * rows, job.rows), end = std::min(begin + rows, job.rows);
        kernels.decode(job, begin, end, weight);
    });
}

void decode_backward(const PursuitKernels& kernels, const DecodeJob& job, const float* gradient, float* d_values,
                     float* d_atoms, std::size_t threads) {
    const std::size_t size = job.blocks * job.atom_count * job.width;
    std::memset(d_atoms, 0, size * sizeof(float));
    const std::size_t parts = std::min(job.rows, threads), rows = parts ? divided(job.rows, parts) : 0;
    std::vector<std::vector<float>> others(parts > 1 ? parts - 1 : 0);
    for (std::vector<float>& sums : others) sums.assign(size, 0.0f);
    parallel_for(parts, threads, [&](std::size_t part, std::size_t) {
        const std::size_t begin = std::min(part * rows, job.rows), end = std::min(begin + rows, job.rows);
        kernels.backward(job, begin, end, gradient, d_values, part ? others[part - 1].data() : d_atoms);
    });
    for (const std::vector<float>& sums : others)
        for (std::size_t i = 0; i < size; ++i) d_atoms[i] += sums[i];
}

}  // namespace leanmatch

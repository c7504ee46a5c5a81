#include "peaks.h"

#include <algorithm>
#include <chrono>

#include "checks.h"
#include "peaks_kernels.h"
#include "storage.h"

namespace leanmatch {
namespace linear {

#if defined(LEANMATCH_X86_KERNELS)

namespace {

volatile long long sink;

template <class F>
double best_of(long count, F run) {
    double best = 1e30;
    for (int round = 0; round < 7; round++) {
        const auto start = std::chrono::steady_clock::now();
        sink = run();
        best = std::min(
            best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count());
    }
    return best / double(count);
}

}  // namespace

std::vector<Peak> measure_peaks(Isa isa) {
    require_isa(isa);
    constexpr long kCount = 1 << 20;
    std::vector<Peak> out;
    const auto add = [&](const char* name, PeakKernel kernel) {
        out.push_back({name, best_of(kCount, [&] { return kernel(kCount); })});
    };
    const auto add_load = [&](const char* name, std::size_t bytes) {
        const Buffer<unsigned char> memory(bytes);
        const long vectors = long(bytes / 64), rounds = std::max(1L, kCount / vectors);
        out.push_back({name, best_of(vectors * rounds,
                                     [&] { return load_vectors_avx512(memory.data(), vectors, rounds); })});
    };
    if (isa == Isa::avx2) add("fma", fma_avx2);
    if (isa >= Isa::avx512) {
        add("fma", fma_avx512);
        add_load("load_l1", 16 << 10);
        add_load("load_l2", 512 << 10);
        add_load("load_l3", 8 << 20);
    }
    if (isa >= Isa::avx512 && has_bf16()) add("vdpbf16ps", dpbf16_avx512);
    if (has_vbmi_vnni(isa)) {
        add("vpdpbusd", dpbusd_vnni);
        add("vpermb", permb_vbmi);
        add("lookup", lookup_vbmi);
        add("lookup128", lookup128_vbmi);
    }
#if defined(LEANMATCH_AMX_KERNELS)
    if (isa == Isa::avx512_amx) add("tdpbusd", tdpbusd_amx);
#endif
    return out;
}

#else

std::vector<Peak> measure_peaks(Isa) { return {}; }

#endif

}  // namespace linear
}  // namespace leanmatch

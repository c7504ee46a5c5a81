// What one core can do at most, measured: the roofs of benchmarks/bench_kernels.py.
#pragma once

#include <vector>

#include "linear.h"

namespace leanmatch {
namespace linear {

struct Peak {
    const char* name;
    double nanoseconds;  // per instruction of the level's full width
};

// Kernels of peaks_*.cpp: run `count` (a multiple of 16) instructions and return something that depends on them.
using PeakKernel = long long (*)(long count);

// fma; from avx512_vbmi_vnni on also vpdpbusd, lookup (vpermb and vpdpbusd), lookup128 (vpermt2b and vpdpbusd);
// from avx512_amx on tdpbusd (16 x 16 x 64 products);
// load_l1, load_l2, load_l3: one vector from 16 KiB, 512 KiB, 8 MiB. A level without kernels of its own gives what
// the level below it has.
std::vector<Peak> measure_peaks(Isa isa);

}  // namespace linear
}  // namespace leanmatch

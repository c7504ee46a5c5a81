// What every pack_ function checks.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels.h"
#include "linear.h"

// Kernels beyond "portable" exist where CMakeLists.txt adds their files.
#if defined(__x86_64__) || defined(_M_X64)
#define LEANMATCH_X86_KERNELS 1
#elif defined(__aarch64__) && !defined(__AARCH64EB__)  // loads of four bytes at once rely on the order of bytes
#define LEANMATCH_NEON_KERNELS 1
#elif defined(__wasm_simd128__)
#define LEANMATCH_WASM_KERNELS 1
#endif

namespace leanmatch {
namespace linear {

constexpr int kTile =
    96;  // tokens whose activations are quantized at a time: a multiple of all micro-kernels' tokens

inline void require(bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
}

void require_isa(Isa isa);  // this build has kernels for it and this CPU runs them

inline void require_sizes(int m, int n) {
    require(m >= 1 && n >= 1, "a linear layer needs at least one output and one input, got m=" +
                                  std::to_string(m) + ", n=" + std::to_string(n));
}

constexpr int kLargestInt8Inputs = 66311;  // 255 * 127 * n < 2^31

// The same epilogue from token `t` on.
inline Tail tail_at(const float* bias, const Epilogue& epilogue, int t, int m) {
    return {bias, epilogue.residual ? epilogue.residual + std::size_t(t) * std::size_t(m) : nullptr,
            static_cast<int>(epilogue.activation)};
}

}  // namespace linear
}  // namespace leanmatch

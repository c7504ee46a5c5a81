// What the integer paths share: quantizing a tile of tokens, then the kernel.
#pragma once

#include <algorithm>

#include "checks.h"
#include "storage.h"

namespace leanmatch {
namespace linear {

class IntegerLinear : public Linear {
public:
    std::size_t scratch_bytes(int T) const override {
        const std::size_t tile = std::size_t(std::min(T, kTile));
        return rounded(tile * quantized_stride(n_)) + 3 * rounded(tile * sizeof(float)) + kernel_scratch(T);
    }

    bool takes_quantized() const override { return true; }

    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        const std::size_t tile = std::size_t(std::min(T, kTile));
        Scratch pieces(scratch);
        QuantizedRows rows{};
        rows.stride = quantized_stride(n_);
        rows.values = pieces.take<std::uint8_t>(tile * rows.stride);
        rows.scale = pieces.take<float>(tile);
        rows.zero = pieces.take<std::int32_t>(tile);
        rows.head_scale = pieces.take<float>(tile);
        for (int t = 0; t < T; t += kTile) {
            const int count = std::min(T - t, kTile);
            quantize(x + std::size_t(t) * std::size_t(n_), count, rows);
            apply({rows.values, rows.scale, rows.zero, rows.stride, rows.head_scale}, count, y + std::size_t(t) * std::size_t(m_),
                  epilogue, t, pieces.rest());
        }
    }

    void run_quantized(const QuantizedRows& x, int T, float* y, const Epilogue& epilogue,
                       void* scratch) const override {
        apply({x.values, x.scale, x.zero, x.stride, x.head_scale}, T, y, epilogue, 0, scratch);
    }

protected:
    IntegerLinear(const char* path, Isa isa, int m, int n) : Linear(path, isa, m, n) {}
    virtual std::size_t kernel_scratch(int) const { return 0; }
    // x and y begin at the call's token `t`, the epilogue's residual at token 0.
    virtual void apply(const Quantized& x, int T, float* y, const Epilogue& epilogue, int t,
                       void* scratch) const = 0;
};

}  // namespace linear
}  // namespace leanmatch

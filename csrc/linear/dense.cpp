// Packing and running dense weights: fp32, bf16, int8.
#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.h"
#include "integer.h"
#include "storage.h"

namespace leanmatch {
namespace linear {

namespace {

// `value(i, j)` of (m, n) into the order of `layout`, `slack` zeros behind it; rows and inputs that do not exist are zero.
std::size_t arranged_size(const Layout& layout, int m, int n) {
    const int groups = (m + layout.lanes - 1) / layout.lanes, steps = (n + layout.depth - 1) / layout.depth;
    return std::size_t(groups) * std::size_t(layout.lanes) * std::size_t(steps) * std::size_t(layout.depth);
}

template <class T, class F>
Buffer<T> arrange(const Layout& layout, int m, int n, F value, int slack = 0) {
    const int groups = (m + layout.lanes - 1) / layout.lanes, steps = (n + layout.depth - 1) / layout.depth;
    Buffer<T> out(arranged_size(layout, m, n) + std::size_t(slack));
    std::size_t at = 0;
    for (int panel = 0; panel < groups; panel += layout.panel)
        for (int step = 0; step < steps; step++)
            for (int group = panel; group < std::min(groups, panel + layout.panel); group++)
                for (int lane = 0; lane < layout.lanes; lane++)
                    for (int d = 0; d < layout.depth; d++, at++) {
                        const int i = group * layout.lanes + lane, j = step * layout.depth + d;
                        if (i < m && j < n) out[at] = value(std::size_t(i), std::size_t(j));
                    }
    return out;
}

constexpr const char* kNotSymmetric = "the code -128 is not symmetric: codes are -127 to 127";

void require_no_overflow(int n) {
    require(n <= kLargestInt8Inputs, "int8 sums of " + std::to_string(n) + " inputs may overflow int32; at most " +
                                         std::to_string(kLargestInt8Inputs));
}

void require_finite(float scale, int row) {
    require(std::isfinite(scale), "row " + std::to_string(row) + " has a weight that is not finite");
}

// A row to codes of -127 to 127; gives its scale, NaN where a weight is no finite number.
float round_row(const float* row, int n, std::int8_t* codes) {
    float largest = 0.0f;
    for (int j = 0; j < n; j++) {
        if (!std::isfinite(row[j])) return std::numeric_limits<float>::quiet_NaN();
        largest = std::max(largest, std::fabs(row[j]));
    }
    const float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    for (int j = 0; j < n; j++)
        codes[j] = std::int8_t(std::nearbyint(std::min(127.0f, std::max(-127.0f, row[j] * inverse))));
    return largest / 127.0f;
}

int padded(int m, const Layout& layout) { return (m + 15) / 16 * 16 + layout.lanes; }

Buffer<float> padded_copy(const float* values, int m, int size) {
    Buffer<float> out(static_cast<std::size_t>(size));
    if (values) std::copy(values, values + m, out.data());
    return out;
}

using DenseF32Kernel = void (*)(const Dense&, const float*, int, float*, const Tail&);
using DenseI8Kernel = void (*)(const Dense&, const Quantized&, int, float*, const Tail&);

class DenseF32 final : public Linear {
public:
    DenseF32(Isa isa, const Layout& layout, DenseF32Kernel kernel, const float* weight, const float* bias, int m,
             int n)
        : Linear("dense_f32", isa, m, n),
          kernel_(kernel),
          packed_(arrange<float>(layout, m, n,
                                 [&](std::size_t i, std::size_t j) { return weight[i * std::size_t(n) + j]; })),
          bias_(padded_copy(bias, m, padded(m, layout))) {}
    std::size_t bytes() const override { return packed_.bytes() + bias_.bytes(); }
    std::size_t scratch_bytes(int) const override { return 0; }
    void run(const float* x, int T, float* y, const Epilogue& epilogue, void*) const override {
        kernel_({m_, n_, packed_.data(), nullptr, nullptr}, x, T, y, tail_at(bias_.data(), epilogue, 0, m_));
    }

private:
    DenseF32Kernel kernel_;
    Buffer<float> packed_, bias_;
};

class DenseI8 final : public IntegerLinear {
public:
    DenseI8(Isa isa, const Layout& layout, DenseI8Kernel kernel, const std::int8_t* q, const float* scale,
            const float* bias, int m, int n)
        : IntegerLinear("dense_i8", isa, m, n),
          kernel_(kernel),
          packed_(arrange<std::int8_t>(layout, m, n,
                                       [&](std::size_t i, std::size_t j) { return q[i * std::size_t(n) + j]; },
                                       isa == Isa::avx512_amx ? kAmxSlack : 0)),
          row_sum_(static_cast<std::size_t>(padded(m, layout))),
          scale_(padded_copy(scale, m, padded(m, layout))),
          bias_(padded_copy(bias, m, padded(m, layout))) {
        for (std::size_t i = 0; i < std::size_t(m); i++)
            for (std::size_t j = 0; j < std::size_t(n); j++) row_sum_[i] += q[i * std::size_t(n) + j];
    }
    std::size_t bytes() const override {
        return packed_.bytes() + row_sum_.bytes() + scale_.bytes() + bias_.bytes();
    }

protected:
    void apply(const Quantized& x, int T, float* y, const Epilogue& epilogue, int t, void*) const override {
        kernel_({m_, n_, packed_.data(), scale_.data(), row_sum_.data()}, x, T, y,
                tail_at(bias_.data(), epilogue, t, m_));
    }

private:
    DenseI8Kernel kernel_;
    Buffer<std::int8_t> packed_;
    Buffer<std::int32_t> row_sum_;
    Buffer<float> scale_, bias_;
};

#if defined(LEANMATCH_WASM_KERNELS)
class DenseI8I16 final : public Linear {
public:
    // Every row is to be set.
    DenseI8I16(Isa isa, const float* bias, int m, int n)
        : Linear("dense_i8_i16", isa, m, n),
          packed_(arranged_size(kDenseI8Wasm, m, n)),
          scale_(std::size_t(padded(m, kDenseI8Wasm))),
          bias_(padded_copy(bias, m, padded(m, kDenseI8Wasm))) {}
    void set_row(int i, const std::int8_t* q, float scale) {
        require(place_row_wasm(q, m_, n_, i, packed_.data()) >= -127, kNotSymmetric);
        scale_[std::size_t(i)] = scale;
    }
    std::size_t bytes() const override { return packed_.bytes() + scale_.bytes() + bias_.bytes(); }
    std::size_t scratch_bytes(int T) const override { return rounded(dense_i8_i16_scratch_wasm(std::min(T, kTile), n_)); }
    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        for (int t = 0; t < T; t += kTile)
            dense_i8_i16_wasm({m_, n_, packed_.data(), scale_.data(), nullptr}, x + std::size_t(t) * std::size_t(n_),
                              std::min(T - t, kTile), y + std::size_t(t) * std::size_t(m_),
                              tail_at(bias_.data(), epilogue, t, m_), scratch);
    }

private:
    Buffer<std::int8_t> packed_;
    Buffer<float> scale_, bias_;
};
#endif

#if defined(LEANMATCH_X86_KERNELS)
std::uint16_t to_bf16(float f) {  // round to nearest even; NaN stays NaN
    std::uint32_t bits;
    std::memcpy(&bits, &f, sizeof(bits));
    if (std::isnan(f)) return std::uint16_t((bits >> 16) | 0x40);
    return std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

using DenseBf16Kernel = void (*)(const Dense&, const float*, int, float*, const Tail&, std::uint16_t*);

class DenseBf16 final : public Linear {
public:
    DenseBf16(Isa isa, DenseBf16Kernel kernel, const float* weight, const float* bias, int m, int n)
        : Linear("dense_bf16", isa, m, n),
          kernel_(kernel),
          packed_(arrange<std::uint16_t>(
              kDenseBf16, m, n,
              [&](std::size_t i, std::size_t j) { return to_bf16(weight[i * std::size_t(n) + j]); })),
          bias_(padded_copy(bias, m, padded(m, kDenseBf16))) {}
    std::size_t bytes() const override { return packed_.bytes() + bias_.bytes(); }
    std::size_t scratch_bytes(int T) const override {
        return rounded(std::size_t(std::min(T, kTile)) * std::size_t(n_ + n_ % 2) * sizeof(std::uint16_t));
    }
    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        for (int t = 0; t < T; t += kTile)
            kernel_({m_, n_, packed_.data(), nullptr, nullptr}, x + std::size_t(t) * std::size_t(n_),
                              std::min(T - t, kTile), y + std::size_t(t) * std::size_t(m_),
                              tail_at(bias_.data(), epilogue, t, m_), static_cast<std::uint16_t*>(scratch));
    }

private:
    DenseBf16Kernel kernel_;
    Buffer<std::uint16_t> packed_;
    Buffer<float> bias_;
};
#endif

}  // namespace

LinearPtr pack_dense_f32(Isa isa, const float* weight, const float* bias, int m, int n) {
    require_isa(isa);
    require_sizes(m, n);
#if defined(LEANMATCH_X86_KERNELS)
    if (isa == Isa::avx2)
        return std::make_unique<DenseF32>(isa, kDenseF32Avx2, dense_f32_avx2, weight, bias, m, n);
    if (isa != Isa::portable)
        return std::make_unique<DenseF32>(Isa::avx512, kDenseF32Avx512, dense_f32_avx512, weight, bias, m, n);
#elif defined(LEANMATCH_NEON_KERNELS)
    if (isa != Isa::portable)
        return std::make_unique<DenseF32>(Isa::neon, kDenseF32Neon, dense_f32_neon, weight, bias, m, n);
#elif defined(LEANMATCH_WASM_KERNELS)
    if (isa != Isa::portable)
        return std::make_unique<DenseF32>(isa, kDenseF32Wasm, dense_f32_wasm, weight, bias, m, n);
#endif
    return std::make_unique<DenseF32>(Isa::portable, kDenseF32Portable, dense_f32_portable, weight, bias, m, n);
}

LinearPtr pack_dense_bf16(Isa isa, const float* weight, const float* bias, int m, int n) {
    require_isa(isa);
    require_sizes(m, n);
#if defined(LEANMATCH_X86_KERNELS)
#if defined(LEANMATCH_AMX_KERNELS)
    if (isa == Isa::avx512_amx) return std::make_unique<DenseBf16>(isa, dense_bf16_amx, weight, bias, m, n);
#endif
    if (isa >= Isa::avx512 && has_bf16())
        return std::make_unique<DenseBf16>(Isa::avx512, dense_bf16_avx512, weight, bias, m, n);
#endif
    (void)weight, (void)bias;
    throw std::invalid_argument(std::string("dense_bf16 needs avx512_bf16 and at least level avx512, not ") +
                                isa_name(isa));
}

LinearPtr pack_dense_i8(Isa isa, const std::int8_t* q, const float* scale, const float* bias, int m, int n) {
    require_isa(isa);
    require_sizes(m, n);
    require_no_overflow(n);
#if defined(LEANMATCH_WASM_KERNELS)
    if (isa != Isa::portable) {
        auto layer = std::make_unique<DenseI8I16>(isa, bias, m, n);
        for (int i = 0; i < m; i++) layer->set_row(i, q + std::size_t(i) * std::size_t(n), scale[i]);
        return layer;
    }
#endif
    require(std::find(q, q + std::size_t(m) * std::size_t(n), std::int8_t(-128)) ==
                q + std::size_t(m) * std::size_t(n),
            kNotSymmetric);
#if defined(LEANMATCH_X86_KERNELS)
#if defined(LEANMATCH_AMX_KERNELS)
    if (isa == Isa::avx512_amx)
        return std::make_unique<DenseI8>(isa, kDenseI8Vnni, dense_i8_amx, q, scale, bias, m, n);
#endif
    if (isa == Isa::avx512_vbmi_vnni)
        return std::make_unique<DenseI8>(isa, kDenseI8Vnni, dense_i8_vnni, q, scale, bias, m, n);
    if (isa != Isa::portable)
        return std::make_unique<DenseI8>(Isa::avx2, kDenseI8Avx2, dense_i8_avx2, q, scale, bias, m, n);
#elif defined(LEANMATCH_NEON_KERNELS)
    if (isa != Isa::portable)
        return std::make_unique<DenseI8>(isa, kDenseI8Neon, isa == Isa::neon ? dense_i8_neon : dense_i8_neon_dotprod, q,
                                         scale, bias, m, n);
#endif
    return std::make_unique<DenseI8>(Isa::portable, kDenseI8Portable, dense_i8_portable, q, scale, bias, m, n);
}

LinearPtr pack_dense_i8(Isa isa, const Rows& row, const float* bias, int m, int n) {
    require_isa(isa);
    require_sizes(m, n);
    require_no_overflow(n);
    Buffer<float> values(static_cast<std::size_t>(n));
#if defined(LEANMATCH_WASM_KERNELS)
    if (isa != Isa::portable) {
        auto layer = std::make_unique<DenseI8I16>(isa, bias, m, n);
        Buffer<std::int8_t> codes(static_cast<std::size_t>(n));
        for (int i = 0; i < m; i++) {
            row(i, values.data());
            const float scale = round_row_wasm(values.data(), n, codes.data());
            require_finite(scale, i);
            layer->set_row(i, codes.data(), scale);
        }
        return layer;
    }
#endif
    Buffer<std::int8_t> q(std::size_t(m) * std::size_t(n));
    Buffer<float> scale(static_cast<std::size_t>(m));
    for (int i = 0; i < m; i++) {
        row(i, values.data());
        scale[std::size_t(i)] = round_row(values.data(), n, q.data() + std::size_t(i) * std::size_t(n));
        require_finite(scale[std::size_t(i)], i);
    }
    return pack_dense_i8(isa, q.data(), scale.data(), bias, m, n);
}

LinearPtr pack_dense_i8(Isa isa, const float* weight, const float* bias, int m, int n) {
    const auto copy = [&](int i, float* values) {
        std::copy_n(weight + std::size_t(i) * std::size_t(n), n, values);
    };
    return pack_dense_i8(isa, copy, bias, m, n);
}

}  // namespace linear
}  // namespace leanmatch

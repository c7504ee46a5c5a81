// Packing and running dense-sparse factors: fp32, and int8 where the table fits registers (sparse_i8.cpp).
#include <algorithm>
#include <cmath>
#include <vector>

#include "checks.h"
#include "sparse.h"
#include "storage.h"

namespace leanmatch {
namespace linear {

void require_factors(const std::uint16_t* indices, int m, int n, int b, int r, int k) {
    require_sizes(m, n);
    require(b >= 1 && n % b == 0,
            "blocks of b=" + std::to_string(b) + " columns do not divide n=" + std::to_string(n));
    require(r >= 1 && r <= 65535, "r=" + std::to_string(r) + " atoms per block: 1 to 65535 are possible");
    require(k >= 1, "k=" + std::to_string(k) + " nonzeros per row and block: at least 1");
    const std::size_t count = std::size_t(m) * std::size_t(n / b) * std::size_t(k);
    for (std::size_t i = 0; i < count; i++)
        if (indices[i] >= r)  // the message costs more than all the rest: only where it is needed
            require(false, "index " + std::to_string(indices[i]) + " at position " + std::to_string(i) +
                                    " names no atom of " + std::to_string(r));
}

namespace {

using SparseF32Kernel = void (*)(const SparseF32&, const float*, int, float*, const Tail&, float*);

constexpr int kChunkBytes = 16384;  // z of one chunk, half of a first-level cache

class DenseSparseF32 final : public Linear {
public:
    DenseSparseF32(Isa isa, int width, SparseF32Kernel kernel, const float* atoms, const std::uint16_t* indices,
                   const float* values, const float* bias, int m, int n, int b, int r, int k)
        : Linear("dense_sparse_f32", isa, m, n),
          width_(width),
          kernel_(kernel),
          atoms_(std::size_t(n) * std::size_t(r)),
          index_(std::size_t(m) * std::size_t(n / b) * std::size_t(k)),
          values_(index_.size()),
          bias_(static_cast<std::size_t>(m + width)) {
        const int blocks = n / b;
        const int row_bytes = kSparseVectors * width * int(sizeof(float));
        const int chunk = std::min({blocks, std::max(1, kChunkBytes / (r * row_bytes)), std::max(1, 65535 / r)});
        std::copy(atoms, atoms + atoms_.size(), atoms_.data());
        if (bias) std::copy(bias, bias + m, bias_.data());
        std::size_t at = 0;
        for (int first = 0; first < blocks; first += chunk)
            for (int row = 0; row < m; row++)
                for (int i = first; i < std::min(blocks, first + chunk); i++)
                    for (int q = 0; q < k; q++, at++) {
                        const std::size_t from =
                            (std::size_t(row) * std::size_t(blocks) + std::size_t(i)) * std::size_t(k) +
                            std::size_t(q);
                        index_[at] = std::uint16_t((i - first) * r + indices[from]);
                        values_[at] = values[from];
                    }
        weights_ = {m, n, b, r, k, chunk, atoms_.data(), index_.data(), values_.data()};
    }
    std::size_t bytes() const override {
        return atoms_.bytes() + index_.bytes() + values_.bytes() + bias_.bytes();
    }
    std::size_t scratch_bytes(int T) const override {
        const int vectors = std::min(kSparseVectors, (T + width_ - 1) / width_);
        return rounded(sparse_f32_floats(weights_, vectors * width_) * sizeof(float));
    }
    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        kernel_(weights_, x, T, y, tail_at(bias_.data(), epilogue, 0, m_), static_cast<float*>(scratch));
    }

private:
    int width_;
    SparseF32Kernel kernel_;
    Buffer<float> atoms_;
    Buffer<std::uint16_t> index_;
    Buffer<float> values_, bias_;
    SparseF32 weights_{};
};

}  // namespace

LinearPtr pack_dense_sparse_f32(Isa isa, const float* atoms, const std::uint16_t* indices, const float* values,
                                const float* bias, int m, int n, int b, int r, int k) {
    require_isa(isa);
    require_factors(indices, m, n, b, r, k);
#if defined(LEANMATCH_X86_KERNELS)
    if (isa == Isa::avx2)
        return std::make_unique<DenseSparseF32>(isa, 8, dense_sparse_f32_avx2, atoms, indices, values, bias, m, n,
                                                b, r, k);
    if (isa != Isa::portable)
        return std::make_unique<DenseSparseF32>(Isa::avx512, 16, dense_sparse_f32_avx512, atoms, indices, values,
                                                bias, m, n, b, r, k);
#elif defined(LEANMATCH_NEON_KERNELS)
    if (isa != Isa::portable)
        return std::make_unique<DenseSparseF32>(Isa::neon, 4, dense_sparse_f32_neon, atoms, indices, values, bias, m, n,
                                                b, r, k);
#elif defined(LEANMATCH_WASM_KERNELS)
    if (isa != Isa::portable)
        return std::make_unique<DenseSparseF32>(isa, 4, dense_sparse_f32_wasm, atoms, indices, values, bias, m, n, b, r, k);
#endif
    return std::make_unique<DenseSparseF32>(Isa::portable, 4, dense_sparse_f32_portable, atoms, indices, values,
                                            bias, m, n, b, r, k);
}

LinearPtr pack_dense_sparse_i8(Isa isa, const std::int8_t* atoms_q, const float* atoms_scale,
                               const std::uint16_t* indices, const std::int8_t* values_q,
                               const float* values_scale, const float* bias, int m, int n, int b, int r, int k,
                               const TableInputs& inputs) {
    require_isa(isa);
    require_factors(indices, m, n, b, r, k);
    require(r <= 128, "dense_sparse_i8 holds at most 128 atoms per block, got r=" + std::to_string(r));
    const std::size_t blocks = std::size_t(n / b), terms = blocks * std::size_t(k);
    require(terms <= 66311,
            "int8 sums of " + std::to_string(terms) + " nonzeros per row may overflow int32; at most 66311");
    const std::size_t atom_count = blocks * std::size_t(r);
    require(std::all_of(atoms_scale, atoms_scale + atom_count, [](float s) { return std::isfinite(s) && s >= 0.0f; }),
            "a scale of an atom is negative or not finite");
    require(inputs.zero >= 1 && inputs.zero <= 254, "the zero point must be 1 to 254, got " + std::to_string(inputs.zero));
    require(inputs.head >= 0 && inputs.head <= n / b, "the head has 0 to " + std::to_string(n / b) + " blocks, got " +
                                                          std::to_string(inputs.head));
    if (inputs.order) {
        std::vector<bool> seen(blocks);
        for (std::size_t i = 0; i < blocks; i++) {
            const std::int32_t at = inputs.order[i];
            require(at >= 0 && std::size_t(at) < blocks && !seen[std::size_t(at)], "the order must name every block once");
            seen[std::size_t(at)] = true;
        }
    }
    const std::size_t atoms_size = std::size_t(n) * std::size_t(r), values_size = std::size_t(m) * terms;
    require(std::find(atoms_q, atoms_q + atoms_size, std::int8_t(-128)) == atoms_q + atoms_size &&
                std::find(values_q, values_q + values_size, std::int8_t(-128)) == values_q + values_size,
            "the code -128 is not symmetric: codes are -127 to 127");
#if defined(LEANMATCH_X86_KERNELS) || defined(LEANMATCH_NEON_KERNELS)
    constexpr std::size_t kMostTableTerms = 33024;  // 127 * terms in two int16, see sparse_i8.cpp
    const bool tables = has_vbmi_vnni(isa) || isa == Isa::neon_dotprod;  // one of them is never this build's
    if (tables && n <= kLargestInt8Inputs && b <= 256 && terms <= kMostTableTerms)
        return make_table_linear(atoms_q, atoms_scale, indices, values_q, values_scale, bias, m, n, b, r, k, inputs);
#endif
    Buffer<float> atoms(atoms_size), values(values_size);
    for (std::size_t i = 0; i < atoms_size; i++) atoms[i] = float(atoms_q[i]) * atoms_scale[i / std::size_t(b)];
    for (std::size_t i = 0; i < values_size; i++) values[i] = float(values_q[i]) * values_scale[i / terms];
    return pack_dense_sparse_f32(isa, atoms.data(), indices, values.data(), bias, m, n, b, r, k);
}

}  // namespace linear
}  // namespace leanmatch

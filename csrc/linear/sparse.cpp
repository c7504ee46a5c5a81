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

void require_codes(const SparseCodes& w, std::size_t atoms, std::size_t values, std::size_t scales) {
    require(std::all_of(w.atoms_scale, w.atoms_scale + scales, [](float s) { return std::isfinite(s) && s >= 0.0f; }),
            "a scale of an atom is negative or not finite");
    require(std::find(w.atoms, w.atoms + atoms, std::int8_t(-128)) == w.atoms + atoms &&
                std::find(w.values, w.values + values, std::int8_t(-128)) == w.values + values,
            "the code -128 is not symmetric: codes are -127 to 127");
}

using SparseF32Kernel = void (*)(const SparseF32&, const float*, int, float*, const Tail&, float*);

constexpr int kChunkBytes = 16384;  // z of one chunk, half of a first-level cache
// The same for dense_sparse_i16. More blocks to a chunk are faster and less exact: MiniLM of 10 MB, one text of 16 tokens, 1 - mean cosine:
// 16,384 3.36 ms 6.5e-5; 8,192 3.50 ms 3.4e-5; 4,096 3.75 ms 1.7e-5.
constexpr int kChunkBytesI16 = 8192;

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

#if defined(LEANMATCH_WASM_KERNELS)
class DenseSparseI16 final : public Linear {
public:
    DenseSparseI16(Isa isa, const SparseCodes& w, const float* bias, int m, int n, int b, int r, int k)
        : Linear("dense_sparse_i16", isa, m, n),
          atoms_(std::size_t(n) * std::size_t(r)),
          atom_scale_(std::size_t(n / b) * std::size_t(r)),
          norm_(std::size_t(n / b)),
          place_(std::size_t(sparse_i16_rows(m)) * std::size_t(n / b) * std::size_t(k)),
          codes_(place_.size()),
          scale_(std::size_t(sparse_i16_rows(m))),
          factor_(scale_.size()),
          bias_(std::size_t(sparse_i16_rows(m))) {
        const int blocks = n / b, chunk = std::min(blocks, std::max(1, kChunkBytesI16 / (r * kSparseI16Bytes)));
        for (std::size_t i = 0; i < atoms_.size(); i++) atoms_[i] = w.atoms[i];
        std::copy_n(w.atoms_scale, atom_scale_.size(), atom_scale_.data());
        if (bias) std::copy_n(bias, m, bias_.data());
        for (std::size_t i = 0; i < std::size_t(blocks); i++)
            for (std::size_t a = i * std::size_t(r); a < (i + 1) * std::size_t(r); a++)
                norm_[i] = std::max(norm_[i], norm_of(w.atoms + a * std::size_t(b), b) * w.atoms_scale[a]);
        row_norm_ = Buffer<float>(std::size_t((blocks + chunk - 1) / chunk));
        set_scales(w, blocks, chunk, b, r, k);
        for (int first = 0; first < blocks; first += chunk) place_chunk(w, first, std::min(chunk, blocks - first), blocks, r, k);
        weights_ = {m, n, b, r, k, chunk, atoms_.data(), atom_scale_.data(), norm_.data(), row_norm_.data(), place_.data(), codes_.data(),
                    scale_.data()};
    }
    std::size_t bytes() const override {
        return atoms_.bytes() + atom_scale_.bytes() + norm_.bytes() + row_norm_.bytes() + place_.bytes() + codes_.bytes() +
               scale_.bytes() + bias_.bytes();
    }
    std::size_t scratch_bytes(int) const override { return rounded(dense_sparse_i16_scratch_wasm(weights_)); }
    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        dense_sparse_i16_wasm(weights_, x, T, y, tail_at(bias_.data(), epilogue, 0, m_), scratch);
    }

private:
    static float norm_of(const std::int8_t* atom, int b) {
        int squares = 0;
        for (int j = 0; j < b; j++) squares += atom[j] * atom[j];
        return std::sqrt(float(squares));
    }

    // A row's codes times 256, or less: rows whose product has a large norm are brought to the smallest norm, but not below a quarter
    // of the largest. scale_: what that makes of the row's scale.
    void set_scales(const SparseCodes& w, int blocks, int chunk, int b, int r, int k) {
        const std::size_t chunks = row_norm_.size(), terms = std::size_t(blocks) * std::size_t(k);
        Buffer<float> squares(std::size_t(m_) * chunks);
        float least = INFINITY, most = 0.0f;
        for (std::size_t row = 0; row < std::size_t(m_); row++) {
            float total = 0.0f;
            for (std::size_t c = 0; c < chunks; c++) {
                const int first = int(c) * chunk, atom = first * r;
                const std::size_t at = row * terms + std::size_t(first * k);
                const float part = sparse_row_squares_wasm(atoms_.data() + std::size_t(atom) * std::size_t(b), atom_scale_.data() + atom,
                                                           w.indices + at, w.values + at, std::min(chunk, blocks - first), b, r, k);
                squares[row * chunks + c] = part;
                total += part;
            }
            scale_[row] = std::sqrt(total) / 128.0f;  // its norm, until it is a scale
            if (total > 0.0f) least = std::min(least, scale_[row]);
            most = std::max(most, scale_[row]);
        }
        const float wanted = std::max(std::min(least, most), most / 4.0f);
        for (std::size_t row = 0; row < std::size_t(m_); row++) {
            const float factor = scale_[row] > wanted ? wanted / scale_[row] : 1.0f;
            for (std::size_t c = 0; c < chunks; c++)
                row_norm_[c] = std::max(row_norm_[c], std::sqrt(squares[row * chunks + c]) / 128.0f * factor);
            factor_[row] = 256.0f * factor;
            scale_[row] = w.values_scale[row] * 128.0f / factor;
        }
    }

    void place_chunk(const SparseCodes& w, int first, int count, int blocks, int r, int k) {
        constexpr std::size_t together = kSparseI16Together;
        const std::size_t terms = std::size_t(count) * std::size_t(k), before = std::size_t(first) * std::size_t(k);
        std::uint16_t* place = place_.data() + before * std::size_t(sparse_i16_rows(m_));
        std::int16_t* codes = codes_.data() + before * std::size_t(sparse_i16_rows(m_));
        for (std::size_t row = 0; row < std::size_t(m_); row++) {
            const std::size_t from = row * std::size_t(blocks) * std::size_t(k) + before;
            const std::size_t to = row / together * together * terms + row % together;
            place_row(w.indices + from, w.values + from, count, r, k, factor_[row], place + to, codes + to);
        }
    }

    [[gnu::noinline]] static void place_row(const std::uint16_t* indices, const std::int8_t* values, int count, int r, int k,
                                            float factor, std::uint16_t* place, std::int16_t* codes) {
        for (int i = 0, base = 0; i < count; i++, base += r) {
            for (int q = 0; q < k; q++, indices++, values++, place += kSparseI16Together, codes += kSparseI16Together) {
                *place = std::uint16_t((base + *indices) * kSparseI16Bytes);
                *codes = std::int16_t(std::nearbyint(float(*values) * factor));
            }
        }
    }

    Buffer<std::int16_t> atoms_;
    Buffer<float> atom_scale_, norm_, row_norm_;
    Buffer<std::uint16_t> place_;
    Buffer<std::int16_t> codes_;
    Buffer<float> scale_, factor_, bias_;
    SparseI16 weights_{};
};
#endif

}  // namespace

bool runs_dense_sparse_i16(Isa isa, int m, int n, int b, int r, int k) {
    if (isa != Isa::wasm || b % 2 != 0 || b > 512 || r * kSparseI16Bytes > 65536 || n / b * k > 8192) return false;
    const double terms = double(m) * (n / b) * k, stage1 = double(n) * r;
    return 2.0 * (terms + stage1) <= double(m) * n;
}

LinearPtr pack_dense_sparse_i16(Isa isa, const SparseCodes& w, [[maybe_unused]] const float* bias, int m, int n, int b,
                                int r, int k) {
    require_isa(isa);
    require_factors(w.indices, m, n, b, r, k);
    require(runs_dense_sparse_i16(isa, m, n, b, r, k), "dense_sparse_i16 does not run these sizes at this level");
    require_codes(w, std::size_t(n) * std::size_t(r), std::size_t(m) * std::size_t(n / b) * std::size_t(k),
                  std::size_t(n / b) * std::size_t(r));
#if defined(LEANMATCH_WASM_KERNELS)
    return std::make_unique<DenseSparseI16>(isa, w, bias, m, n, b, r, k);
#else
    return nullptr;
#endif
}

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
    require_codes({atoms_q, atoms_scale, indices, values_q, values_scale}, atoms_size, values_size, blocks * std::size_t(r));
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

#include "linear.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "cpu/features.h"
#include "checks.h"
#include "storage.h"

namespace leanmatch {
namespace linear {

namespace {

constexpr const char* kNames[kIsas] = {"portable", "avx2", "avx512", "avx512_vbmi_vnni", "avx512_amx", "neon", "neon_dotprod", "wasm"};

bool usable(const Features& features, const std::string& name) {
    for (const auto& [feature, present] : features)
        if (feature == name) return present;
    return false;
}

}  // namespace

bool runs(Isa isa) {
    if (isa == Isa::portable) return true;
    static const Features features = cpu_features();
    for (const Level& level : levels())
        if (level.name == isa_name(isa))
            return std::all_of(level.needs.begin(), level.needs.end(),
                               [&](const std::string& name) { return usable(features, name); });
    return false;  // a level of another architecture
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa isa_from_name(const char* name) {
    for (int i = 0; i < kIsas; i++)
        if (std::strcmp(name, kNames[i]) == 0) return static_cast<Isa>(i);
    throw std::invalid_argument(std::string("no level is named '") + name + "'");
}

bool has_vbmi_vnni(Isa isa) { return isa == Isa::avx512_vbmi_vnni || isa == Isa::avx512_amx; }

bool has_bf16() {
#if defined(LEANMATCH_X86_KERNELS)
    static const bool present = runs(Isa::avx512) && usable(cpu_features(), "avx512_bf16");
    return present;
#else
    return false;
#endif
}

void require_isa(Isa isa) {
    require(runs(isa), std::string("this CPU or this build cannot run kernels of level ") + isa_name(isa));
}

std::size_t quantized_stride(int n) { return rounded(std::size_t(n) + 3); }

int quantized_max(Isa isa) { return isa == Isa::avx2 || isa == Isa::avx512 ? 127 : 255; }

void quantize_rows(Isa isa, const float* x, int T, int n, const QuantizedRows& out) {
#if defined(LEANMATCH_X86_KERNELS)
    if (has_vbmi_vnni(isa))
        return quantize_rows_vnni(x, T, n, out.values, out.scale, out.zero, out.stride);
    if (isa != Isa::portable) return quantize_rows_avx2(x, T, n, out.values, out.scale, out.zero, out.stride);
#elif defined(LEANMATCH_NEON_KERNELS)
    if (isa != Isa::portable) return quantize_rows_neon(x, T, n, out.values, out.scale, out.zero, out.stride);
#endif
    (void)isa;
    quantize_rows_portable(x, T, n, out.values, out.scale, out.zero, out.stride);
}

void Linear::quantize(const float* x, int T, const QuantizedRows& out) const { quantize_rows(isa_, x, T, n_, out); }

void Linear::run_quantized(const QuantizedRows&, int, float*, const Epilogue&, void*) const {
    throw std::logic_error(std::string(path_) + " takes fp32 activations only");
}

namespace {

class LowRank final : public Linear {
public:
    LowRank(LinearPtr left, LinearPtr right)
        : Linear("low_rank", left->isa(), left->outputs(), right->inputs()),
          left_(std::move(left)),
          right_(std::move(right)) {}

    std::size_t bytes() const override { return left_->bytes() + right_->bytes(); }

    std::size_t scratch_bytes(int T) const override {
        const int tile = std::min(T, kTile);
        return rounded(std::size_t(tile) * std::size_t(right_->outputs()) * sizeof(float)) +
               std::max(left_->scratch_bytes(tile), right_->scratch_bytes(tile));
    }

    bool takes_quantized() const override { return right_->takes_quantized(); }
    bool own_rows() const override { return right_->own_rows(); }
    void quantize(const float* x, int T, const QuantizedRows& out) const override { right_->quantize(x, T, out); }

    void run(const float* x, int T, float* y, const Epilogue& epilogue, void* scratch) const override {
        tiles(T, y, epilogue, scratch, [&](int t, int count, float* middle, void* rest) {
            right_->run(x + std::size_t(t) * std::size_t(n_), count, middle, Epilogue{}, rest);
        });
    }

    void run_quantized(const QuantizedRows& x, int T, float* y, const Epilogue& epilogue,
                       void* scratch) const override {
        tiles(T, y, epilogue, scratch, [&](int t, int count, float* middle, void* rest) {
            right_->run_quantized({x.values + std::size_t(t) * x.stride, x.scale + t, x.zero + t, x.stride,
                                   x.head_scale ? x.head_scale + t : nullptr}, count,
                                  middle, Epilogue{}, rest);
        });
    }

private:
    template <class Right>
    void tiles(int T, float* y, const Epilogue& epilogue, void* scratch, Right right) const {
        Scratch pieces(scratch);
        float* middle = pieces.take<float>(std::size_t(std::min(T, kTile)) * std::size_t(right_->outputs()));
        for (int t = 0; t < T; t += kTile) {
            const int count = std::min(T - t, kTile);
            right(t, count, middle, pieces.rest());
            const std::size_t at = std::size_t(t) * std::size_t(m_);
            left_->run(middle, count, y + at,
                       {epilogue.activation, epilogue.residual ? epilogue.residual + at : nullptr}, pieces.rest());
        }
    }

    LinearPtr left_, right_;
};

}  // namespace

LinearPtr pack_low_rank(LinearPtr left, LinearPtr right) {
    require(left && right, "low rank needs both factors");
    require(left->inputs() == right->outputs(), "left takes " + std::to_string(left->inputs()) +
                                                    " inputs, right gives " + std::to_string(right->outputs()));
    return std::make_unique<LowRank>(std::move(left), std::move(right));
}

}  // namespace linear
}  // namespace leanmatch

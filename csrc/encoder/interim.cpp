#include <vector>
#include <cmath>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include "../linear/linear.h"
namespace nb = nanobind;
namespace leanmatch { namespace linear {
void Linear::run_quantized(const QuantizedRows&, int, float*, const Epilogue&, void*) const {}
std::size_t quantized_stride(int n) { return (n + 3 + 63) / 64 * 64; }
void quantize_rows(Isa, const float*, int, int, const QuantizedRows&) {}
class Plain : public Linear {
public:
    std::vector<float> w, b;
    Plain(const float* W, const float* B, int m, int n) : Linear("dense_f32", Isa::portable, m, n), w(W, W + size_t(m) * n), b(m) { if (B) b.assign(B, B + m); }
    std::size_t bytes() const override { return w.size() * 4; }
    std::size_t scratch_bytes(int) const override { return 0; }
    void run(const float* x, int T, float* y, const Epilogue& e, void*) const override {
        for (int t = 0; t < T; ++t) for (int i = 0; i < m_; ++i) {
            float s0 = 0, s1 = 0, s2 = 0, s3 = 0; const float* a = x + size_t(t) * n_; const float* c = w.data() + size_t(i) * n_;
            for (int j = 0; j < n_ / 4 * 4; j += 4) { s0 += a[j] * c[j]; s1 += a[j+1] * c[j+1]; s2 += a[j+2] * c[j+2]; s3 += a[j+3] * c[j+3]; }
            for (int j = n_ / 4 * 4; j < n_; ++j) s0 += a[j] * c[j];
            float v = s0 + s1 + s2 + s3 + b[i];
            if (e.activation == Activation::relu) v = v > 0 ? v : 0;
            if (e.activation == Activation::gelu) v = 0.5f * v * (1 + std::erf(v * 0.70710678f));
            if (e.residual) v += e.residual[size_t(t) * m_ + i];
            y[size_t(t) * m_ + i] = v;
        }
    }
};
}}
void bind_interim(nb::module_& m) {
    using namespace leanmatch::linear;
    nb::class_<Linear>(m, "Linear");
    m.def("pack_dense_f32", [](nb::ndarray<const float, nb::numpy, nb::ndim<2>, nb::c_contig> w, nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig> b) -> std::shared_ptr<Linear> {
        return std::make_shared<Plain>(w.data(), b.data(), int(w.shape(0)), int(w.shape(1)));
    });
}

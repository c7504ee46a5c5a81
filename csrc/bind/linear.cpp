// leanmatch._native.linear: packed linear layers for src/leanmatch/runtime and benchmarks/native_linear.py.
#include "linear.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <chrono>
#include <ctime>
#include <memory>
#include <optional>
#include <stdexcept>

#include "linear/linear.h"
#include "linear/peaks.h"
#include "linear/storage.h"

namespace nb = nanobind;
namespace lin = leanmatch::linear;

namespace {

template <class T, int D>
using In = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T, int D>
using Out = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
using Bias = std::optional<In<float, 1>>;
using Residual = std::optional<In<float, 2>>;

using Packed = PackedLinear;

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

const float* bias_of(const Bias& bias, std::size_t m) {
    if (!bias) return nullptr;
    require(bias->shape(0) == m, "bias has not as many elements as there are outputs");
    return bias->data();
}

template <class Array>
int axis(const Array& array, std::size_t i) {
    require(array.shape(i) < (1u << 31), "an axis is longer than 2^31 - 1");
    return static_cast<int>(array.shape(i));
}

struct Factors {
    int m, n, b, r, k;
};

template <class A, class C>
Factors factors_of(const In<A, 3>& atoms, const In<std::uint16_t, 3>& indices, const In<C, 3>& values) {
    require(atoms.shape(0) == indices.shape(1), "atoms and indices have not the same number of blocks");
    require(indices.shape(0) == values.shape(0) && indices.shape(1) == values.shape(1) &&
                indices.shape(2) == values.shape(2),
            "indices and values have not the same shape");
    require(atoms.shape(0) * atoms.shape(2) < (1u << 31), "there are more than 2^31 - 1 inputs");
    return {axis(indices, 0), static_cast<int>(atoms.shape(0) * atoms.shape(2)), axis(atoms, 2), axis(atoms, 1),
            axis(indices, 2)};
}

void* scratch_for(std::size_t bytes) {  // of this thread, kept between calls
    thread_local lin::Buffer<unsigned char> memory;
    if (memory.size() < bytes) memory = lin::Buffer<unsigned char>(bytes);
    return memory.data();
}

lin::Epilogue epilogue_of(const lin::Linear& layer, const Out<float, 2>& y, const std::string& activation,
                          const Residual& residual) {
    lin::Epilogue epilogue;
    if (activation == "gelu") epilogue.activation = lin::Activation::gelu;
    else if (activation == "relu") epilogue.activation = lin::Activation::relu;
    else require(activation == "none", "activation is none of: none, relu, gelu");
    require(y.shape(1) == std::size_t(layer.outputs()), "y has not as many columns as there are outputs");
    if (residual) {
        require(residual->shape(0) == y.shape(0) && residual->shape(1) == y.shape(1),
                "residual has not the shape of y");
        epilogue.residual = residual->data();
    }
    return epilogue;
}

void run(const Packed& packed, const In<float, 2>& x, const Out<float, 2>& y, const std::string& activation,
         const Residual& residual) {
    const lin::Linear& layer = packed.get();
    const lin::Epilogue epilogue = epilogue_of(layer, y, activation, residual);
    require(x.shape(1) == std::size_t(layer.inputs()), "x has not as many columns as there are inputs");
    require(x.shape(0) == y.shape(0), "x and y have not the same number of rows");
    const int T = axis(x, 0);
    nb::gil_scoped_release release;
    layer.run(x.data(), T, y.data(), epilogue, scratch_for(layer.scratch_bytes(T)));
}

// Quantized rows as four arrays: values (T, stride), scale (T,), zero (T,), scale of the head (T,).
template <class U8, class F32, class I32>
int rows_of(const U8& values, const F32& scale, const I32& zero, const F32& head_scale, int n) {
    require(values.shape(1) >= lin::quantized_stride(n), "values has fewer columns than quantized_stride(n)");
    require(scale.shape(0) == values.shape(0) && zero.shape(0) == values.shape(0) &&
                head_scale.shape(0) == values.shape(0),
            "values, scales and zero differ in rows");
    require(values.shape(0) < (1u << 31), "there are more than 2^31 - 1 rows");
    return static_cast<int>(values.shape(0));
}

void quantize(const std::string& level, const In<float, 2>& x, const Out<std::uint8_t, 2>& values,
              const Out<float, 1>& scale, const Out<std::int32_t, 1>& zero) {
    const int T = rows_of(values, scale, zero, scale, axis(x, 1));
    require(x.shape(0) == values.shape(0), "x and values differ in rows");
    const lin::Isa isa = lin::isa_from_name(level.c_str());
    nb::gil_scoped_release release;
    lin::quantize_rows(isa, x.data(), T, static_cast<int>(x.shape(1)),
                       {values.data(), scale.data(), zero.data(), values.shape(1)});
}

void quantize_for(const Packed& packed, const In<float, 2>& x, const Out<std::uint8_t, 2>& values,
                  const Out<float, 1>& scale, const Out<std::int32_t, 1>& zero, const Out<float, 1>& head_scale) {
    const lin::Linear& layer = packed.get();
    require(layer.takes_quantized(), "this path takes fp32 activations only");
    require(x.shape(1) == std::size_t(layer.inputs()), "x has not as many columns as there are inputs");
    const int T = rows_of(values, scale, zero, head_scale, axis(x, 1));
    require(x.shape(0) == values.shape(0), "x and values differ in rows");
    nb::gil_scoped_release release;
    layer.quantize(x.data(), T, {values.data(), scale.data(), zero.data(), values.shape(1), head_scale.data()});
}

void run_quantized(const Packed& packed, const Out<std::uint8_t, 2>& values, const Out<float, 1>& scale,
                   const Out<std::int32_t, 1>& zero, const Out<float, 1>& head_scale, const Out<float, 2>& y,
                   const std::string& activation, const Residual& residual) {
    const lin::Linear& layer = packed.get();
    require(layer.takes_quantized(), "this path takes fp32 activations only");
    const lin::Epilogue epilogue = epilogue_of(layer, y, activation, residual);
    const int T = rows_of(values, scale, zero, head_scale, layer.inputs());
    require(y.shape(0) == values.shape(0), "values and y have not the same number of rows");
    nb::gil_scoped_release release;
    layer.run_quantized({values.data(), scale.data(), zero.data(), values.shape(1), head_scale.data()}, T, y.data(), epilogue,
                        scratch_for(layer.scratch_bytes(T)));
}

// Processor time of this thread where the system keeps it, so that other programs' turns do not count; else time.
double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    timespec now{};
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0) return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds that each of `repeats` calls takes on average, without Python's share.
template <class Call>
double seconds_per_call(int repeats, Call call) {
    require(repeats >= 1, "repeats must be at least 1");
    nb::gil_scoped_release release;
    const double start = thread_seconds();
    for (int i = 0; i < repeats; i++) call();
    return (thread_seconds() - start) / repeats;
}

double measure(const Packed& packed, const In<float, 2>& x, const Out<float, 2>& y, const std::string& activation,
               bool quantized, int repeats) {
    const lin::Linear& layer = packed.get();
    const lin::Epilogue epilogue = epilogue_of(layer, y, activation, std::nullopt);
    require(x.shape(1) == std::size_t(layer.inputs()) && x.shape(0) == y.shape(0),
            "x and y have not the layer's shape");
    require(!quantized || layer.takes_quantized(), "this path takes fp32 activations only");
    const int T = axis(x, 0);
    void* scratch = scratch_for(layer.scratch_bytes(T));
    if (!quantized) return seconds_per_call(repeats, [&] { layer.run(x.data(), T, y.data(), epilogue, scratch); });
    const std::size_t stride = lin::quantized_stride(layer.inputs());
    lin::Buffer<std::uint8_t> values(stride * std::size_t(T));
    lin::Buffer<float> scale{std::size_t(T)}, head_scale{std::size_t(T)};
    lin::Buffer<std::int32_t> zero{std::size_t(T)};
    const lin::QuantizedRows rows{values.data(), scale.data(), zero.data(), stride, head_scale.data()};
    layer.quantize(x.data(), T, rows);
    return seconds_per_call(repeats, [&] { layer.run_quantized(rows, T, y.data(), epilogue, scratch); });
}

}  // namespace

void bind_linear(nb::module_& native) {
    nb::module_ module =
        native.def_submodule("linear", "Packed linear layers; leanmatch.runtime packs them.");
    nb::class_<Packed>(module, "Linear")
        .def_prop_ro("path", [](const Packed& p) { return p.get().path(); })
        .def_prop_ro("level", [](const Packed& p) { return lin::isa_name(p.get().isa()); })
        .def_prop_ro("shape", [](const Packed& p) { return nb::make_tuple(p.get().outputs(), p.get().inputs()); })
        .def_prop_ro("bytes", [](const Packed& p) { return p.get().bytes(); })
        .def_prop_ro("takes_quantized", [](const Packed& p) { return p.get().takes_quantized(); })
        .def("run", &run, nb::arg("x"), nb::arg("y"), nb::arg("activation"), nb::arg("residual").none())
        .def("measure", &measure, nb::arg("x"), nb::arg("y"), nb::arg("activation"), nb::arg("quantized"),
             nb::arg("repeats"))
        .def_prop_ro("own_rows", [](const Packed& p) { return p.get().own_rows(); })
        .def("quantize", &quantize_for, nb::arg("x"), nb::arg("values"), nb::arg("scale"), nb::arg("zero"),
             nb::arg("head_scale"))
        .def("run_quantized", &run_quantized, nb::arg("values"), nb::arg("scale"), nb::arg("zero"),
             nb::arg("head_scale"), nb::arg("y"), nb::arg("activation"), nb::arg("residual").none());

    module.def("has_bf16", &lin::has_bf16, "Whether dense_bf16 runs here, from level avx512 on.");
    module.def("quantized_stride", &lin::quantized_stride, nb::arg("n"));
    module.def(
        "quantized_max",
        [](const std::string& level) { return lin::quantized_max(lin::isa_from_name(level.c_str())); },
        nb::arg("level"));
    module.def("quantize", &quantize, nb::arg("level"), nb::arg("x"), nb::arg("values"), nb::arg("scale"),
               nb::arg("zero"));
    module.def(
        "peaks",
        [](const std::string& level) {
            nb::dict out;
            for (const lin::Peak& peak : lin::measure_peaks(lin::isa_from_name(level.c_str())))
                out[peak.name] = peak.nanoseconds;
            return out;
        },
        nb::arg("level"), "Nanoseconds of an instruction in registers or of a load, measured now; for rooflines.");

    module.def(
        "dense_f32",
        [](const std::string& level, const In<float, 2>& weight, const Bias& bias) {
            return Packed{lin::pack_dense_f32(lin::isa_from_name(level.c_str()), weight.data(),
                                              bias_of(bias, weight.shape(0)), axis(weight, 0), axis(weight, 1))};
        },
        nb::arg("level"), nb::arg("weight"), nb::arg("bias").none());
    module.def(
        "dense_bf16",
        [](const std::string& level, const In<float, 2>& weight, const Bias& bias) {
            return Packed{lin::pack_dense_bf16(lin::isa_from_name(level.c_str()), weight.data(),
                                               bias_of(bias, weight.shape(0)), axis(weight, 0), axis(weight, 1))};
        },
        nb::arg("level"), nb::arg("weight"), nb::arg("bias").none());
    module.def(
        "dense_i8",
        [](const std::string& level, const In<float, 2>& weight, const Bias& bias) {
            return Packed{lin::pack_dense_i8(lin::isa_from_name(level.c_str()), weight.data(),
                                             bias_of(bias, weight.shape(0)), axis(weight, 0), axis(weight, 1))};
        },
        nb::arg("level"), nb::arg("weight"), nb::arg("bias").none());
    module.def(
        "dense_i8_codes",
        [](const std::string& level, const In<std::int8_t, 2>& q, const In<float, 1>& scale, const Bias& bias) {
            require(scale.shape(0) == q.shape(0), "scale has not one element per row");
            return Packed{lin::pack_dense_i8(lin::isa_from_name(level.c_str()), q.data(), scale.data(),
                                             bias_of(bias, q.shape(0)), axis(q, 0), axis(q, 1))};
        },
        nb::arg("level"), nb::arg("q"), nb::arg("scale"), nb::arg("bias").none());
    module.def(
        "dense_sparse_f32",
        [](const std::string& level, const In<float, 3>& atoms, const In<std::uint16_t, 3>& indices,
           const In<float, 3>& values, const Bias& bias) {
            const Factors f = factors_of(atoms, indices, values);
            return Packed{lin::pack_dense_sparse_f32(lin::isa_from_name(level.c_str()), atoms.data(),
                                                     indices.data(), values.data(),
                                                     bias_of(bias, indices.shape(0)), f.m, f.n, f.b, f.r, f.k)};
        },
        nb::arg("level"), nb::arg("atoms"), nb::arg("indices"), nb::arg("values"), nb::arg("bias").none());
    module.def(
        "dense_sparse_i8",
        [](const std::string& level, const In<std::int8_t, 3>& atoms_q, const In<float, 2>& atoms_scale,
           const In<std::uint16_t, 3>& indices, const In<std::int8_t, 3>& values_q,
           const In<float, 1>& values_scale, const Bias& bias, int zero, const std::optional<In<std::int32_t, 1>>& order,
           int head, bool choose) {
            const Factors f = factors_of(atoms_q, indices, values_q);
            require(atoms_scale.shape(0) == atoms_q.shape(0) && atoms_scale.shape(1) == atoms_q.shape(1),
                    "atoms_scale has not one element per atom");
            require(values_scale.shape(0) == values_q.shape(0), "values_scale has not one element per row");
            require(!order || order->shape(0) == atoms_q.shape(0), "order has not one element per block");
            return Packed{lin::pack_dense_sparse_i8(
                lin::isa_from_name(level.c_str()), atoms_q.data(), atoms_scale.data(), indices.data(),
                values_q.data(), values_scale.data(), bias_of(bias, indices.shape(0)), f.m, f.n, f.b, f.r, f.k,
                {zero, order ? order->data() : nullptr, head, choose})};
        },
        nb::arg("level"), nb::arg("atoms_q"), nb::arg("atoms_scale"), nb::arg("indices"), nb::arg("values_q"),
        nb::arg("values_scale"), nb::arg("bias").none(), nb::arg("zero"), nb::arg("order").none(), nb::arg("head"), nb::arg("choose"));
    module.def(
        "low_rank",
        [](Packed& left, Packed& right) {
            if (left.get().inputs() != right.get().outputs() || &left == &right || !left.layer || !right.layer)
                throw std::invalid_argument("left takes not as many inputs as right has outputs");
            return Packed{lin::pack_low_rank(std::move(left.layer), std::move(right.layer))};
        },
        nb::arg("left"), nb::arg("right"), "Takes both layers away from their objects.");
}

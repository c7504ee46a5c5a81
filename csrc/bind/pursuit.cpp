// leanmatch._native.pursue, decode, decode_backward. Arrays are checked here, options in factorization/pursuit.py.
#include "pursuit.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "pursuit/pursuit.h"

namespace nb = nanobind;

namespace leanmatch {

namespace {

template <class T, int kAxes>
using Array = nb::ndarray<T, nb::ndim<kAxes>, nb::c_contig, nb::device::cpu>;
using Floats2 = Array<float, 2>;
using Floats3 = Array<float, 3>;
using ConstFloats2 = Array<const float, 2>;
using ConstFloats3 = Array<const float, 3>;
using AnyIndices = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using ConstIndices = nb::ndarray<nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

const PursuitKernels& kernels_of(const std::string& level) {
    const PursuitKernels* found = pursuit_kernels(level.c_str());
    if (found == nullptr) throw std::invalid_argument("no pursuit kernels of the level " + level);
    return *found;
}

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

template <class Indices>
bool is_wide(const Indices& indices) {
    const bool narrow = indices.dtype() == nb::dtype<std::uint8_t>();
    require(narrow || indices.dtype() == nb::dtype<std::uint16_t>(), "indices must be uint8 or uint16");
    return !narrow;
}

template <class Index>
bool all_below(const void* indices, std::size_t size, std::size_t limit) {
    Index largest = 0;
    for (std::size_t i = 0; i < size; ++i) {
        const Index index = static_cast<const Index*>(indices)[i];
        largest = index > largest ? index : largest;
    }
    return size == 0 || largest < limit;
}

void require_below(const void* indices, bool wide, std::size_t size, std::size_t limit) {
    require(wide ? all_below<std::uint16_t>(indices, size, limit) : all_below<std::uint8_t>(indices, size, limit),
            "an index is not below the number of atoms");
}

bool pursue_arrays(const std::string& level, const ConstFloats2& weight, const ConstFloats3& atoms,
                   const nb::object& indices_or_none, const Floats3& values, const Floats2& errors,
                   const nb::object& support_or_none, bool gain, std::size_t beam, std::size_t threads) {
    const PursuitKernels& kernels = kernels_of(level);
    const std::size_t m = values.shape(0), blocks = values.shape(1), k = values.shape(2);
    PursuitJob job{};
    job.weight = weight.data();
    job.atoms = atoms.data();
    job.rows = m;
    job.blocks = blocks;
    job.atom_count = atoms.shape(1);
    job.width = atoms.shape(2);
    job.nonzeros = k;
    job.selection = gain ? Selection::gain : Selection::correlation;
    job.beam = beam;
    const bool refit = indices_or_none.is_none();
    job.values = values.data();
    require(threads >= 1, "threads must be at least 1");
    require(weight.shape(0) == m && weight.shape(1) == blocks * job.width, "weight must be (m, B b)");
    require(atoms.shape(0) == blocks && k >= 1 && k <= job.atom_count && job.width >= 1,
            "atoms must be (B, r, b) with r at least k");
    require(beam >= 1 && (beam == 1 || (gain && k <= kMostBeamNonzeros)), "a beam goes by gain, up to 64 nonzeros");
    require(refit != support_or_none.is_none(), "either indices or support must be given");
    if (!refit) {
        const AnyIndices indices = nb::cast<AnyIndices>(indices_or_none, false);
        require(indices.shape(0) == m && indices.shape(1) == blocks && indices.shape(2) == k, "indices: (m, B, k)");
        job.wide = is_wide(indices);
        job.indices = indices.data();
        require(job.atom_count <= (job.wide ? 65536u : 256u), "too many atoms for the dtype of indices");
    }
    require(errors.shape(0) == m && errors.shape(1) == blocks, "errors must be (m, B)");
    job.errors = errors.data();
    if (refit) {
        const ConstIndices support = nb::cast<ConstIndices>(support_or_none, false);
        job.wide = is_wide(support);
        require(support.shape(0) == m && support.shape(1) == blocks && support.shape(2) == k, "support: (m, B, k)");
        job.support = support.data();
    }
    nb::gil_scoped_release release;
    if (refit) require_below(job.support, job.wide, m * blocks * k, job.atom_count);
    return pursue(kernels, job, threads);
}

DecodeJob decode_job(const ConstIndices& indices, const ConstFloats3& values, const ConstFloats3& atoms) {
    DecodeJob job{};
    job.indices = indices.data();
    job.wide = is_wide(indices);
    job.values = values.data();
    job.atoms = atoms.data();
    job.rows = values.shape(0);
    job.blocks = values.shape(1);
    job.nonzeros = values.shape(2);
    job.atom_count = atoms.shape(1);
    job.width = atoms.shape(2);
    require(indices.shape(0) == job.rows && indices.shape(1) == job.blocks && indices.shape(2) == job.nonzeros,
            "indices and values must both be (m, B, k)");
    require(atoms.shape(0) == job.blocks, "atoms must be (B, r, b)");
    return job;
}

void decode_arrays(const std::string& level, const ConstIndices& indices, const ConstFloats3& values,
                   const ConstFloats3& atoms, const Floats2& weight, std::size_t threads) {
    const PursuitKernels& kernels = kernels_of(level);
    const DecodeJob job = decode_job(indices, values, atoms);
    require(threads >= 1, "threads must be at least 1");
    require(weight.shape(0) == job.rows && weight.shape(1) == job.blocks * job.width, "weight must be (m, B b)");
    nb::gil_scoped_release release;
    require_below(job.indices, job.wide, job.rows * job.blocks * job.nonzeros, job.atom_count);
    decode(kernels, job, weight.data(), threads);
}

void decode_backward_arrays(const std::string& level, const ConstFloats2& gradient, const ConstIndices& indices,
                            const ConstFloats3& values, const ConstFloats3& atoms, const Floats3& d_values,
                            const Floats3& d_atoms, std::size_t threads) {
    const PursuitKernels& kernels = kernels_of(level);
    const DecodeJob job = decode_job(indices, values, atoms);
    require(threads >= 1, "threads must be at least 1");
    require(gradient.shape(0) == job.rows && gradient.shape(1) == job.blocks * job.width, "gradient: (m, B b)");
    for (std::size_t axis = 0; axis < 3; ++axis)
        require(d_values.shape(axis) == values.shape(axis) && d_atoms.shape(axis) == atoms.shape(axis),
                "d_values and d_atoms must have the shapes of values and atoms");
    nb::gil_scoped_release release;
    require_below(job.indices, job.wide, job.rows * job.blocks * job.nonzeros, job.atom_count);
    decode_backward(kernels, job, gradient.data(), d_values.data(), d_atoms.data(), threads);
}

}  // namespace

void bind_pursuit(nb::module_& module) {
    module.def("pursue", &pursue_arrays, nb::arg("level"), nb::arg("weight").noconvert(), nb::arg("atoms").noconvert(),
               nb::arg("indices").none(), nb::arg("values").noconvert(), nb::arg("errors").noconvert(), nb::kw_only(),
               nb::arg("support").none(), nb::arg("gain"), nb::arg("beam"), nb::arg("threads"),
               "Fill indices, values and errors; without indices only coefficients on `support`. False: not finite.");
    module.def("decode", &decode_arrays, nb::arg("level"), nb::arg("indices").noconvert(),
               nb::arg("values").noconvert(), nb::arg("atoms").noconvert(), nb::arg("weight").noconvert(),
               nb::kw_only(), nb::arg("threads"), "Fill weight.");
    module.def("decode_backward", &decode_backward_arrays, nb::arg("level"), nb::arg("gradient").noconvert(),
               nb::arg("indices").noconvert(), nb::arg("values").noconvert(), nb::arg("atoms").noconvert(),
               nb::arg("d_values").noconvert(), nb::arg("d_atoms").noconvert(), nb::kw_only(), nb::arg("threads"),
               "Fill d_values and d_atoms.");
}

}  // namespace leanmatch

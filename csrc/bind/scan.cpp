// leanmatch._native.scan: rows in 8-bit codes for src/leanmatch/index/scan.py, which proves that nothing is missing.
#include "scan.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "scan/codes.h"

namespace nb = nanobind;

namespace {

using leanmatch::scan::Codes;
template <class T, int D>
using In = nb::ndarray<const T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T, int D>
using Out = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

void put(Codes& codes, int start, const In<std::int8_t, 2>& rows) {
    require(rows.shape(1) == std::size_t(codes.dimension()), "codes have another dimension");
    require(rows.shape(0) <= std::size_t(codes.rows()), "there are not so many rows");
    nb::gil_scoped_release release;
    codes.put(start, int(rows.shape(0)), rows.data());
}

void search(const Codes& codes, const In<std::int8_t, 2>& queries, const In<float, 2>& exact,
            const In<std::int32_t, 1>& fetch, const In<float, 2>& vectors,
            const std::optional<In<std::uint8_t, 1>>& keep, double rounding, const Out<double, 2>& scores,
            const Out<std::int64_t, 2>& rows, const Out<std::int32_t, 1>& worst) {
    const std::size_t count = queries.shape(0), dimension = std::size_t(codes.dimension());
    require(count < 65536, "too many queries at once");
    require(queries.shape(1) == dimension && exact.shape(1) == dimension && vectors.shape(1) == dimension,
            "queries or vectors have another dimension than the codes");
    require(exact.shape(0) == count && fetch.shape(0) == count && worst.shape(0) == count &&
                scores.shape(0) == count && rows.shape(0) == count,
            "not one of everything for each query");
    require(vectors.shape(0) == std::size_t(codes.rows()), "not one vector for each row of codes");
    require(rows.shape(1) == scores.shape(1), "scores and rows differ in shape");
    require(!keep || keep->shape(0) >= (std::size_t(codes.rows()) + 7) / 8, "keep has not a bit for each row");
    for (std::size_t q = 0; q < count; q++)
        require(fetch.data()[q] >= 1 && std::size_t(fetch.data()[q]) <= rows.shape(1),
                "fetch is below 1 or above the width of rows");
    nb::gil_scoped_release release;
    codes.search(queries.data(), exact.data(), int(count), fetch.data(), int(rows.shape(1)), vectors.data(),
                 keep ? keep->data() : nullptr, rounding, scores.data(), rows.data(), worst.data());
}

}  // namespace

void bind_scan(nb::module_& native) {
    nb::module_ module = native.def_submodule("scan", "Rows in 8-bit codes; use them through leanmatch.index.");
    module.attr("LEVEL") = leanmatch::scan::kernel_level();  // below it there is no kernel
    nb::class_<Codes>(module, "Codes")
        .def(nb::init<int, int>(), nb::arg("rows"), nb::arg("dimension"))
        .def("put", &put, nb::arg("start"), nb::arg("codes"))
        .def("search", &search, nb::arg("queries"), nb::arg("exact"), nb::arg("fetch"), nb::arg("vectors"),
             nb::arg("keep").none(), nb::arg("rounding"), nb::arg("scores"), nb::arg("rows"), nb::arg("worst"));
}

// The Python face of csrc/: leanmatch._native. Thin: values in, values out; src/leanmatch/native.py adds the errors.
#include <nanobind/nanobind.h>

#include "pursuit.h"
#include "encoder.h"
#include "linear.h"
#include "scan.h"
#include "cpu/features.h"

namespace nb = nanobind;

namespace {

using Flags = nb::typed<nb::dict, nb::str, bool>;
using LevelTable = nb::typed<nb::dict, nb::str, nb::typed<nb::tuple, nb::str, nb::ellipsis>>;

Flags to_dict(const leanmatch::Features& features) {
    Flags out;
    for (const auto& [name, usable] : features) out[name.c_str()] = nb::bool_(usable);
    return out;
}

LevelTable levels() {
    LevelTable out;
    for (const leanmatch::Level& level : leanmatch::levels()) {
        nb::list needs;
        for (const std::string& name : level.needs) needs.append(nb::str(name.c_str()));
        out[level.name.c_str()] = nb::tuple(needs);
    }
    return out;
}

}  // namespace

NB_MODULE(_native, module) {
    module.attr("__doc__") = "Native part of leanmatch; use it through leanmatch.native.";
    module.def("architecture", &leanmatch::architecture, "What this build was compiled for.");
    module.def("cpu_features", [] { return to_dict(leanmatch::cpu_features()); },
               "Features that the CPU has and the operating system supports.");
    module.def("levels", &levels, "Instruction-set levels of this build and the features that each one needs.");
    module.def(
        "decode_x86",
        [](std::uint32_t leaf1_ecx, std::uint32_t leaf7_ebx, std::uint32_t leaf7_ecx, std::uint32_t leaf7_edx,
           std::uint32_t leaf7_1_eax, std::uint64_t xcr0) {
            return to_dict(leanmatch::decode_x86(
                {leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax, xcr0}));
        },
        nb::kw_only(), nb::arg("leaf1_ecx") = 0, nb::arg("leaf7_ebx") = 0, nb::arg("leaf7_ecx") = 0,
        nb::arg("leaf7_edx") = 0, nb::arg("leaf7_1_eax") = 0, nb::arg("xcr0") = 0,
        "Decode planted CPUID registers; for tests.");
    leanmatch::bind_pursuit(module);
    bind_linear(module);
    bind_scan(module);
    bind_encoder(module);
}

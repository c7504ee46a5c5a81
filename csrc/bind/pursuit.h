#pragma once

#include <nanobind/nanobind.h>

namespace leanmatch {

void bind_pursuit(nanobind::module_& module);

}  // namespace leanmatch

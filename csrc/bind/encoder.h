#pragma once

#include <nanobind/nanobind.h>

void bind_encoder(nanobind::module_& native);

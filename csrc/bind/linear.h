#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <stdexcept>
#include <utility>

#include "linear/linear.h"

// What Python holds of a layer: its own until an encoder shares it or a low-rank layer takes it.
struct PackedLinear {
    explicit PackedLinear(leanmatch::linear::LinearPtr packed) : layer(std::move(packed)) {}
    leanmatch::linear::LinearPtr layer;
    std::shared_ptr<const leanmatch::linear::Linear> shared;
    const leanmatch::linear::Linear& get() const {
        if (shared) return *shared;
        if (!layer) throw std::invalid_argument("this layer was taken into a low-rank layer");
        return *layer;
    }
    std::shared_ptr<const leanmatch::linear::Linear> share() {
        get();
        if (!shared) shared = std::move(layer);
        return shared;
    }
};

void bind_linear(nanobind::module_& native);

// Arrays of a model's file: what model.cpp and scanner.cpp share with arrays.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#define LEANMATCH_EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace leanmatch {
namespace wasm {

// Are all these numbers below `limit`?
bool all_below(const std::uint16_t* numbers, std::size_t count, std::size_t limit);

}  // namespace wasm
}  // namespace leanmatch

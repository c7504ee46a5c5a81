// Arrays of a model's file: memory for them, and their numbers in the types that the runtime computes with.
//
// An engine runs a function in slow code until it has been called often, and does not replace the code of a loop that is
// running. So every loop over a whole array is a function that takes `kAtOnce` numbers, called again and again.
#include "arrays.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "linear/checks.h"

namespace lin = leanmatch::linear;

namespace {

constexpr std::size_t kAtOnce = 2048;

// Calls piece(first, count) for pieces of `kAtOnce`.
template <class Piece>
void in_pieces(std::size_t count, Piece piece) {
    for (std::size_t first = 0; first < count; first += kAtOnce) piece(first, std::min(kAtOnce, count - first));
}

[[gnu::noinline]] void widen(const std::uint16_t* halves, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t h = halves[i], sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
        if (exponent == 0) {  // zero and subnormal numbers: units of 2^-24
            const float size = float(mantissa) * 0x1p-24f;
            out[i] = sign ? -size : size;
            continue;
        }
        const std::uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        std::memcpy(out + i, &bits, sizeof(bits));
    }
}

// Eight numbers of `bits` bits are `bits` bytes, and for up to 8 bits they fit one word. Wider ones are read one by one.
template <class T>
[[gnu::noinline]] void unpack(const std::uint8_t* packed, std::size_t count, int bits, T* out) {
    const int lost = 8 * int(sizeof(T)) - bits;  // up and down again: the sign of signed numbers
    const auto number = [&](std::uint64_t word) { return T(T(word << lost) >> lost); };
    std::size_t i = 0;
    if (bits <= 8) {
        for (; i + 8 <= count; i += 8, packed += bits) {
            std::uint64_t word;
            std::memcpy(&word, packed, sizeof(word));
            for (int j = 0; j < 8; ++j, word >>= bits) out[i + std::size_t(j)] = number(word);
        }
    }
    for (std::size_t at = 0; i < count; ++i, at += std::size_t(bits)) {
        std::uint32_t word;
        std::memcpy(&word, packed + at / 8, sizeof(word));
        out[i] = number(word >> (at % 8));
    }
}

[[gnu::noinline]] void scaled(const std::int8_t* codes, float scale, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count; ++i) out[i] = float(codes[i]) * scale;
}

[[gnu::noinline]] std::uint16_t largest(const std::uint16_t* numbers, std::size_t count) {
    std::uint16_t most = 0;
    for (std::size_t i = 0; i < count; ++i) most = std::max(most, numbers[i]);
    return most;
}

}  // namespace

LEANMATCH_EXPORT(allocate) void* allocate(std::size_t bytes) {
    void* memory = std::aligned_alloc(16, (bytes + 31) / 16 * 16);
    lin::require(memory != nullptr, "there is not enough memory");
    return memory;
}

LEANMATCH_EXPORT(release) void release(void* memory) { std::free(memory); }

// float16 to float32.
LEANMATCH_EXPORT(widen_halves) float* widen_halves(const std::uint16_t* halves, std::size_t count) {
    float* out = static_cast<float*>(allocate(count * sizeof(float)));
    in_pieces(count, [&](std::size_t first, std::size_t some) { widen(halves + first, some, out + first); });
    return out;
}

// Numbers of 1 to 16 bits, the lowest bit first (leanmatch/formats/artifact/bit_packing.py): uint16, or int8 where they are
// signed. There are eight bytes behind the packed ones.
LEANMATCH_EXPORT(unpack_bits) void* unpack_bits(const std::uint8_t* packed, std::size_t count, int bits, int is_signed) {
    lin::require(bits >= 0 && bits <= (is_signed ? 8 : 16), "packed numbers have 0 to 16 bits, signed ones at most 8");
    void* out = allocate(count * (is_signed ? 1 : 2));
    if (bits == 0) return std::memset(out, 0, count * (is_signed ? 1 : 2));
    in_pieces(count, [&](std::size_t first, std::size_t some) {
        const std::uint8_t* from = packed + first / 8 * std::size_t(bits);
        if (is_signed) unpack(from, some, bits, static_cast<std::int8_t*>(out) + first);
        else unpack(from, some, bits, static_cast<std::uint16_t*>(out) + first);
    });
    return out;
}

// codes[i] * scale[i / run].
LEANMATCH_EXPORT(dequantize)
float* dequantize(const std::int8_t* codes, const float* scale, std::size_t count, std::size_t run) {
    float* out = static_cast<float*>(allocate(count * sizeof(float)));
    for (std::size_t first = 0; first < count; first += run) scaled(codes + first, *scale++, run, out + first);
    return out;
}

bool leanmatch::wasm::all_below(const std::uint16_t* numbers, std::size_t count, std::size_t limit) {
    bool below = true;
    in_pieces(count, [&](std::size_t first, std::size_t some) { below &= largest(numbers + first, some) < limit; });
    return below;
}

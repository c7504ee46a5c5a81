// What the CPU and the operating system let us use, and the levels that kernels are written for.
//
// Feature names are those of the "flags" (x86) and "Features" (aarch64) lines of Linux's /proc/cpuinfo.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace leanmatch {

// Registers of the x86 CPUID leaves that we read; all zero where a leaf does not exist.
struct X86Registers {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t leaf7_ecx = 0;
    std::uint32_t leaf7_edx = 0;
    std::uint32_t leaf7_1_eax = 0;
    std::uint64_t xcr0 = 0;  // register state that the operating system saves; zero without OSXSAVE
};

using Features = std::vector<std::pair<std::string, bool>>;

// CPUID bits to usable features: a vector extension counts only when the operating system saves its registers
// (XCR0: bits 1-2 for AVX, also 5-7 for AVX-512, 17-18 for AMX). Pure, so that tests can plant any CPU.
Features decode_x86(const X86Registers& registers);

// The features of the CPU that this runs on.
Features cpu_features();

// A level that kernels are written for: it runs where every feature in `needs` is usable.
struct Level {
    std::string name;
    std::vector<std::string> needs;
};

// This architecture's levels, slowest first. The first one, "portable", needs nothing beyond the ABI.
const std::vector<Level>& levels();

// "x86_64", "aarch64", "wasm32" or "other": what this file was compiled for.
const char* architecture();

}  // namespace leanmatch

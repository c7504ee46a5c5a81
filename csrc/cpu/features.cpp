#include "features.h"

#if defined(__x86_64__) || defined(_M_X64)
#define LEANMATCH_X86_64 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define LEANMATCH_AARCH64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace leanmatch {

namespace {

constexpr std::uint64_t kAvxState = 0x6;         // XMM, YMM
constexpr std::uint64_t kAvx512State = 0xe6;     // and opmask, upper halves of ZMM0-15, ZMM16-31
constexpr std::uint64_t kAmxState = 0x60000;     // TILECFG, TILEDATA
constexpr std::uint64_t kNoState = 0;

enum class Register { leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax };

struct X86Bit {
    const char* name;
    Register source;
    int bit;
    std::uint64_t state;
};

// Intel SDM volume 2A, CPUID; volume 1, chapter 13 for the state bits.
constexpr X86Bit kX86Bits[] = {
    {"sse4_2", Register::leaf1_ecx, 20, kNoState},
    {"avx", Register::leaf1_ecx, 28, kAvxState},
    {"f16c", Register::leaf1_ecx, 29, kAvxState},
    {"fma", Register::leaf1_ecx, 12, kAvxState},
    {"avx2", Register::leaf7_ebx, 5, kAvxState},
    {"avx_vnni", Register::leaf7_1_eax, 4, kAvxState},
    {"avx512f", Register::leaf7_ebx, 16, kAvx512State},
    {"avx512dq", Register::leaf7_ebx, 17, kAvx512State},
    {"avx512bw", Register::leaf7_ebx, 30, kAvx512State},
    {"avx512vl", Register::leaf7_ebx, 31, kAvx512State},
    {"avx512vbmi", Register::leaf7_ecx, 1, kAvx512State},
    {"avx512_vnni", Register::leaf7_ecx, 11, kAvx512State},
    {"avx512_bf16", Register::leaf7_1_eax, 5, kAvx512State},
    {"amx_bf16", Register::leaf7_edx, 22, kAmxState},
    {"amx_tile", Register::leaf7_edx, 24, kAmxState},
    {"amx_int8", Register::leaf7_edx, 25, kAmxState},
};

std::uint32_t value_of(const X86Registers& registers, Register source) {
    switch (source) {
        case Register::leaf1_ecx: return registers.leaf1_ecx;
        case Register::leaf7_ebx: return registers.leaf7_ebx;
        case Register::leaf7_ecx: return registers.leaf7_ecx;
        case Register::leaf7_edx: return registers.leaf7_edx;
        case Register::leaf7_1_eax: return registers.leaf7_1_eax;
    }
    return 0;
}

#if defined(LEANMATCH_X86_64)

struct Cpuid {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Cpuid cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
    Cpuid out;
#if defined(_MSC_VER)
    int r[4];
    __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
    out = {std::uint32_t(r[0]), std::uint32_t(r[1]), std::uint32_t(r[2]), std::uint32_t(r[3])};
#else
    __cpuid_count(leaf, subleaf, out.eax, out.ebx, out.ecx, out.edx);
#endif
    return out;
}

std::uint64_t read_xcr0() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    std::uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));  // the intrinsic would need -mxsave
    return (std::uint64_t(high) << 32) | low;
#endif
}

// Linux saves tiles only for processes that asked for it (once for all threads; Documentation/arch/x86/xstate.rst).
bool may_use_tiles() {
#if defined(__linux__)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return granted;
#else
    return true;
#endif
}

X86Registers read_registers() {
    X86Registers registers;
    const std::uint32_t last_leaf = cpuid(0, 0).eax;
    if (last_leaf >= 1) {
        registers.leaf1_ecx = cpuid(1, 0).ecx;
        const bool osxsave = (registers.leaf1_ecx >> 27) & 1;
        if (osxsave) registers.xcr0 = read_xcr0();
    }
    if (last_leaf >= 7) {
        const Cpuid leaf7 = cpuid(7, 0);
        registers.leaf7_ebx = leaf7.ebx;
        registers.leaf7_ecx = leaf7.ecx;
        registers.leaf7_edx = leaf7.edx;
        if (leaf7.eax >= 1) registers.leaf7_1_eax = cpuid(7, 1).eax;  // eax: the last sub-leaf
    }
    return registers;
}

#elif defined(LEANMATCH_AARCH64) && defined(__APPLE__)

bool sysctl_flag(const char* name) {
    int value = 0;
    std::size_t size = sizeof(value);
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

#endif

}  // namespace

Features decode_x86(const X86Registers& registers) {
    Features features;
    for (const X86Bit& bit : kX86Bits) {
        const bool present = (value_of(registers, bit.source) >> bit.bit) & 1u;
        features.emplace_back(bit.name, present && (registers.xcr0 & bit.state) == bit.state);
    }
    return features;
}

Features cpu_features() {
#if defined(LEANMATCH_X86_64)
    X86Registers registers = read_registers();
    if ((registers.xcr0 & kAmxState) == kAmxState && !may_use_tiles()) registers.xcr0 &= ~kAmxState;
    return decode_x86(registers);
#elif defined(LEANMATCH_AARCH64) && defined(__linux__)
    const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    // Bit numbers of <asm/hwcap.h>, spelled out because older headers lack the newer names.
    return {
        {"asimd", (hwcap >> 1) & 1},    {"asimdhp", (hwcap >> 10) & 1}, {"asimddp", (hwcap >> 20) & 1},
        {"sve", (hwcap >> 22) & 1},     {"i8mm", (hwcap2 >> 13) & 1},   {"bf16", (hwcap2 >> 14) & 1},
    };
#elif defined(LEANMATCH_AARCH64) && defined(__APPLE__)
    // Written after Apple's documentation ("Determining instruction set characteristics"); nobody has run it on macOS. A
    // name that a version of macOS does not know counts as absent.
    return {
        {"asimd", true},
        {"asimdhp", sysctl_flag("hw.optional.arm.FEAT_FP16")},
        {"asimddp", sysctl_flag("hw.optional.arm.FEAT_DotProd")},
        {"sve", false},
        {"i8mm", sysctl_flag("hw.optional.arm.FEAT_I8MM")},
        {"bf16", sysctl_flag("hw.optional.arm.FEAT_BF16")},
    };
#elif defined(__wasm__)
    return {{"simd128", true}};  // an engine that lacks it refuses the whole module
#else
    return {};
#endif
}

const std::vector<Level>& levels() {
    static const std::vector<Level> table = {
        {"portable", {}},
#if defined(LEANMATCH_X86_64)
        {"avx2", {"avx2", "fma", "f16c"}},
        {"avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}},
        {"avx512_vbmi_vnni", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vnni"}},
#if defined(LEANMATCH_AMX_KERNELS)
        {"avx512_amx",
         {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8",
          "amx_bf16"}},
#endif
#elif defined(LEANMATCH_AARCH64)
        {"neon", {"asimd"}},
        {"neon_dotprod", {"asimd", "asimddp"}},
#elif defined(__wasm__)
        {"wasm", {"simd128"}},
#endif
    };
    return table;
}

const char* architecture() {
#if defined(LEANMATCH_X86_64)
    return "x86_64";
#elif defined(LEANMATCH_AARCH64)
    return "aarch64";
#elif defined(__wasm__)
    return "wasm32";
#else
    return "other";
#endif
}

}  // namespace leanmatch

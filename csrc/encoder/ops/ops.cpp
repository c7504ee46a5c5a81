#include "ops.h"

#include <cstring>

namespace leanmatch {
namespace encoder {

const Ops* ops_of(const char* level) {
    const auto is = [level](const char* name) { return std::strcmp(level, name) == 0; };
    if (is("portable")) return &ops_portable();
#if defined(__x86_64__) || defined(_M_X64)
    if (is("avx2")) return &ops_avx2();
    if (is("avx512") || is("avx512_vbmi_vnni") || is("avx512_amx")) return &ops_avx512();
#elif defined(__aarch64__)
    if (is("neon") || is("neon_dotprod")) return &ops_neon();
#elif defined(__wasm__)
    if (is("wasm")) return &ops_wasm();
#endif
    return nullptr;
}

}  // namespace encoder
}  // namespace leanmatch

// Loops of one instruction each, in registers; see peaks.h.
#pragma once

namespace leanmatch {
namespace linear {

long long fma_avx2(long count);
long long fma_avx512(long count);
long long dpbf16_avx512(long count);
long long dpbusd_vnni(long count);
long long permb_vbmi(long count);
long long lookup_vbmi(long count);
long long lookup128_vbmi(long count);
long long tdpbusd_amx(long count);
long long load_vectors_avx512(const unsigned char* memory, long vectors, long rounds);

}  // namespace linear
}  // namespace leanmatch

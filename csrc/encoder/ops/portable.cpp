// The encoder's kernels in plain C++: vectors of four floats, which every ABI's baseline has.
#include <math.h>
#include <string.h>

#include "ops.h"

namespace leanmatch {
namespace encoder {
namespace {

constexpr size_t W = 4;
struct V {
    float lane[W];
};
#define LEANMATCH_LANES(expression) \
    V out;                          \
    for (size_t i = 0; i < W; ++i) out.lane[i] = (expression); \
    return out

inline V splat(float a) { LEANMATCH_LANES(a); }
inline V load(const float* p) { LEANMATCH_LANES(p[i]); }
inline V load_part(const float* p, size_t n) { LEANMATCH_LANES(i < n ? p[i] : 0.0f); }
inline V load_i8(const int8_t* p) { LEANMATCH_LANES(float(p[i])); }
inline void store(float* p, V a) { memcpy(p, a.lane, sizeof(a.lane)); }
inline void store_part(float* p, V a, size_t n) { memcpy(p, a.lane, n * sizeof(float)); }
inline V add(V a, V b) { LEANMATCH_LANES(a.lane[i] + b.lane[i]); }
inline V sub(V a, V b) { LEANMATCH_LANES(a.lane[i] - b.lane[i]); }
inline V mul(V a, V b) { LEANMATCH_LANES(a.lane[i] * b.lane[i]); }
inline V div(V a, V b) { LEANMATCH_LANES(a.lane[i] / b.lane[i]); }
inline V min(V a, V b) { LEANMATCH_LANES(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
inline V max(V a, V b) { LEANMATCH_LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
inline V fma(V a, V b, V c) { LEANMATCH_LANES(a.lane[i] * b.lane[i] + c.lane[i]); }
inline V round_(V a) { LEANMATCH_LANES(nearbyintf(a.lane[i])); }
inline V scale_by_power(V a, V n) {  // a * 2^n for whole n in [-126, 127]
    V out;
    for (size_t i = 0; i < W; ++i) {
        const uint32_t bits = uint32_t(int32_t(n.lane[i]) + 127) << 23;
        float power;
        memcpy(&power, &bits, sizeof(power));
        out.lane[i] = a.lane[i] * power;
    }
    return out;
}
inline V zero_below(V a, V x, V limit) { LEANMATCH_LANES(x.lane[i] < limit.lane[i] ? 0.0f : a.lane[i]); }
inline float sum(V a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }
inline float largest(V a) {
    float best = a.lane[0];
    for (size_t i = 1; i < W; ++i) best = a.lane[i] > best ? a.lane[i] : best;
    return best;
}
#undef LEANMATCH_LANES

#include "body.h"

}  // namespace

const Ops& ops_portable() { return kOps; }

}  // namespace encoder
}  // namespace leanmatch

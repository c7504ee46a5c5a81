// Pursuit for any CPU: 4 lanes in the compiler's vector type (SSE2 or NEON where the ABI has it).
#include "decode_kernel.h"

namespace {

struct Portable {
    typedef float type __attribute__((vector_size(16)));
    typedef int32_t mask __attribute__((vector_size(16)));
    static constexpr size_t kWidth = 4, kGroup = 2;

    static type zero() { return type{}; }
    static type load(const float* p) { return *reinterpret_cast<const type*>(p); }
    static type load_any(const float* p) {
        type x;
        __builtin_memcpy(&x, p, sizeof(x));
        return x;
    }
    static void store(float* p, type x) { *reinterpret_cast<type*>(p) = x; }
    static void store_any(float* p, type x) { __builtin_memcpy(p, &x, sizeof(x)); }
    static type broadcast(float x) { return type{x, x, x, x}; }
    static type fma(type x, type y, type z) { return x * y + z; }
    static type mul(type x, type y) { return x * y; }
    static type sub(type x, type y) { return x - y; }
    static type max(type x, type y) { return x > y ? x : y; }
    static type abs(type x) {
        const mask no_sign = {0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff};
        return reinterpret_cast<type>(reinterpret_cast<mask>(x) & no_sign);
    }
    static float reduce_max(type x) {
        const float low = x[0] > x[1] ? x[0] : x[1], high = x[2] > x[3] ? x[2] : x[3];
        return low > high ? low : high;
    }
    static float reduce_sum(type x) { return (x[0] + x[2]) + (x[1] + x[3]); }
    static unsigned equal(type x, type y) {
        const mask same = x == y;
        return unsigned((same[0] & 1) | (same[1] & 2) | (same[2] & 4) | (same[3] & 8));
    }
    static type zero_unless_below(type x, float bound) { return x < broadcast(bound) ? x : zero(); }
    static type inverse_above(type x, float limit) { return x > broadcast(limit) ? 1 / x : zero(); }
};

}  // namespace

namespace leanmatch {
extern const PursuitKernels kPursuitPortable = kernels_of<Portable>();
}

// The vector type of vector_math.inc.h for AVX-512. Included inside an anonymous namespace; no include guard.
using V = __m512;
constexpr int kWidth = 16;

inline __mmask16 lanes_below(int count) { return __mmask16(count >= 16 ? 0xffffu : (1u << count) - 1u); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline V load_part(const float* p, int count) { return _mm512_maskz_loadu_ps(lanes_below(count), p); }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a); }
inline void store_part(float* p, V a, int count) { _mm512_mask_storeu_ps(p, lanes_below(count), a); }
inline V set1(float f) { return _mm512_set1_ps(f); }
inline V zero() { return _mm512_setzero_ps(); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V vmin(V a, V b) { return _mm512_min_ps(a, b); }
inline V vmax(V a, V b) { return _mm512_max_ps(a, b); }

#if defined(__AVX512VNNI__)
// sum += u (uint8) . w (int8), four products a lane. In assembly because GCC 12 and 13 copy the sum of the
// intrinsic through another register, two moves for each multiply in a loop.
inline void dpbusd(__m512i& sum, __m512i u, __m512i w) {
#if defined(__GNUC__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(w));
#else
    sum = _mm512_dpbusd_epi32(sum, u, w);
#endif
}
#endif

#if defined(__AVX512VNNI__)
// gelu(x) = max(x, 0) - h(|x|), h(t) = t Phi(-t): a cubic for each of 16 intervals about multiples of L / 15, L = 4.6, looked
// up in registers (research/fit_gelu.py). Largest error 1e-5; half the time of a polynomial for all of it.
#define LEANMATCH_TABLE_GELU 1
alignas(64) constexpr float kGeluTable[4][16] = {
    {0.0f, 1.163912370e-01f, 1.654930700e-01f, 1.644843552e-01f, 1.349036728e-01f, 9.598431717e-02f,
     6.050851538e-02f, 3.415408872e-02f, 1.736223862e-02f, 7.976369975e-03f, 3.318778922e-03f, 1.252377193e-03f,
     4.290283387e-04f, 1.335100694e-04f, 3.775888146e-05f, 9.708337115e-06f},
    {1.533524820e-01f, 8.060133303e-02f, 2.057832240e-02f, -1.888817361e-02f, -3.699683241e-02f, -3.870358023e-02f,
     -3.133729162e-02f, -2.134499828e-02f, -1.263340788e-02f, -6.601486057e-03f, -3.072891195e-03f, -1.281253962e-03f,
     -4.802702675e-04f, -1.622530015e-04f, -4.949306992e-05f, -1.364980712e-05f},
    {-3.770424135e-02f, -3.399468193e-02f, -2.519280736e-02f, -1.420216681e-02f, -4.452108407e-03f, 1.954542298e-03f,
     4.727105046e-03f, 4.859545851e-03f, 3.714739459e-03f, 2.343826754e-03f, 1.269384250e-03f, 6.015063667e-04f,
     2.521149869e-04f, 9.411033827e-05f, 3.143057718e-05f, 9.422289463e-06f},
    {5.888499434e-04f, 2.174730083e-03f, 3.507369134e-03f, 3.624780893e-03f, 2.758801456e-03f, 1.500096544e-03f,
     4.077529706e-04f, -2.416965753e-04f, -4.635515478e-04f, -4.229522357e-04f, -2.886934504e-04f, -1.622310543e-04f,
     -7.793823333e-05f, -3.262699493e-05f, -1.203550559e-05f, -3.940311224e-06f}};
inline V gelu_table(V x) {
    constexpr float kLimit = 4.6f, kMagic = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
    const V size = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
    const V t = vmin(set1(kLimit), size), moved = fma(t, set1(15.0f / kLimit), set1(kMagic));
    const V r = _mm512_fmsub_ps(t, set1(15.0f / kLimit), _mm512_sub_ps(moved, set1(kMagic)));
    const __m512i at = _mm512_castps_si512(moved);
    V h = fma(_mm512_permutexvar_ps(at, _mm512_load_ps(kGeluTable[3])), r, _mm512_permutexvar_ps(at, _mm512_load_ps(kGeluTable[2])));
    h = fma(h, r, _mm512_permutexvar_ps(at, _mm512_load_ps(kGeluTable[1])));
    h = fma(h, r, _mm512_permutexvar_ps(at, _mm512_load_ps(kGeluTable[0])));
    return _mm512_sub_ps(vmax(zero(), x), h);
}
#endif

#if defined(__AVX512VBMI__)
// table[index], 64 bytes at once; in assembly so that it stays beside the multiply that needs it.
inline __m512i lookup(__m512i index, __m512i table) {
#if defined(__GNUC__)
    __m512i z;
    __asm__("vpermb %2, %1, %0" : "=v"(z) : "v"(index), "v"(table));
    return z;
#else
    return _mm512_permutexvar_epi8(index, table);
#endif
}
#endif

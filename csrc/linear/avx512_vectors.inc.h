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

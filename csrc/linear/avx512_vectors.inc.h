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

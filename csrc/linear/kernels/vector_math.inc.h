// Epilogue on vectors: bias, activation, residual, store. Included inside an anonymous namespace after a file of
// one instruction set has defined
//   V, kWidth; load, load_part(p, count), store, store_part(p, v, count), set1, zero, add, mul, fma(a, b, c) = a b
//   + c, vmin, vmax (the second operand where either is NaN, as x86 has it: NaN stays NaN below).
// No include guard: each file has its own copy.

// Phi(x) - 1/2 = x P(2 x^2 / L^2 - 1) with x clamped to [-L, L] and P(1) = 1 / (2 L), so that far values are
// exact. Fitted by iteratively reweighted least squares at Chebyshev nodes (research/fit_gelu.py); largest error
// of Phi in fp32: degree 12, L = 5.1: 3e-7; degree 7, L = 4: 3.2e-5.
constexpr float kGeluExact[] = {0.1386052966117859f,     -0.06900274753570557f,  0.050781745463609695f,
                                -0.040232058614492416f,  0.031737618148326874f,  -0.02392210252583027f,
                                0.017335819080471992f,   -0.012288941070437431f, 0.007193352561444044f,
                                -0.0029111532494425774f, 0.002024278277531266f,  -0.002093928400427103f,
                                0.0008120375568978488f};
constexpr float kGeluShort[] = {0.17594338953495026f,   -0.08438954502344131f, 0.05617135018110275f,
                                -0.036281172186136246f, 0.021163128316402435f, -0.013532706536352634f,
                                0.008625754155218601f,  -0.002700201701372862f};

template <int N>
inline V gelu_polynomial(V x, const float (&coefficients)[N], float limit) {
    const V c = vmin(set1(limit), vmax(set1(-limit), x));
    const V s = fma(mul(c, c), set1(2.0f / (limit * limit)), set1(-1.0f));
    V p = set1(coefficients[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; i--) p = fma(p, s, set1(coefficients[i]));
    const V half = set1(0.5f);
    const V phi = vmin(half, vmax(set1(-0.5f), mul(p, c)));
    return mul(x, add(phi, half));
}

// kExact: the fp32 paths; otherwise the short polynomial, far below a step of 8 bits.
template <bool kExact>
inline V activate(V v, int activation) {
    if (activation == 1) return vmax(zero(), v);
#if defined(LEANMATCH_TABLE_GELU)
    if (activation == 2 && !kExact) return gelu_table(v);
#endif
    if (activation == 2)
        return kExact ? gelu_polynomial(v, kGeluExact, 5.1f) : gelu_polynomial(v, kGeluShort, 4.0f);
    return v;
}

// One vector of outputs of one token; `count` of its elements exist. residual is the token's row or null.
template <bool kExact>
inline void put(float* y, const float* residual, V v, int activation, int count) {
    if (activation) v = activate<kExact>(v, activation);
    if (count >= kWidth) {
        if (residual) v = add(v, load(residual));
        store(y, v);
    } else {
        if (residual) v = add(v, load_part(residual, count));
        store_part(y, v, count);
    }
}

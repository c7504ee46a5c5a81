// dense_i8 for NEON. Included inside an anonymous namespace after neon_vectors.inc.h, vector_math.inc.h and
//   pick<L>(x), dot<L>(sum, w, picked): sum + four neighbouring products a lane, w of 4 rows x 4 inputs and lane L of x.
// No include guard: each file has its own copy.
//
// Both operands are signed: activations, uint8 in memory, become u - 128 by one exclusive or, and
//   sum_j q_j (u_j - zero) = sum_j q_j (u_j - 128) - (zero - 128) sum_j q_j.
// |sum_j q_j (u_j - 128)| <= 128 * 127 * n, half of the bound of unsigned activations, and |zero - 128| sum_j |q_j| as well:
// int32 is exact for n <= 66311 = kLargestInt8Inputs, and for twice as many.
//
// Micro-kernel: 4 tokens x 4 vectors of 4 rows, 16 sums in registers. 16 inputs of a token are one load; a step of 4 inputs
// takes 4 loads of weights and 16 dot.
constexpr int kTokensI8 = 4, kPanelI8 = 4;
static_assert(kDenseI8Neon.lanes == kWidth && kDenseI8Neon.panel == kPanelI8 && kDenseI8Neon.depth == 4,
              "packed for this");

inline int8x16_t less_128(uint8x16_t u) { return vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(0x80))); }

template <int L, int TT, int PP>
inline void i8_step(const int8_t* weights, const int8x16_t (&x)[TT], int32x4_t (&sum)[TT][PP]) {
    int8x16_t picked[TT];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) picked[t] = pick<L>(x[t]);
    LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) {
        const int8x16_t w = vld1q_s8(weights + p * 16);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) sum[t][p] = dot<L>(sum[t][p], w, picked[t]);
    }
}

template <int TT, int PP>
void i8_tile(const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y, const Tail& tail,
             int token) {
    constexpr int bytes = PP * 16;  // weights of a step
    int32x4_t sum[TT][PP];
    LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) {
        const int32x4_t row_sum = vld1q_s32(w.row_sum + row + p * kWidth);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) sum[t][p] = vmulq_n_s32(row_sum, 128 - x.zero[token + t]);
    }
    // Rows are padded to 64 bytes (quantized_stride), so that 16 can be read wherever there is one input.
    for (int j = 0; j < w.n; j += 16) {
        int8x16_t inputs[TT];
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) inputs[t] = less_128(vld1q_u8(x.values + size_t(token + t) * x.stride + j));
        i8_step<0>(weights, inputs, sum);
        if (j + 4 < w.n) i8_step<1>(weights + bytes, inputs, sum);
        if (j + 8 < w.n) i8_step<2>(weights + 2 * bytes, inputs, sum);
        if (j + 12 < w.n) i8_step<3>(weights + 3 * bytes, inputs, sum);
        weights += 4 * bytes;
    }
    LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) {
        const int first = row + p * kWidth;
        const V scale = load(w.scale + first), bias = load(tail.bias + first);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(first);
            const V v = mul(vcvtq_f32_s32(sum[t][p]), scale);
            put<false>(y + at, tail.residual ? tail.residual + at : nullptr,
                       fma(v, set1(x.scale[token + t]), bias), tail.activation, w.m - first);
        }
    }
}

template <int PP, int TT = kTokensI8>
void i8_tokens(int count, const Dense& w, const int8_t* weights, int row, const Quantized& x, float* y,
               const Tail& tail, int token) {
    if constexpr (TT > 1) {
        if (count < TT) return i8_tokens<PP, TT - 1>(count, w, weights, row, x, y, tail, token);
    }
    i8_tile<TT, PP>(w, weights, row, x, y, tail, token);
}

template <int PP = kPanelI8>
void i8_panel(int groups, const Dense& w, const int8_t* weights, int row, const Quantized& x, int T, float* y,
              const Tail& tail) {
    if constexpr (PP > 1) {
        if (groups < PP) return i8_panel<PP - 1>(groups, w, weights, row, x, T, y, tail);
    }
    for (int t = 0; t < T; t += kTokensI8) i8_tokens<PP>(T - t, w, weights, row, x, y, tail, t);
}

void dense_i8(const Dense& w, const Quantized& x, int T, float* y, const Tail& tail) {
    const int groups = (w.m + kWidth - 1) / kWidth;
    const size_t group_bytes = size_t((w.n + 3) / 4) * 16;
    for (int g = 0; g < groups; g += kPanelI8)
        i8_panel(groups - g, w, static_cast<const int8_t*>(w.packed) + size_t(g) * group_bytes, g * kWidth, x, T, y,
                 tail);
}

// Tokens rounded to 16 bits, four at a time. Included inside an anonymous namespace after vectors.inc.h; no include guard.

inline void transpose(V* r) {
    const V even0 = wasm_i32x4_shuffle(r[0], r[1], 0, 4, 2, 6), odd0 = wasm_i32x4_shuffle(r[0], r[1], 1, 5, 3, 7);
    const V even1 = wasm_i32x4_shuffle(r[2], r[3], 0, 4, 2, 6), odd1 = wasm_i32x4_shuffle(r[2], r[3], 1, 5, 3, 7);
    r[0] = wasm_i64x2_shuffle(even0, even1, 0, 2);
    r[1] = wasm_i64x2_shuffle(odd0, odd1, 0, 2);
    r[2] = wasm_i64x2_shuffle(even0, even1, 1, 3);
    r[3] = wasm_i64x2_shuffle(odd0, odd1, 1, 3);
}

inline V load_upto(const float* p, int count) {
    return count >= kWidth ? load(p) : count > 0 ? load_part(p, count) : zero();
}

// The largest |x|; NaN where one of them is no finite number.
inline float largest_of(const float* x, int n) {
    V most = zero(), poison = zero();
    for (int j = 0; j < n; j += kWidth) {
        const V v = load_upto(x + j, n - j);
        most = vmax(wasm_f32x4_abs(v), most);
        poison = fma(v, zero(), poison);
    }
    float lanes[kWidth], bad[kWidth];
    store(lanes, most);
    store(bad, poison);
    float largest = 0.0f, any = 0.0f;
    for (int i = 0; i < kWidth; i++) {
        largest = lanes[i] > largest ? lanes[i] : largest;
        any += bad[i];
    }
    return any != 0.0f ? any : largest;
}

// To the nearest whole number, ties to even, for |v| < 2^22: 1.5 * 2^23 leaves no bits behind the point. An engine on x86-64 needs
// seven instructions for i32x4.trunc_sat.
inline V whole(V v) {
    return wasm_i32x4_sub(add(v, set1(12582912.0f)), wasm_i32x4_const_splat(0x4b400000));
}

inline V narrowed(V low, V high) { return wasm_i16x8_narrow_i32x4(whole(low), whole(high)); }

// Columns of a rounded row: whole vectors of eight.
inline size_t rounded_columns(int n) { return size_t((n + 7) / 8) * 8; }

// `count` tokens, at most four, in 16 bits as [pair of inputs][token][2], pairs `stride` apart, and one unit of each token's numbers:
// max |x| / steps, NaN where one of them is no finite number. Tokens and inputs that do not exist are zero.
inline void round_rows(const float* x, int count, int n, int steps, int16_t* out, int stride, float* units) {
    constexpr int kFour = 4;
    V inverse[kFour];
    for (int t = 0; t < kFour; t++) {
        const float largest = t < count ? largest_of(x + size_t(t) * size_t(n), n) : 0.0f;
        units[t] = largest <= 1e-30f ? 0.0f : largest / float(steps);
        inverse[t] = set1(units[t] > 0.0f ? 1.0f / units[t] : 0.0f);
    }
    for (int j = 0; j < n; j += 8, out += kFour * stride) {
        V rows[kFour];
        LEANMATCH_UNROLL
        for (int t = 0; t < kFour; t++) {
            rows[t] = zero();
            if (!(units[t] > 0.0f)) continue;
            const float* from = x + size_t(t) * size_t(n) + j;
            rows[t] = narrowed(mul(load_upto(from, n - j), inverse[t]), mul(load_upto(from + 4, n - j - 4), inverse[t]));
        }
        transpose(rows);
        LEANMATCH_UNROLL
        for (int t = 0; t < kFour; t++) wasm_v128_store(out + t * stride, rows[t]);
    }
}

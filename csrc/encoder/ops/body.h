// The kernels of ops.h over a vector V of W floats. Included by <level>.cpp inside its anonymous namespace, after
// V, W and splat load load_part load_i8 store store_part add sub mul div min max fma round_ scale_by_power zero_below
// sum largest. Never include it anywhere else.

// e^x: x = n ln 2 + r, |r| <= ln 2 / 2; Taylor to degree 7 gives 5e-9 relative before rounding. Below -87.3, zero.
inline V exp_(V x) {
    const V lowest = splat(-87.3f);
    const V clamped = min(max(x, lowest), splat(88.0f));
    const V n = round_(mul(clamped, splat(1.44269504f)));
    V r = fma(n, splat(-0.693359375f), clamped);
    r = fma(n, splat(2.12194440e-4f), r);
    V p = splat(1.0f / 5040.0f);
    p = fma(p, r, splat(1.0f / 720.0f));
    p = fma(p, r, splat(1.0f / 120.0f));
    p = fma(p, r, splat(1.0f / 24.0f));
    p = fma(p, r, splat(1.0f / 6.0f));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    return zero_below(scale_by_power(p, n), x, lowest);
}

// x Phi(x) = x (1/2 + x P(x^2)), |x| clamped to 5.25; P is a least-maximum fit in t = 2 x^2 / 5.25^2 - 1.
inline V gelu(V x) {
    const V limit = splat(5.25f);
    const V c = min(max(x, sub(splat(0.0f), limit)), limit);
    const V t = fma(mul(c, c), splat(2.0f / (5.25f * 5.25f)), splat(-1.0f));
    V p = splat(9.800471598e-04f);
    p = fma(p, t, splat(-2.821803326e-03f));
    p = fma(p, t, splat(3.094977699e-03f));
    p = fma(p, t, splat(-3.621999873e-03f));
    p = fma(p, t, splat(7.904311642e-03f));
    p = fma(p, t, splat(-1.365345344e-02f));
    p = fma(p, t, splat(1.882923767e-02f));
    p = fma(p, t, splat(-2.484251373e-02f));
    p = fma(p, t, splat(3.196798265e-02f));
    p = fma(p, t, splat(-3.978210315e-02f));
    p = fma(p, t, splat(4.965047538e-02f));
    p = fma(p, t, splat(-6.712634116e-02f));
    p = fma(p, t, splat(1.346592903e-01f));
    return mul(x, fma(c, p, splat(0.5f)));
}

inline V logistic(V x) { return div(splat(1.0f), add(splat(1.0f), exp_(sub(splat(0.0f), x)))); }

inline V activated(Activation kind, V x) {
    switch (kind) {
        case Activation::none: return x;
        case Activation::gelu: return gelu(x);
        case Activation::relu: return max(x, splat(0.0f));
        case Activation::tanh: return fma(splat(2.0f), logistic(add(x, x)), splat(-1.0f));
        case Activation::silu: return mul(x, logistic(x));
        case Activation::sigmoid: return logistic(x);
        case Activation::gelu_tanh: {  // 1/2 (1 + tanh(u)) = logistic(2 u), u = sqrt(2/pi) (x + 0.044715 x^3)
            const V cube = mul(mul(x, x), x);
            return mul(x, logistic(mul(fma(cube, splat(0.044715f), x), splat(1.5957691216f))));
        }
    }
    return x;
}

void add_rows(const float* x, size_t count, float* y) {
    size_t i = 0;
    for (; i + W <= count; i += W) store(y + i, add(load(y + i), load(x + i)));
    if (i < count) store_part(y + i, add(load_part(y + i, count - i), load_part(x + i, count - i)), count - i);
}

void axpy(float a, const float* x, size_t count, float* y) {
    const V factor = splat(a);
    size_t i = 0;
    for (; i + W <= count; i += W) store(y + i, fma(factor, load(x + i), load(y + i)));
    if (i < count) {
        const size_t rest = count - i;
        store_part(y + i, fma(factor, load_part(x + i, rest), load_part(y + i, rest)), rest);
    }
}

void dequantize(const int8_t* q, float scale, size_t count, float* y) {
    const V factor = splat(scale);
    size_t i = 0;
    for (; i + W <= count; i += W) store(y + i, mul(factor, load_i8(q + i)));
    for (; i < count; ++i) y[i] = scale * float(q[i]);
}

void decode_row(const SparseRows& f, size_t row, float* y) {
    const size_t first_code = row * f.blocks * f.nonzeros;
    const float scale = f.codes ? f.code_scale[row] : 1.0f;
    memset(y, 0, f.blocks * f.width * sizeof(float));
    for (size_t block = 0; block < f.blocks; ++block) {
        const float* atoms = f.atoms + block * f.atoms_per_block * f.width;
        for (size_t j = 0; j < f.nonzeros; ++j) {
            const size_t at = first_code + block * f.nonzeros + j;
            const float value = f.codes ? scale * float(f.codes[at]) : f.values[at];
            axpy(value, atoms + f.indices[at] * f.width, f.width, y + block * f.width);
        }
    }
}

void layer_norm(const float* x, const float* gamma, const float* beta, float eps, size_t rows, size_t width, float* y) {
    const size_t whole = width / W * W, rest = width - whole;
    for (size_t row = 0; row < rows; ++row, x += width, y += width) {
        V total = splat(0.0f), total2 = splat(0.0f);
        size_t i = 0;
        for (; i + 2 * W <= whole; i += 2 * W) {
            total = add(total, load(x + i));
            total2 = add(total2, load(x + i + W));
        }
        for (; i < whole; i += W) total = add(total, load(x + i));
        if (rest) total2 = add(total2, load_part(x + whole, rest));
        const float mean = sum(add(total, total2)) / float(width);
        const V center = splat(mean);
        V squares = splat(0.0f), squares2 = splat(0.0f);
        for (i = 0; i + 2 * W <= whole; i += 2 * W) {
            const V a = sub(load(x + i), center), b = sub(load(x + i + W), center);
            squares = fma(a, a, squares);
            squares2 = fma(b, b, squares2);
        }
        for (; i < whole; i += W) {
            const V a = sub(load(x + i), center);
            squares = fma(a, a, squares);
        }
        float variance = sum(add(squares, squares2));
        for (i = whole; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
        const V factor = splat(1.0f / sqrtf(variance / float(width) + eps));
        for (i = 0; i < whole; i += W) {
            store(y + i, fma(mul(sub(load(x + i), center), factor), load(gamma + i), load(beta + i)));
        }
        if (rest) {
            const V a = mul(sub(load_part(x + i, rest), center), factor);
            store_part(y + i, fma(a, load_part(gamma + i, rest), load_part(beta + i, rest)), rest);
        }
    }
}

void rms_norm(const float* x, const float* gamma, float eps, size_t rows, size_t width, float* y) {
    const size_t whole = width / W * W, rest = width - whole;
    for (size_t row = 0; row < rows; ++row, x += width, y += width) {
        V squares = splat(0.0f), squares2 = splat(0.0f);
        size_t i = 0;
        for (; i + 2 * W <= whole; i += 2 * W) {
            const V a = load(x + i), b = load(x + i + W);
            squares = fma(a, a, squares);
            squares2 = fma(b, b, squares2);
        }
        if (i < whole) squares = fma(load(x + i), load(x + i), squares);
        if (rest) squares2 = fma(load_part(x + whole, rest), load_part(x + whole, rest), squares2);
        const V factor = splat(1.0f / sqrtf(sum(add(squares, squares2)) / float(width) + eps));
        for (i = 0; i < whole; i += W) store(y + i, mul(mul(load(x + i), factor), load(gamma + i)));
        if (rest) store_part(y + i, mul(mul(load_part(x + i, rest), factor), load_part(gamma + i, rest)), rest);
    }
}

void activate(Activation kind, size_t count, float* x) {
    if (kind == Activation::none) return;
    size_t i = 0;
    for (; i + W <= count; i += W) store(x + i, activated(kind, load(x + i)));
    if (i < count) store_part(x + i, activated(kind, load_part(x + i, count - i)), count - i);
}

// A row is written no farther than it was read: row t ends at (t + 1) width, and rows up to t lie before 2 (t + 1) width.
template <Activation kKind>
inline void gate_rows(size_t rows, size_t width, float* x) {
    float* y = x;
    for (size_t row = 0; row < rows; ++row, x += 2 * width, y += width) {
        size_t i = 0;
        for (; i + W <= width; i += W) store(y + i, mul(activated(kKind, load(x + i)), load(x + width + i)));
        if (i < width) {
            const size_t rest = width - i;
            store_part(y + i, mul(activated(kKind, load_part(x + i, rest)), load_part(x + width + i, rest)), rest);
        }
    }
}

void gate(Activation kind, size_t rows, size_t width, float* x) {
    switch (kind) {
        case Activation::none: return gate_rows<Activation::none>(rows, width, x);
        case Activation::gelu: return gate_rows<Activation::gelu>(rows, width, x);
        case Activation::relu: return gate_rows<Activation::relu>(rows, width, x);
        case Activation::tanh: return gate_rows<Activation::tanh>(rows, width, x);
        case Activation::silu: return gate_rows<Activation::silu>(rows, width, x);
        case Activation::sigmoid: return gate_rows<Activation::sigmoid>(rows, width, x);
        case Activation::gelu_tanh: return gate_rows<Activation::gelu_tanh>(rows, width, x);
    }
}

void rotate(const float* turn, size_t heads, size_t half, float* x) {
    const float* sines = turn + half;
    for (size_t head = 0; head < heads; ++head, x += 2 * half) {
        float* y = x + half;
        size_t i = 0;
        for (; i + W <= half; i += W) {
            const V c = load(turn + i), s = load(sines + i), a = load(x + i), b = load(y + i);
            store(x + i, sub(mul(a, c), mul(b, s)));
            store(y + i, add(mul(b, c), mul(a, s)));
        }
        if (i == half) continue;
        const size_t rest = half - i;
        const V c = load_part(turn + i, rest), s = load_part(sines + i, rest);
        const V a = load_part(x + i, rest), b = load_part(y + i, rest);
        store_part(x + i, sub(mul(a, c), mul(b, s)), rest);
        store_part(y + i, add(mul(b, c), mul(a, s)), rest);
    }
}

void multiply_rows(const float* x, const float* factor, size_t rows, size_t width, float* y) {
    for (size_t row = 0; row < rows; ++row, x += width, y += width) {
        size_t i = 0;
        for (; i + W <= width; i += W) store(y + i, mul(load(x + i), load(factor + i)));
        for (; i < width; ++i) y[i] = x[i] * factor[i];
    }
}

// Scores of Q queries against C vectors of keys: out[q][c W ...] = sum_d query[q][d] transposed[d][c W ...].
template <int Q, int C>
inline void score_block(const float* query, size_t stride, const float* transposed, size_t padded, size_t width,
                        float* out, size_t out_stride) {
    V total[Q][C];
    for (int q = 0; q < Q; ++q)
        for (int c = 0; c < C; ++c) total[q][c] = splat(0.0f);
    for (size_t d = 0; d < width; ++d) {
        V keys[C];
        for (int c = 0; c < C; ++c) keys[c] = load(transposed + d * padded + c * W);
        for (int q = 0; q < Q; ++q) {
            const V one = splat(query[q * stride + d]);
            for (int c = 0; c < C; ++c) total[q][c] = fma(one, keys[c], total[q][c]);
        }
    }
    for (int q = 0; q < Q; ++q)
        for (int c = 0; c < C; ++c) store(out + q * out_stride + c * W, total[q][c]);
}

// out[q][...] = factor[q] sum_k weights[q][k] value[k][...] for Q queries and C vectors, of which the last has `last`.
template <int Q, int C>
inline void value_block(const float* weights, size_t padded, const float* value, size_t stride, size_t length,
                        const float* factor, size_t last, float* out, size_t out_stride) {
    V total[Q][C];
    for (int q = 0; q < Q; ++q)
        for (int c = 0; c < C; ++c) total[q][c] = splat(0.0f);
    for (size_t k = 0; k < length; ++k) {
        V row[C];
        for (int c = 0; c < C; ++c)
            row[c] = c + 1 < C || last == W ? load(value + k * stride + c * W) : load_part(value + k * stride + c * W, last);
        for (int q = 0; q < Q; ++q) {
            const V one = splat(weights[q * padded + k]);
            for (int c = 0; c < C; ++c) total[q][c] = fma(one, row[c], total[q][c]);
        }
    }
    for (int q = 0; q < Q; ++q) {
        const V scale = splat(factor[q]);
        for (int c = 0; c < C; ++c) {
            const V result = mul(total[q][c], scale);
            if (c + 1 < C || last == W) store(out + q * out_stride + c * W, result);
            else store_part(out + q * out_stride + c * W, result, last);
        }
    }
}

// One row of scores to weights that are not yet divided by their sum, zero before `first` and from `length` on; returns
// 1 / sum.
inline float soften(float* scores, size_t first, size_t length, size_t padded, float scale, const float* bias) {
    const V factor = splat(scale);
    V top = splat(-3.0e38f);
    size_t i = 0;
    for (; i < first; ++i) scores[i] = -3.0e38f;
    i = 0;
    for (; i + W <= length; i += W) {
        V x = mul(load(scores + i), factor);
        if (bias) x = add(x, load(bias + i));
        store(scores + i, x);
        top = max(top, x);
    }
    for (; i < length; ++i) {
        scores[i] = scores[i] * scale + (bias ? bias[i] : 0.0f);
        top = max(top, splat(scores[i]));
    }
    for (; i < padded; ++i) scores[i] = -3.0e38f;
    const V shift = splat(largest(top));
    V total = splat(0.0f);
    for (i = 0; i < padded; i += W) {
        const V x = exp_(sub(load(scores + i), shift));
        store(scores + i, x);
        total = add(total, x);
    }
    return 1.0f / sum(total);
}

template <int Q>
inline void attend(const Attention& a, size_t from, const float* transposed, size_t padded, float* scores) {
    const float* query = a.query + from * a.query_stride;
    const Keys keys = keys_of(a, from, from + Q, W);
    const size_t span = keys.end - keys.first;
    const float* packed = transposed + keys.first;
    size_t c = 0;
    for (; c + 4 * W <= span; c += 4 * W)
        score_block<Q, 4>(query, a.query_stride, packed + c, padded, a.width, scores + c, span);
    for (; c + 2 * W <= span; c += 2 * W)
        score_block<Q, 2>(query, a.query_stride, packed + c, padded, a.width, scores + c, span);
    for (; c < span; c += W) score_block<Q, 1>(query, a.query_stride, packed + c, padded, a.width, scores + c, span);
    float factor[Q];
    for (size_t q = 0; q < Q; ++q) {
        const size_t at = from + q, seen = at > a.window ? at - a.window - keys.first : 0;
        const float* bias = a.bias ? a.bias + (ptrdiff_t(keys.first) - ptrdiff_t(at)) : nullptr;
        factor[q] = soften(scores + q * span, seen, keys_of(a, at, at + 1, W).last - keys.first, span, a.scale, bias);
    }
    const float* value = a.value + keys.first * a.stride;
    const size_t count = keys.last - keys.first;
    float* out = a.out + from * a.out_stride;
    size_t d = 0;
    for (; d + 2 * W <= a.width; d += 2 * W)
        value_block<Q, 2>(scores, span, value + d, a.stride, count, factor, W, out + d, a.out_stride);
    for (; d < a.width; d += W) {
        const size_t last = a.width - d < W ? a.width - d : W;
        value_block<Q, 1>(scores, span, value + d, a.stride, count, factor, last, out + d, a.out_stride);
    }
}

void attention(const Attention& a) {
    const size_t padded = (a.length + W - 1) / W * W;
    float* transposed = a.scratch;
    float* scores = transposed + padded * a.width;
    const Keys keys = keys_of(a, a.from, a.to, W);
    for (size_t k = keys.first; k < keys.end && k < a.length; ++k) {
        const float* key = a.key + k * a.stride;
        for (size_t d = 0; d < a.width; ++d) transposed[d * padded + k] = key[d];
    }
    for (size_t d = 0; d < a.width; ++d)
        for (size_t k = a.length; k < keys.end; ++k) transposed[d * padded + k] = 0.0f;
    size_t q = a.from;
    for (; q + 4 <= a.to; q += 4) attend<4>(a, q, transposed, padded, scores);
    for (; q + 2 <= a.to; q += 2) attend<2>(a, q, transposed, padded, scores);
    for (; q < a.to; ++q) attend<1>(a, q, transposed, padded, scores);
}

void sum_rows(const float* x, size_t rows, size_t width, float* y) {
    memset(y, 0, width * sizeof(float));
    for (size_t row = 0; row < rows; ++row) add_rows(x + row * width, width, y);
}

void max_rows(const float* x, size_t rows, size_t width, float* y) {
    if (rows) memcpy(y, x, width * sizeof(float));
    else memset(y, 0, width * sizeof(float));
    for (size_t row = 1; row < rows; ++row) {
        const float* one = x + row * width;
        size_t i = 0;
        for (; i + W <= width; i += W) store(y + i, max(load(y + i), load(one + i)));
        for (; i < width; ++i) y[i] = one[i] > y[i] ? one[i] : y[i];
    }
}

void normalize(size_t width, float floor, float* x) {
    V total = splat(0.0f);
    size_t i = 0;
    for (; i + W <= width; i += W) total = fma(load(x + i), load(x + i), total);
    float squares = sum(total);
    for (; i < width; ++i) squares += x[i] * x[i];
    const float norm = sqrtf(squares), factor = 1.0f / (norm > floor ? norm : floor);
    for (i = 0; i + W <= width; i += W) store(x + i, mul(load(x + i), splat(factor)));
    for (; i < width; ++i) x[i] *= factor;
}

const Ops kOps = {add_rows, dequantize,    decode_row, axpy,     layer_norm, rms_norm, activate, gate,
                  rotate,   multiply_rows, attention,  sum_rows, max_rows,   normalize};

// dense_f32 and dense_sparse_f32, one body for every instruction set. Included inside an anonymous namespace after
// vector_math.inc.h and after
//   kTokens, kPanel: tokens and vectors of rows of the dense micro-kernel (kTokens * kPanel accumulators),
//   kAtoms: atoms at a time in stage 1 (kAtoms * kSparseVectors accumulators),
//   transpose(V rows[kWidth]).
// No include guard: each file has its own copy.

template <int TT, int PP>
void dense_tile(const Dense& w, const float* weights, int row, const float* x, float* y, const Tail& tail,
                int token) {
    V sum[TT][PP];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) LEANMATCH_UNROLL
    for (int p = 0; p < PP; p++) sum[t][p] = zero();
    const float* xt = x + size_t(token) * size_t(w.n);
    const size_t n = size_t(w.n);
    for (size_t j = 0; j < n; j++, weights += PP * kWidth) {
        V wv[PP];
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) wv[p] = load(weights + p * kWidth);
        LEANMATCH_UNROLL
        for (int t = 0; t < TT; t++) {
            const V xv = set1(xt[size_t(t) * n + j]);
            LEANMATCH_UNROLL
            for (int p = 0; p < PP; p++) sum[t][p] = fma(xv, wv[p], sum[t][p]);
        }
    }
    alignas(64) float sums[TT * PP][kWidth];
    LEANMATCH_UNROLL
    for (int t = 0; t < TT; t++) {
        LEANMATCH_UNROLL
        for (int p = 0; p < PP; p++) store(sums[t * PP + p], sum[t][p]);
    }
    for (int t = 0; t < TT; t++)
        for (int p = 0; p < PP; p++) {
            const int first = row + p * kWidth;
            const size_t at = size_t(token + t) * size_t(w.m) + size_t(first);
            put<true>(y + at, tail.residual ? tail.residual + at : nullptr,
                      add(load(sums[t * PP + p]), load(tail.bias + first)), tail.activation, w.m - first);
        }
}

template <int PP, int TT = kTokens>
void dense_tokens(int count, const Dense& w, const float* weights, int row, const float* x, float* y,
                  const Tail& tail, int token) {
    if constexpr (TT > 1) {
        if (count < TT) return dense_tokens<PP, TT - 1>(count, w, weights, row, x, y, tail, token);
    }
    dense_tile<TT, PP>(w, weights, row, x, y, tail, token);
}

template <int PP = kPanel>
void dense_panel(int groups, const Dense& w, const float* weights, int row, const float* x, int T, float* y,
                 const Tail& tail) {
    if constexpr (PP > 1) {
        if (groups < PP) return dense_panel<PP - 1>(groups, w, weights, row, x, T, y, tail);
    }
    for (int t = 0; t < T; t += kTokens) dense_tokens<PP>(T - t, w, weights, row, x, y, tail, t);
}

void dense_f32(const Dense& w, const float* x, int T, float* y, const Tail& tail) {
    const int groups = (w.m + kWidth - 1) / kWidth;
    const float* weights = static_cast<const float*>(w.packed);
    for (int g = 0; g < groups; g += kPanel)
        dense_panel(groups - g, w, weights + size_t(g) * kWidth * size_t(w.n), g * kWidth, x, T, y, tail);
}

// --- dense_sparse_f32: a tile of U vectors of tokens; xs (n, lanes), ys (m, lanes), zs (chunk * r, lanes).

template <int U>
void to_features(const float* x, int count, int n, float* xs) {
    for (int u = 0; u < U; u++)
        for (int j = 0; j < n; j += kWidth) {
            V rows[kWidth];
            const int columns = n - j < kWidth ? n - j : kWidth;
            for (int i = 0; i < kWidth; i++) {
                const int t = u * kWidth + i;
                const float* row = x + size_t(t) * size_t(n) + size_t(j);
                rows[i] = t >= count ? zero() : columns == kWidth ? load(row) : load_part(row, columns);
            }
            transpose(rows);
            for (int i = 0; i < columns; i++)
                store(xs + size_t(j + i) * (U * kWidth) + size_t(u) * kWidth, rows[i]);
        }
}

template <int U>
void from_features(const float* ys, int count, int m, float* y, const Tail& tail) {
    for (int u = 0; u < U; u++)
        for (int j = 0; j < m; j += kWidth) {
            V rows[kWidth];
            for (int i = 0; i < kWidth; i++)
                rows[i] = j + i < m ? load(ys + size_t(j + i) * (U * kWidth) + size_t(u) * kWidth) : zero();
            transpose(rows);
            const V bias = load(tail.bias + j);
            for (int i = 0; i < kWidth && u * kWidth + i < count; i++) {
                const size_t at = size_t(u * kWidth + i) * size_t(m) + size_t(j);
                put<true>(y + at, tail.residual ? tail.residual + at : nullptr, add(rows[i], bias),
                          tail.activation, m - j);
            }
        }
}

// z[a] = sum_c atoms[a][c] x[c] for `A` atoms.
template <int U, int A>
inline void analyse(const float* atoms, int b, const float* xs, float* zs) {
    V sum[A][U];
    LEANMATCH_UNROLL
    for (int a = 0; a < A; a++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) sum[a][u] = zero();
    for (int c = 0; c < b; c++) {
        V xv[U];
        LEANMATCH_UNROLL
        for (int u = 0; u < U; u++) xv[u] = load(xs + (size_t(c) * U + size_t(u)) * kWidth);
        LEANMATCH_UNROLL
        for (int a = 0; a < A; a++) {
            const V d = set1(atoms[size_t(a) * size_t(b) + size_t(c)]);
            LEANMATCH_UNROLL
            for (int u = 0; u < U; u++) sum[a][u] = fma(d, xv[u], sum[a][u]);
        }
    }
    LEANMATCH_UNROLL
    for (int a = 0; a < A; a++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) store(zs + (size_t(a) * U + size_t(u)) * kWidth, sum[a][u]);
}

// y[row] += sum_q values[q] z[index[q]] for `R` rows of one chunk, `terms` nonzeros each.
template <int U, int R>
inline void combine(const uint16_t* index, const float* values, int terms, const float* zs, float* ys,
                    bool first) {
    V sum[R][U];
    LEANMATCH_UNROLL
    for (int i = 0; i < R; i++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) sum[i][u] = first ? zero() : load(ys + (size_t(i) * U + size_t(u)) * kWidth);
    for (int q = 0; q < terms; q++) LEANMATCH_UNROLL
    for (int i = 0; i < R; i++) {
        const size_t at = size_t(i) * size_t(terms) + size_t(q);
        const float* z = zs + size_t(index[at]) * (U * kWidth);
        const V c = set1(values[at]);
        LEANMATCH_UNROLL
        for (int u = 0; u < U; u++) sum[i][u] = fma(c, load(z + u * kWidth), sum[i][u]);
    }
    LEANMATCH_UNROLL
    for (int i = 0; i < R; i++) LEANMATCH_UNROLL
    for (int u = 0; u < U; u++) store(ys + (size_t(i) * U + size_t(u)) * kWidth, sum[i][u]);
}

template <int U>
void sparse_tile(const SparseF32& w, const float* x, int count, float* y, const Tail& tail, float* scratch) {
    constexpr int lanes = U * kWidth;
    constexpr int rows = U >= 3 ? 2 : 4;  // enough independent sums to hide the latency of fma
    const int blocks = w.n / w.b;
    float* xs = scratch;
    float* ys = xs + size_t(w.n) * lanes;
    float* zs = ys + size_t(w.m) * lanes;
    to_features<U>(x, count, w.n, xs);
    const uint16_t* index = w.index;
    const float* values = w.values;
    for (int i = 0; i < blocks; i += w.chunk) {
        const int here = blocks - i < w.chunk ? blocks - i : w.chunk;
        for (int h = 0; h < here; h++) {
            const float* atoms = w.atoms + size_t(i + h) * size_t(w.r) * size_t(w.b);
            const float* xb = xs + size_t(i + h) * size_t(w.b) * lanes;
            float* zb = zs + size_t(h) * size_t(w.r) * lanes;
            int a = 0;
            for (; a + kAtoms <= w.r; a += kAtoms)
                analyse<U, kAtoms>(atoms + size_t(a) * size_t(w.b), w.b, xb, zb + size_t(a) * lanes);
            for (; a < w.r; a++) analyse<U, 1>(atoms + size_t(a) * size_t(w.b), w.b, xb, zb + size_t(a) * lanes);
        }
        const int terms = here * w.k;
        int row = 0;
        for (; row + rows <= w.m; row += rows, index += rows * terms, values += rows * terms)
            combine<U, rows>(index, values, terms, zs, ys + size_t(row) * lanes, i == 0);
        for (; row < w.m; row++, index += terms, values += terms)
            combine<U, 1>(index, values, terms, zs, ys + size_t(row) * lanes, i == 0);
    }
    from_features<U>(ys, count, w.m, y, tail);
}

void dense_sparse_f32(const SparseF32& w, const float* x, int T, float* y, const Tail& tail, float* scratch) {
    for (int t = 0; t < T;) {
        const int left = (T - t + kWidth - 1) / kWidth;
        const int count = T - t < kSparseVectors * kWidth ? T - t : kSparseVectors * kWidth;
        const float* xt = x + size_t(t) * size_t(w.n);
        float* yt = y + size_t(t) * size_t(w.m);
        Tail here = tail;
        if (here.residual) here.residual += size_t(t) * size_t(w.m);
        if (left == 1) sparse_tile<1>(w, xt, count, yt, here, scratch);
        else if (left == 2) sparse_tile<2>(w, xt, count, yt, here, scratch);
        else if (left == 3) sparse_tile<3>(w, xt, count, yt, here, scratch);
        else sparse_tile<4>(w, xt, count, yt, here, scratch);
        t += count;
    }
}

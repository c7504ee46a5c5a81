// The rows of dense_sparse_i8: how the head's blocks and the others of a token are rounded. Included inside an anonymous
// namespace after vector_math.inc.h and
//   Reach, which sees inputs (widen(x, count)) and knows whether all were finite, their largest number and their least one,
//     both counting zero: finite(), most(), least();
//   codes_at(x, from, to, inverse, zero, values): x * inverse + zero, rounded to 0 .. 255.
// No include guard: each file has its own copy.

// With the zero point that takes all of x into 0 .. 255 by the smallest step. NaN where one of x is no finite number.
struct Steps {
    float step;
    int zero;
};

inline Steps steps_of(const Reach& reach, const SparseI8& w) {
    if (!reach.finite()) return {NAN, w.zeros[0]};
    const float most = reach.most(), least = -reach.least();
    Steps best{0.0f, w.zeros[0]};
    for (int i = 0; i < w.zero_count; i++) {
        const float up = most * w.per_up[i], down = least * w.per_down[i], step = up > down ? up : down;
        if (i == 0 || step < best.step) best = {step, w.zeros[i]};
    }
    return best;
}

inline float inverse_of(const Steps& by) { return by.step > 1e-32f ? 1.0f / by.step : 0.0f; }

void quantize_tables(const SparseI8& w, const float* x, int T, uint8_t* values, float* scale, int32_t* zero,
                     float* head_scale, size_t stride) {
    for (int t = 0; t < T; t++, x += w.n, values += stride) {
        Reach others, of_head;  // all in the order of memory: runs of the one and of the other by turns
        for (int run = 0, from = 0; run < w.runs; from = w.run_ends[run], run++)
            if (w.run_of_head[run]) {
                for (int j = from; j < w.run_ends[run]; j += kWidth) of_head.widen(x + j, w.run_ends[run] - j);
            } else {
                for (int j = from; j < w.run_ends[run]; j += kWidth) others.widen(x + j, w.run_ends[run] - j);
            }
        Steps rest = steps_of(others, w), head{0.0f, 0};
        if (w.head) head = steps_of(of_head, w);
        const bool finite = rest.step == rest.step && head.step == head.step;
        if (!finite) rest.step = head.step = 0.0f;
        const float inverse = inverse_of(rest), head_inverse = inverse_of(head);
        for (int run = 0, from = 0; run < w.runs; from = w.run_ends[run], run++)
            if (w.run_of_head[run]) codes_at(x, from, w.run_ends[run], head_inverse, head.zero, values);
            else codes_at(x, from, w.run_ends[run], inverse, rest.zero, values);
        memset(values + w.n, 0, stride - size_t(w.n));
        if (w.head) head_scale[t] = !finite ? NAN : head.step > 1e-32f ? head.step : 0.0f;
        scale[t] = !finite ? NAN : rest.step > 1e-32f ? rest.step : 0.0f;
        zero[t] = rest.zero | head.zero << 8;
    }
}

// The pursuit for vectors V of any width: lanes are atoms. Included by one file per level; C headers only.
//
// With the atoms scaled to length 1, G = D D^T and c = D w, choosing atom s as the j-th (L is the Cholesky factor of
// G on the support, v_j = D q_j where q_j is the chosen atom made orthogonal to those before and scaled to length 1):
//
//   L_ji = v_i[s] (i < j),  L_jj^2 = G_ss - sum_i L_ji^2,  z_j = c[s] / L_jj
//   v_j = (G_s - sum_i L_ji v_i) / L_jj,   c <- c - z_j v_j
//
// c stays the correlation of every atom with the residual, sum z^2 is the energy explained, and L^T x = z gives the
// coefficients. Neither residuals nor normal equations are formed.
//   Rubinstein, Zibulevsky, Elad: Efficient implementation of the K-SVD algorithm using batch OMP (2008).
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "pursuit.h"

namespace {

using leanmatch::kDependent;
using leanmatch::kTileRows;
using leanmatch::PursuitJob;

inline size_t read_index(const void* indices, bool wide, size_t at) {
    return wide ? static_cast<const uint16_t*>(indices)[at] : static_cast<const uint8_t*>(indices)[at];
}

inline void write_index(void* indices, bool wide, size_t at, size_t value) {
    if (wide)
        static_cast<uint16_t*>(indices)[at] = static_cast<uint16_t>(value);
    else
        static_cast<uint8_t*>(indices)[at] = static_cast<uint8_t>(value);
}

inline size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

// Where things are in the scratch memory.
struct Tables {
    size_t padded;     // r rounded up to whole vectors of the widest level; what is padded on is 0
    float* unit;       // (r, b) atoms of length 1 (an atom of length 0 stays 0)
    float* transposed; // (b, padded)
    float* gram;       // (r, padded)
    float* inverse;    // (r) 1 / length of the atom, 0 for length 0
    float* tile;       // per row of a tile: c, h, v_0 .. v_{k-1} (padded each)
    float* factor;     // per row of a tile: L (k, k)
    float* z;          // per row of a tile: z (k)
};

struct Choice {
    size_t atom;
    float score;
};

template <class V>
struct Pursuit {
    static constexpr size_t kWidth = V::kWidth;
    static constexpr size_t kGroup = V::kGroup;  // vectors that stay in registers for each of 4 rows

    static Tables layout(const PursuitJob& job, float* scratch) {
        Tables t;
        const size_t k = job.nonzeros;
        t.padded = round_up(job.atom_count, leanmatch::kLanes);
        t.gram = scratch;
        t.transposed = t.gram + job.atom_count * t.padded;
        t.tile = t.transposed + job.width * t.padded;
        t.inverse = t.tile + kTileRows * (k + 2) * t.padded;
        t.unit = t.inverse + t.padded;
        t.factor = t.unit + job.atom_count * job.width;
        t.z = t.factor + kTileRows * k * k;
        return t;
    }

    // out[row][a] = <rows[row], atom a> for 4 rows and kVectors vectors of atoms.
    template <size_t kVectors>
    static void correlate_some(const float* const* rows, const float* transposed, size_t width, size_t padded,
                               float* const* out) {
        typename V::type sum[4][kVectors];
        for (size_t row = 0; row < 4; ++row)
            for (size_t v = 0; v < kVectors; ++v) sum[row][v] = V::zero();
        for (size_t t = 0; t < width; ++t) {
            typename V::type atom[kVectors];
            for (size_t v = 0; v < kVectors; ++v) atom[v] = V::load(transposed + t * padded + v * kWidth);
            for (size_t row = 0; row < 4; ++row) {
                const typename V::type x = V::broadcast(rows[row][t]);
                for (size_t v = 0; v < kVectors; ++v) sum[row][v] = V::fma(x, atom[v], sum[row][v]);
            }
        }
        for (size_t row = 0; row < 4; ++row)
            for (size_t v = 0; v < kVectors; ++v) V::store(out[row] + v * kWidth, sum[row][v]);
    }

    static void correlate(const float* const* rows, const Tables& t, size_t width, float* const* out) {
        float* shifted[4];
        size_t a = 0;
        for (; a + kGroup * kWidth <= t.padded; a += kGroup * kWidth) {
            for (size_t row = 0; row < 4; ++row) shifted[row] = out[row] + a;
            correlate_some<kGroup>(rows, t.transposed + a, width, t.padded, shifted);
        }
        for (; a < t.padded; a += kWidth) {
            for (size_t row = 0; row < 4; ++row) shifted[row] = out[row] + a;
            correlate_some<1>(rows, t.transposed + a, width, t.padded, shifted);
        }
    }

    static void prepare(const PursuitJob& job, size_t block, const Tables& t) {
        const size_t r = job.atom_count, b = job.width;
        const float* atoms = job.atoms + block * r * b;
        for (size_t a = 0; a < r; ++a) {
            double energy = 0;
            for (size_t i = 0; i < b; ++i) energy += double(atoms[a * b + i]) * atoms[a * b + i];
            t.inverse[a] = energy > 0 ? float(1 / sqrt(energy)) : 0;
            if (!(t.inverse[a] <= 3e38f)) t.inverse[a] = 0;  // an atom of denormal numbers
            for (size_t i = 0; i < b; ++i) t.unit[a * b + i] = atoms[a * b + i] * t.inverse[a];
        }
        for (size_t i = 0; i < b; ++i) {
            for (size_t a = 0; a < r; ++a) t.transposed[i * t.padded + a] = t.unit[a * b + i];
            for (size_t a = r; a < t.padded; ++a) t.transposed[i * t.padded + a] = 0;
        }
        for (size_t a = 0; a < r; a += 4) {
            const float* rows[4];
            float* out[4];
            for (size_t i = 0; i < 4; ++i) {
                const size_t atom = a + i < r ? a + i : r - 1;
                rows[i] = t.unit + atom * b;
                out[i] = t.gram + atom * t.padded;
            }
            correlate(rows, t, b, out);
        }
    }

    // The largest score and the first atom that has it.
    static Choice first_best(const float* scores, size_t padded, typename V::type best) {
        const float most = V::reduce_max(best);
        const typename V::type wanted = V::broadcast(most);
        for (size_t a = 0; a < padded; a += 64) {
            const size_t vectors = (padded - a < 64 ? padded - a : 64) / kWidth;
            uint64_t found = 0;
            for (size_t v = 0; v < vectors; ++v)
                found |= uint64_t(V::equal(V::abs(V::load(scores + a + v * kWidth)), wanted)) << (v * kWidth);
            if (found) return {a + size_t(__builtin_ctzll(found)), most};
        }
        return {0, 0};  // not a number
    }

    static Choice select(const float* correlation, const float* height, size_t padded, bool gain, float* scores) {
        typename V::type best = V::zero();
        if (!gain) {
            for (size_t a = 0; a < padded; a += kWidth) best = V::max(best, V::abs(V::load(correlation + a)));
            return first_best(correlation, padded, best);
        }
        for (size_t a = 0; a < padded; a += kWidth) {
            const typename V::type c = V::load(correlation + a);
            const typename V::type score = V::mul(V::mul(c, c), V::inverse_above(V::load(height + a), kDependent));
            V::store(scores + a, score);
            best = V::max(best, score);
        }
        return first_best(scores, padded, best);
    }

    // v_j = (gram - sum_i L_i v_i) * inverse; c -= z v_j; h -= v_j^2; and the next choice.
    template <size_t kBefore>
    static Choice advance(const float* gram, const float* before, size_t many, const float* factor, float inverse,
                          float z, size_t padded, float* correlation, float* height, bool gain, float* scores) {
        const size_t steps = kBefore < 4 ? kBefore : many;
        float* direction = const_cast<float*>(before) + steps * padded;
        const typename V::type scale = V::broadcast(inverse), minus_z = V::broadcast(-z);
        typename V::type best = V::zero();
        for (size_t a = 0; a < padded; a += kWidth) {
            typename V::type x = V::load(gram + a);
            for (size_t i = 0; i < steps; ++i)
                x = V::fma(V::broadcast(-factor[i]), V::load(before + i * padded + a), x);
            x = V::mul(x, scale);
            V::store(direction + a, x);
            const typename V::type c = V::fma(minus_z, x, V::load(correlation + a));
            V::store(correlation + a, c);
            if (gain) {
                const typename V::type h = V::sub(V::load(height + a), V::mul(x, x));
                V::store(height + a, h);
                const typename V::type score = V::mul(V::mul(c, c), V::inverse_above(h, kDependent));
                V::store(scores + a, score);
                best = V::max(best, score);
            } else {
                best = V::max(best, V::abs(c));
            }
        }
        return first_best(gain ? scores : correlation, padded, best);
    }

    static Choice advance_any(size_t steps, const float* gram, const float* before, const float* factor,
                              float inverse, float z, size_t padded, float* correlation, float* height, bool gain,
                              float* scores) {
#define LEANMATCH_ADVANCE(N) \
    return advance<N>(gram, before, steps, factor, inverse, z, padded, correlation, height, gain, scores)
        switch (steps) {
            case 0: LEANMATCH_ADVANCE(0);
            case 1: LEANMATCH_ADVANCE(1);
            case 2: LEANMATCH_ADVANCE(2);
            case 3: LEANMATCH_ADVANCE(3);
            default: LEANMATCH_ADVANCE(4);
        }
#undef LEANMATCH_ADVANCE
    }

    // x of L^T x = z, in place. A row of L whose diagonal is 0 stands for an atom that takes no part.
    static void back_substitute(const float* factor, float* z, size_t k) {
        for (size_t j = k; j-- > 0;) {
            float sum = z[j];
            for (size_t i = j + 1; i < k; ++i) sum -= factor[i * k + j] * z[i];
            const float diagonal = factor[j * k + j];
            z[j] = diagonal > 0 ? sum / diagonal : 0;
        }
    }

    static float dot(const float* x, const float* y, size_t size) {
        size_t i = 0;
        float sum = 0;
        if (size >= kWidth) {
            typename V::type sums = V::zero();
            for (; i + kWidth <= size; i += kWidth) sums = V::fma(V::load_any(x + i), V::load_any(y + i), sums);
            sum = V::reduce_sum(sums);
        }
        for (; i < size; ++i) sum += x[i] * y[i];
        return sum;
    }

    // |row - sum_j x_j atom_j|^2 of unit atoms, as it is and not as the recursion thinks.
    static float squared_error(const Tables& t, const float* row, size_t width, const size_t* support, size_t k,
                               const float* x) {
        size_t c = 0;
        float error = 0;
        if (width >= kWidth) {
            typename V::type sum = V::zero();
            for (; c + kWidth <= width; c += kWidth) {
                typename V::type left = V::load_any(row + c);
                for (size_t j = 0; j < k; ++j)
                    left = V::fma(V::broadcast(-x[j]), V::load_any(t.unit + support[j] * width + c), left);
                sum = V::fma(left, left, sum);
            }
            error = V::reduce_sum(sum);
        }
        for (; c < width; ++c) {
            float left = row[c];
            for (size_t j = 0; j < k; ++j) left -= x[j] * t.unit[support[j] * width + c];
            error += left * left;
        }
        return error;
    }

    // Least squares on a given support; coefficients of unit atoms into z.
    static void solve(const Tables& t, const float* row, size_t width, const size_t* support, size_t k,
                       float* factor, float* z) {
        for (size_t j = 0; j < k; ++j) {
            const float* gram = t.gram + support[j] * t.padded;
            float* line = factor + j * k;
            float height = gram[support[j]], value = dot(t.unit + support[j] * width, row, width);
            for (size_t i = 0; i < j; ++i) {
                const float* other = factor + i * k;
                float sum = gram[support[i]];
                for (size_t l = 0; l < i; ++l) sum -= line[l] * other[l];
                line[i] = other[i] > 0 ? sum / other[i] : 0;
                height -= line[i] * line[i];
                value -= line[i] * z[i];
            }
            if (height > kDependent) {
                line[j] = sqrtf(height);
                z[j] = value / line[j];
            } else {
                for (size_t i = 0; i <= j; ++i) line[i] = 0;
                z[j] = 0;
            }
        }
        back_substitute(factor, z, k);
    }

    static bool used(const size_t* chosen, size_t count, size_t atom) {
        for (size_t i = 0; i < count; ++i)
            if (chosen[i] == atom) return true;
        return false;
    }

    static bool pursue(const PursuitJob& job, size_t block, size_t begin, size_t end, float* scratch);
};

// One row of a tile as the pursuit goes on.
struct Progress {
    const float* row;
    float* correlation;
    float* height;
    float* directions;
    float* factor;
    float* z;
    size_t* chosen;
    Choice next;
    bool done;  // nothing more to explain: the atoms left over get 0
};

// Makes sure that progress.next is a new atom that does not depend on those chosen; fills in L and h of step j.
// Returns L_jj, or 0 where no atom is left that lowers the error.
template <class V>
float admit(Progress& p, const PursuitJob& job, const Tables& t, size_t j, bool gain, float* scores) {
    float* line = p.factor + j * job.nonzeros;
    for (;;) {
        if (!(p.next.score > 0)) return 0;
        const size_t atom = p.next.atom;
        if (!Pursuit<V>::used(p.chosen, j, atom)) {
            float height = t.gram[atom * t.padded + atom];
            for (size_t i = 0; i < j; ++i) {
                line[i] = p.directions[i * t.padded + atom];
                height -= line[i] * line[i];
            }
            if (height > kDependent) return sqrtf(height);
        }
        p.correlation[atom] = 0;
        p.next = Pursuit<V>::select(p.correlation, p.height, t.padded, gain, scores);
    }
}

template <class V>
void finish(Progress& p, size_t from, size_t k) {
    size_t atom = 0;
    for (size_t j = from; j < k; ++j) {
        while (Pursuit<V>::used(p.chosen, j, atom)) ++atom;
        p.chosen[j] = atom;
        p.z[j] = 0;
        for (size_t i = 0; i <= j; ++i) p.factor[j * k + i] = 0;
    }
    p.done = true;
}

// beam_kernel.h
template <class V>
void pursue_beam(const PursuitJob& job, const Tables& t, Progress* tile, size_t count, float* memory);

template <class V>
bool Pursuit<V>::pursue(const PursuitJob& job, size_t block, size_t begin, size_t end, float* scratch) {
    const size_t k = job.nonzeros, b = job.width, stride = job.blocks * b;
    const bool gain = job.selection == leanmatch::Selection::gain, refit = job.support != nullptr;
    const Tables t = layout(job, scratch);
    prepare(job, block, t);
    size_t* chosen = reinterpret_cast<size_t*>(round_up(reinterpret_cast<uintptr_t>(t.z + kTileRows * k), 8));
    bool finite = true;
    Progress tile[kTileRows];
    for (size_t first = begin; first < end; first += kTileRows) {
        const size_t count = end - first < kTileRows ? end - first : kTileRows;
        for (size_t i = 0; i < kTileRows; ++i) {
            Progress& p = tile[i];
            p.row = job.weight + (first + (i < count ? i : count - 1)) * stride + block * b;
            p.correlation = t.tile + i * (k + 2) * t.padded;
            p.height = p.correlation + t.padded;
            p.directions = p.height + t.padded;
            p.factor = t.factor + i * k * k;
            p.z = t.z + i * k;
            p.chosen = chosen + i * k;
            p.done = false;
            if (first + i + kTileRows < end) __builtin_prefetch(p.row + kTileRows * stride);
        }
        if (!refit) {
            for (size_t i = 0; i < count; i += 4) {
                const float* rows[4];
                float* out[4];
                for (size_t j = 0; j < 4; ++j) {
                    rows[j] = tile[i + j].row;
                    out[j] = tile[i + j].correlation;
                }
                correlate(rows, t, b, out);
            }
            for (size_t i = 0; i < count; ++i) {
                Progress& p = tile[i];
                if (gain)
                    for (size_t a = 0; a < t.padded; ++a) p.height[a] = a < job.atom_count && t.inverse[a] > 0;
                if (job.beam == 1)
                    p.next = select(p.correlation, p.height, t.padded, gain, p.directions + (k - 1) * t.padded);
            }
            if (job.beam > 1) pursue_beam<V>(job, t, tile, count, scratch + leanmatch::pursuit_scratch(job));
            for (size_t j = 0; j < k && job.beam == 1; ++j) {
                for (size_t i = 0; i < count; ++i) {
                    Progress& p = tile[i];
                    if (p.done) continue;
                    float* scores = p.directions + (k - 1) * t.padded;  // v_{k-1} itself is never needed
                    const float diagonal = admit<V>(p, job, t, j, gain, scores);
                    if (!(diagonal > 0)) {
                        finish<V>(p, j, k);
                        continue;
                    }
                    const size_t atom = p.next.atom;
                    const float inverse = 1 / diagonal, z = p.correlation[atom] * inverse;
                    p.chosen[j] = atom;
                    p.factor[j * k + j] = diagonal;
                    p.z[j] = z;
                    if (j + 1 < k)
                        p.next = advance_any(j, t.gram + atom * t.padded, p.directions, p.factor + j * k, inverse, z,
                                             t.padded, p.correlation, p.height, gain, scores);
                }
            }
            for (size_t i = 0; i < count; ++i) back_substitute(tile[i].factor, tile[i].z, k);
        }
        for (size_t i = 0; i < count; ++i) {
            Progress& p = tile[i];
            const size_t cell = (first + i) * job.blocks + block;
            if (refit) {
                for (size_t j = 0; j < k; ++j) p.chosen[j] = read_index(job.support, job.wide, cell * k + j);
                solve(t, p.row, b, p.chosen, k, p.factor, p.z);
            }
            const float error = squared_error(t, p.row, b, p.chosen, k, p.z);
            float check = error * 0;
            for (size_t c = 0; c < b; ++c) check += p.row[c] * 0;
            for (size_t j = 0; j < k; ++j) {
                if (!refit) write_index(job.indices, job.wide, cell * k + j, p.chosen[j]);
                const float value = p.z[j] * t.inverse[p.chosen[j]];
                job.values[cell * k + j] = value;
                check += value * 0;
            }
            finite = finite && check == 0;
            job.errors[cell] = error;
        }
    }
    return finite;
}

}  // namespace

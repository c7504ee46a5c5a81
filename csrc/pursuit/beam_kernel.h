// The pursuit with several supports kept at every step (a beam). Included by one file per level; C headers only.
//
// As in kernel.h with Selection::gain, but the `beam` supports that explain most go on, not only the best.
// Supports form a tree: a node keeps its own v, c and h and finds those of its ancestors through `parent`.
#pragma once

#include "kernel.h"

namespace {

struct Node {
    float* direction;    // v of this node's atom
    float* correlation;  // c and h once it is chosen
    float* height;
    float* factor;       // its row of L, k floats
    size_t parent, atom;
    uint64_t key;        // of the set of atoms down to here: a sum, so that order plays no part
    float z, diagonal, energy;
};

struct Candidate {
    size_t parent, atom;
    uint64_t key;
    float energy;  // explained once it is added
};

inline uint64_t atom_key(size_t atom) {
    uint64_t x = (atom + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 29);
}

template <class V>
struct Beam {
    using P = Pursuit<V>;
    static constexpr size_t kWidth = V::kWidth;

    const PursuitJob& job;
    const Tables& t;
    float* scores;
    Node* nodes;  // level j of the tree has nodes 1 + j beam + (0 .. beam - 1); node 0 is the root
    Candidate* list;
    size_t listed;

    size_t node_at(size_t level, size_t slot) const { return 1 + level * job.beam + slot; }

    // Scores of all atoms as children of `node`, and the best of them below `bound`.
    Choice best_child(const Node& node, bool fresh, float bound) {
        typename V::type best = V::zero();
        for (size_t a = 0; a < t.padded; a += kWidth) {
            typename V::type score;
            if (fresh) {
                const typename V::type c = V::load(node.correlation + a);
                score = V::mul(V::mul(c, c), V::inverse_above(V::load(node.height + a), kDependent));
                V::store(scores + a, score);
            } else {
                score = V::zero_unless_below(V::load(scores + a), bound);
            }
            best = V::max(best, score);
        }
        return P::first_best(scores, t.padded, best);
    }

    void insert(const Candidate& candidate, size_t most) {
        for (size_t i = 0; i < listed; ++i)
            if (list[i].key == candidate.key) return;  // the same support, reached in another order
        size_t at = listed < most ? listed++ : most - 1;
        for (; at > 0 && list[at - 1].energy < candidate.energy; --at) list[at] = list[at - 1];
        list[at] = candidate;
    }

    // The children of one node that are among the `most` best so far join the list.
    void offer(size_t index, size_t most) {
        const Node& node = nodes[index];
        float bound = 0;
        for (size_t i = 0; i < most; ++i) {
            const Choice choice = best_child(node, i == 0, bound);
            const float energy = node.energy + choice.score;
            if (!(choice.score > 0) || (listed == most && !(energy > list[most - 1].energy))) return;
            insert({index, choice.atom, node.key + atom_key(choice.atom), energy}, most);
            bound = choice.score;
        }
    }

    void make(size_t level, size_t slot) {
        const Candidate& from = list[slot];
        const Node& parent = nodes[from.parent];
        Node& node = nodes[node_at(level, slot)];
        node.parent = from.parent;
        node.atom = from.atom;
        node.key = from.key;
        const float* ancestors[leanmatch::kMostBeamNonzeros];
        float height = t.gram[from.atom * t.padded + from.atom];
        size_t up = from.parent;
        for (size_t i = level; i-- > 0; up = nodes[up].parent) {
            ancestors[i] = nodes[up].direction;
            node.factor[i] = ancestors[i][from.atom];
            height -= node.factor[i] * node.factor[i];
        }
        node.diagonal = height > kDependent ? sqrtf(height) : sqrtf(kDependent);
        node.factor[level] = node.diagonal;
        node.z = parent.correlation[from.atom] / node.diagonal;
        node.energy = parent.energy + node.z * node.z;
        if (level + 1 == job.nonzeros) return;
        const typename V::type scale = V::broadcast(1 / node.diagonal), minus_z = V::broadcast(-node.z);
        for (size_t a = 0; a < t.padded; a += kWidth) {
            typename V::type x = V::load(t.gram + from.atom * t.padded + a);
            for (size_t i = 0; i < level; ++i)
                x = V::fma(V::broadcast(-node.factor[i]), V::load(ancestors[i] + a), x);
            x = V::mul(x, scale);
            V::store(node.direction + a, x);
            V::store(node.correlation + a, V::fma(minus_z, x, V::load(parent.correlation + a)));
            V::store(node.height + a, V::sub(V::load(parent.height + a), V::mul(x, x)));
        }
    }

    // The tree of one row, whose correlations are in the root. Fills `p` as the greedy pursuit does.
    void grow(Progress& p) {
        const size_t k = job.nonzeros;
        size_t best = 0, level = 0;
        for (size_t width = 1; level < k; ++level) {
            listed = 0;
            const size_t most = level + 1 == k ? 1 : job.beam;
            for (size_t slot = 0; slot < width; ++slot) offer(level ? node_at(level - 1, slot) : 0, most);
            if (listed == 0) break;
            width = listed;
            for (size_t slot = 0; slot < width; ++slot) make(level, slot);
            best = node_at(level, 0);
        }
        for (size_t j = level; j-- > 0; best = nodes[best].parent) {
            p.chosen[j] = nodes[best].atom;
            p.z[j] = nodes[best].z;
            for (size_t i = 0; i <= j; ++i) p.factor[j * k + i] = nodes[best].factor[i];
        }
        finish<V>(p, level, k);
    }
};

template <class V>
void pursue_beam(const PursuitJob& job, const Tables& t, Progress* tile, size_t count, float* memory) {
    const size_t k = job.nonzeros, nodes = 1 + k * job.beam;
    Beam<V> beam{job, t, memory, nullptr, nullptr, 0};
    float* vectors = memory + t.padded;
    float* factors = vectors + 3 * nodes * t.padded;
    beam.nodes = reinterpret_cast<Node*>(round_up(reinterpret_cast<uintptr_t>(factors + nodes * k), 8));
    beam.list = reinterpret_cast<Candidate*>(beam.nodes + nodes);
    for (size_t i = 0; i < nodes; ++i) {
        beam.nodes[i].direction = vectors + 3 * i * t.padded;
        beam.nodes[i].correlation = beam.nodes[i].direction + t.padded;
        beam.nodes[i].height = beam.nodes[i].correlation + t.padded;
        beam.nodes[i].factor = factors + i * k;
    }
    Node& root = beam.nodes[0];
    root.energy = 0;
    root.key = 0;
    for (size_t i = 0; i < count; ++i) {
        root.correlation = tile[i].correlation;
        root.height = tile[i].height;
        beam.grow(tile[i]);
    }
}

}  // namespace

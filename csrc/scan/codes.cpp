#include "codes.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>

#include "kernel.h"

namespace leanmatch {
namespace scan {
namespace {

constexpr std::size_t kBlockBytes = 256 * 1024;  // codes that stay in the second cache while all queries see them
constexpr int kOffset = 128;                     // what stored codes are above codes

using Key = std::int64_t;  // orders by sum, then by row, the lower row being the greater key

Key key_of(std::int32_t sum, std::int32_t row) {
    return Key((std::uint64_t(std::uint32_t(sum)) << 32) | std::uint32_t(~row));
}
std::int32_t sum_of(Key key) { return std::int32_t(std::uint64_t(key) >> 32); }
std::int32_t row_of(Key key) { return ~std::int32_t(std::uint32_t(std::uint64_t(key))); }

// Keeps the best `fetch` candidates and raises the bar to the worst of them.
void shrink(Candidates& found, std::int32_t fetch, std::vector<Key>& keys) {
    if (found.count <= fetch) return;
    keys.clear();
    for (std::int32_t i = 0; i < found.count; i++) keys.push_back(key_of(found.sums[i], found.rows[i]));
    std::nth_element(keys.begin(), keys.begin() + (fetch - 1), keys.end(), std::greater<Key>());
    for (std::int32_t i = 0; i < fetch; i++) {
        found.sums[i] = sum_of(keys[std::size_t(i)]);
        found.rows[i] = row_of(keys[std::size_t(i)]);
    }
    found.count = fetch;
    found.above = sum_of(keys[std::size_t(fetch - 1)]);
}

}  // namespace

Codes::Codes(int rows, int dimension)
    : rows_(rows),
      dimension_(dimension),
      steps_((dimension + kDepth - 1) / kDepth),
      groups_((rows + kLanes - 1) / kLanes) {
    // so that a sum of products of 8-bit numbers stays within 32 bits
    if (rows < 0 || dimension < 1 || dimension > 32768) throw std::invalid_argument("rows or dimension out of range");
    packed_ = linear::Buffer<std::uint8_t>(std::size_t(groups_) * std::size_t(steps_) * kLanes * kDepth);
    all_.assign(std::size_t(groups_) * 2, 0);
    for (int row = 0; row < rows; row++) all_[std::size_t(row / 8)] |= std::uint8_t(1u << (row % 8));
}

void Codes::put(int start, int count, const std::int8_t* codes) {
    if (start < 0 || count < 0 || start > rows_ - count) throw std::invalid_argument("there are no such rows");
    for (int i = 0; i < count; i++) {
        const int row = start + i;
        std::uint8_t* to = packed_.data() +
                           std::size_t(row / kLanes) * std::size_t(steps_) * kLanes * kDepth +
                           std::size_t(row % kLanes) * kDepth;
        const std::int8_t* from = codes + std::size_t(i) * std::size_t(dimension_);
        for (int j = 0; j < dimension_; j++)
            to[std::size_t(j / kDepth) * kLanes * kDepth + std::size_t(j % kDepth)] =
                std::uint8_t(int(from[j]) + kOffset);
    }
}

void Codes::search(const std::int8_t* queries, const float* exact, int count, const std::int32_t* fetch, int width,
                   const float* vectors, const std::uint8_t* keep, double rounding, double* scores,
                   std::int64_t* out, std::int32_t* worst) const {
    const std::size_t group_bytes = std::size_t(steps_) * kLanes * kDepth;
    const int block = std::max(8, int(kBlockBytes / group_bytes) / 8 * 8);
    std::vector<std::uint8_t> kept;
    if (keep) {
        kept = all_;
        for (std::size_t i = 0; i < (std::size_t(rows_) + 7) / 8; i++) kept[i] &= keep[i];
    }
    // queries padded to whole steps; the padding of the rows' codes is multiplied by zero
    linear::Buffer<std::int8_t> padded(std::size_t(count) * std::size_t(steps_) * kDepth);
    std::vector<std::int32_t> offsets(static_cast<std::size_t>(count));
    std::vector<Candidates> found(static_cast<std::size_t>(count));
    std::size_t room = 0;
    for (int q = 0; q < count; q++) room += 2 * std::size_t(fetch[q]) + std::size_t(block) * kLanes;
    std::vector<std::int32_t> memory(2 * room);
    std::int32_t* next = memory.data();
    for (int q = 0; q < count; q++) {
        const std::int8_t* from = queries + std::size_t(q) * std::size_t(dimension_);
        std::int32_t sum = 0;
        for (int j = 0; j < dimension_; j++) {
            padded[std::size_t(q) * std::size_t(steps_) * kDepth + std::size_t(j)] = from[j];
            sum += from[j];
        }
        offsets[std::size_t(q)] = sum * kOffset;
        const std::size_t own = 2 * std::size_t(fetch[q]) + std::size_t(block) * kLanes;
        found[std::size_t(q)] = {std::numeric_limits<std::int32_t>::min(), 0, next, next + own};
        next += 2 * own;
    }
    std::vector<Key> keys;
#if defined(__x86_64__) || defined(_M_X64)
    for (int first = 0; first < groups_; first += block) {
        const int last = std::min(groups_, first + block);
        const std::uint8_t* bits = keep ? kept.data() : last == groups_ ? all_.data() : nullptr;
        groups_vnni(packed_.data(), steps_, first, last, padded.data(), count, bits, found.data());
        for (int q = 0; q < count; q++)
            if (found[std::size_t(q)].count > 2 * fetch[q]) shrink(found[std::size_t(q)], fetch[q], keys);
    }
#else
    throw std::invalid_argument("this build has no kernel for it");
#endif
    struct Scored {
        double rounded, score;
        std::int32_t row;
    };
    std::vector<Scored> line;
    for (int q = 0; q < count; q++) {
        Candidates& mine = found[std::size_t(q)];
        shrink(mine, fetch[q], keys);
        worst[q] = std::numeric_limits<std::int32_t>::min();
        if (mine.count == fetch[q])
            worst[q] = *std::min_element(mine.sums, mine.sums + mine.count) - offsets[std::size_t(q)];
        const float* x = exact + std::size_t(q) * std::size_t(dimension_);
        line.clear();
        for (std::int32_t i = 0; i < mine.count; i++) {
            const float* v = vectors + std::size_t(mine.rows[i]) * std::size_t(dimension_);
            double parts[4] = {0, 0, 0, 0};
            int j = 0;
            for (; j + 4 <= dimension_; j += 4)
                for (int p = 0; p < 4; p++) parts[p] += double(x[j + p]) * double(v[j + p]);
            for (; j < dimension_; j++) parts[0] += double(x[j]) * double(v[j]);
            const double score = (parts[0] + parts[1]) + (parts[2] + parts[3]);
            line.push_back({std::nearbyint(score * rounding), score, mine.rows[i]});
        }
        std::sort(line.begin(), line.end(), [](const Scored& a, const Scored& b) {
            return a.rounded != b.rounded ? a.rounded > b.rounded : a.row < b.row;
        });
        double* to = scores + std::size_t(q) * std::size_t(width);
        std::int64_t* rows = out + std::size_t(q) * std::size_t(width);
        for (std::size_t i = 0; i < std::size_t(width); i++) {
            to[i] = i < line.size() ? line[i].score : -std::numeric_limits<double>::infinity();
            rows[i] = i < line.size() ? line[i].row : -1;
        }
    }
}

}  // namespace scan
}  // namespace leanmatch

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

constexpr std::size_t kBlockBytes = 64 * 1024;  // codes that stay in the second cache while all queries see them
constexpr int kFirstGroups = 8;                  // of them, at the beginning
constexpr int kLoose = 32;                       // candidates too many that are not worth a selection
constexpr int kOffset = 128;                     // what stored codes are above codes

// This build's kernels; null where it has none.
#if defined(__x86_64__) || defined(_M_X64)
constexpr bool kHasKernel = true;
constexpr const char* kLevelName = "avx512_vbmi_vnni";
constexpr GroupsKernel* kGroups = groups_vnni;
constexpr ProductsKernel* kProducts = products_vnni;
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
constexpr bool kHasKernel = true;
constexpr const char* kLevelName = "neon_dotprod";
constexpr GroupsKernel* kGroups = groups_neon_dotprod;
constexpr ProductsKernel* kProducts = products_neon_dotprod;
#else
constexpr bool kHasKernel = false;
constexpr const char* kLevelName = "none";
constexpr GroupsKernel* kGroups = nullptr;
constexpr ProductsKernel* kProducts = nullptr;
#endif

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

const char* kernel_level() { return kLevelName; }

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
    if (!kHasKernel) throw std::invalid_argument("this build has no kernel for it");
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
    const auto room_for = [block](std::int32_t wanted) {
        return std::size_t(wanted) + kLoose + std::size_t(block + 1) * kLanes;
    };
    std::size_t room = 0;
    for (int q = 0; q < count; q++) room += room_for(fetch[q]);
    static thread_local std::vector<std::int32_t> memory;  // kept: new pages at every search would cost more than it
    if (memory.size() < 2 * room) memory.resize(2 * room);
    std::int32_t* next = memory.data();
    for (int q = 0; q < count; q++) {
        const std::int8_t* from = queries + std::size_t(q) * std::size_t(dimension_);
        std::int32_t sum = 0;
        for (int j = 0; j < dimension_; j++) {
            padded[std::size_t(q) * std::size_t(steps_) * kDepth + std::size_t(j)] = from[j];
            sum += from[j];
        }
        offsets[std::size_t(q)] = sum * kOffset;
        const std::size_t own = room_for(fetch[q]);
        found[std::size_t(q)] = {std::numeric_limits<std::int32_t>::min(), 0, next, next + own};
        next += 2 * own;
    }
    std::vector<Key> keys;
    // The first parts are small, so that every query has a bar before most rows are looked at.
    for (int first = 0, size = kFirstGroups; first < groups_; size = std::min(block, 2 * size)) {
        const int last = std::min(groups_, first + size);
        const std::uint8_t* bits = keep ? kept.data() : last == groups_ ? all_.data() : nullptr;
        kGroups(packed_.data(), steps_, first, last, padded.data(), count, bits, found.data());
        for (int q = 0; q < count; q++)
            if (found[std::size_t(q)].count > fetch[q] + kLoose) shrink(found[std::size_t(q)], fetch[q], keys);
        first = last;
    }
    struct Scored {
        double rounded, score;
        std::int32_t row;
    };
    std::vector<Scored> line;
    std::vector<double> products;
    for (int q = 0; q < count; q++) {
        Candidates& mine = found[std::size_t(q)];
        shrink(mine, fetch[q], keys);
        worst[q] = std::numeric_limits<std::int32_t>::min();
        if (mine.count == fetch[q])
            worst[q] = *std::min_element(mine.sums, mine.sums + mine.count) - offsets[std::size_t(q)];
        const float* x = exact + std::size_t(q) * std::size_t(dimension_);
        products.resize(std::size_t(mine.count));
        kProducts(x, vectors, dimension_, mine.rows, mine.count, products.data());
        line.clear();
        for (std::int32_t i = 0; i < mine.count; i++) {
            const double score = products[std::size_t(i)];
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

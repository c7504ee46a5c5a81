// The scan of 8-bit codes against plain loops: sums, order, ties, filters, lengths about every vector's width. Runs where the
// CPU has this build's kernel. Usage: check_scan
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "cpu/features.h"
#include "scan/codes.h"

using namespace leanmatch;

namespace {

std::mt19937 rng(17);
long long compared = 0;

// False: a difference, which is printed.
bool check(int rows, int dimension, int queries, int fetch, bool filtered) {
    const auto sz = [](int i) { return static_cast<std::size_t>(i); };
    const auto draw = [](std::size_t count) {
        std::vector<std::int8_t> out(count);
        for (std::int8_t& one : out) one = static_cast<std::int8_t>(int(rng() % 255) - 127);
        return out;
    };
    const std::vector<std::int8_t> codes = draw(sz(rows) * sz(dimension)), wanted = draw(sz(queries) * sz(dimension));
    const std::vector<float> vectors(codes.begin(), codes.end()), exact(wanted.begin(), wanted.end());
    std::vector<std::uint8_t> keep((sz(rows) + 7) / 8);
    for (std::uint8_t& one : keep) one = std::uint8_t(rng() & rng());
    scan::Codes packed(rows, dimension);
    packed.put(0, rows / 2, codes.data());
    packed.put(rows / 2, rows - rows / 2, codes.data() + sz(rows / 2) * sz(dimension));
    std::vector<double> scores(sz(queries) * sz(fetch));
    std::vector<std::int64_t> found(scores.size());
    std::vector<std::int32_t> most(sz(queries), fetch), worst(sz(queries));
    packed.search(wanted.data(), exact.data(), queries, most.data(), fetch, vectors.data(), filtered ? keep.data() : nullptr, 1e9,
                  scores.data(), found.data(), worst.data());
    for (int q = 0; q < queries; q++) {
        std::vector<std::pair<long long, int>> order;  // the vectors are the codes: scores are sums, in whole numbers
        for (int row = 0; row < rows; row++) {
            if (filtered && !(keep[sz(row / 8)] >> (row % 8) & 1)) continue;
            long long sum = 0;
            for (int j = 0; j < dimension; j++)
                sum += int(codes[sz(row) * sz(dimension) + sz(j)]) * int(wanted[sz(q) * sz(dimension) + sz(j)]);
            order.emplace_back(-sum, row);
        }
        std::sort(order.begin(), order.end());
        for (int i = 0; i < fetch; i++) {
            const bool any = sz(i) < order.size();
            const std::int64_t row = any ? order[sz(i)].second : -1;
            const double score = any ? double(-order[sz(i)].first) : -std::numeric_limits<double>::infinity();
            const std::size_t at = sz(q) * sz(fetch) + sz(i);
            compared++;
            if (found[at] == row && scores[at] == score) continue;
            std::printf("%d rows of %d, query %d of %d, place %d: row %lld, score %g instead of %lld, %g\n", rows, dimension, q,
                        queries, i, (long long)(found[at]), scores[at], (long long)(row), score);
            return false;
        }
    }
    return true;
}

}  // namespace

int main() {
    const Features features = cpu_features();
    for (const Level& level : levels()) {
        if (level.name != scan::kernel_level()) continue;
        for (const std::string& need : level.needs)
            if (std::find(features.begin(), features.end(), std::make_pair(need, true)) == features.end())
                return std::printf("check_scan: this CPU has no %s; levels: none\n", need.c_str()), 0;
        for (int dimension : {1, 3, 4, 7, 16, 33, 64, 129})
            for (int rows : {1, 15, 16, 17, 100, 1500})
                for (int queries : {0, 1, 2, 3, 4, 7, 8, 13})
                    for (int fetch : {1, 9, 60})
                        for (bool filtered : {false, true})
                            if (!check(rows, dimension, queries, fetch, filtered)) return 1;
        std::printf("check_scan: %lld rows; levels: %s\n", compared, level.name.c_str());
        return 0;
    }
    std::printf("check_scan: this build has no kernel; levels: none\n");
    return 0;
}

// Rows in 8-bit codes with scales (scan/scaled.h) against plain loops in float64: scores, order, ties, filters, parts that were
// added one after another. Usage: check_scaled
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "scan/scaled.h"

using namespace leanmatch;

namespace {

std::mt19937 rng(19);
long long compared = 0;

bool check(int rows, int dimension, int k, bool filtered) {
    const auto sz = [](int i) { return static_cast<std::size_t>(i); };
    std::vector<std::int8_t> codes(sz(rows) * sz(dimension));
    for (std::int8_t& one : codes) one = static_cast<std::int8_t>(int(rng() % 255) - 127);
    std::vector<float> scales(sz(rows)), query(sz(dimension));
    for (float& one : scales) one = float(rng() % 100) / 50.0f;
    for (float& one : query) one = float(int(rng() % 2001) - 1000) / 500.0f;
    for (int row = 7; row < rows; row += 7) {  // ties: a row like the one before
        std::copy_n(codes.begin() + std::ptrdiff_t(sz(row - 1) * sz(dimension)), dimension,
                    codes.begin() + std::ptrdiff_t(sz(row) * sz(dimension)));
        scales[sz(row)] = scales[sz(row - 1)];
    }
    std::vector<std::uint8_t> keep((sz(rows) + 7) / 8);
    for (std::uint8_t& one : keep) one = std::uint8_t(rng() & rng());
    scan::ScaledCodes packed(dimension);
    packed.add(codes.data(), scales.data(), rows / 3);
    packed.add(codes.data() + sz(rows / 3) * sz(dimension), scales.data() + rows / 3, rows - rows / 3);
    std::vector<std::int32_t> found(sz(k));
    std::vector<float> scores(sz(k));
    const int count = packed.top(query.data(), k, filtered ? keep.data() : nullptr, found.data(), scores.data());

    std::vector<double> exact(sz(rows));
    std::vector<int> order;
    double largest = 0.0;
    for (float one : query) largest = std::max(largest, std::fabs(double(one)));
    for (int row = 0; row < rows; row++) {
        for (int j = 0; j < dimension; j++)
            exact[sz(row)] += double(codes[sz(row) * sz(dimension) + sz(j)]) * double(query[sz(j)]);
        exact[sz(row)] *= double(scales[sz(row)]);
        if (!filtered || (keep[sz(row / 8)] >> (row % 8) & 1)) order.push_back(row);
    }
    const double tolerance = largest * 127.0 * dimension * 2.0 / scan::query_steps(dimension) + 1e-5 * largest * 127.0 * dimension;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return exact[sz(a)] > exact[sz(b)]; });
    if (count != std::min(k, int(order.size())))
        return std::printf("%d rows found of %zu that are kept, k=%d\n", count, order.size(), k), false;
    for (int i = 0; i < count; i++) {
        compared++;
        const double best = exact[sz(order[sz(i)])], score = double(scores[sz(i)]);
        const bool kept = !filtered || (keep[sz(found[sz(i)] / 8)] >> (found[sz(i)] % 8) & 1);
        const bool ordered = i == 0 || scores[sz(i - 1)] > scores[sz(i)] ||
                             (scores[sz(i - 1)] == scores[sz(i)] && found[sz(i - 1)] < found[sz(i)]);
        if (kept && ordered && std::fabs(score - exact[sz(found[sz(i)])]) <= tolerance && std::fabs(score - best) <= tolerance)
            continue;
        std::printf("%d rows of %d, place %d: row %d, score %g; %g is right for it and %g for the place (tolerance %g)%s%s\n", rows,
                    dimension, i, found[sz(i)], score, exact[sz(found[sz(i)])], best, tolerance, kept ? "" : ", left out",
                    ordered ? "" : ", out of order");
        return false;
    }
    return true;
}

}  // namespace

int main() {
    for (int dimension : {1, 3, 15, 16, 17, 33, 64, 129, 384, 1024})
        for (int rows : {0, 1, 3, 4, 17, 256, 300, 1500})
            for (int k : {0, 1, 9, 60, 2000})
                for (bool filtered : {false, true})
                    if (!check(rows, dimension, k, filtered)) return 1;
    std::printf("check_scaled: %lld rows; levels: %s\n", compared, scan::scaled_level());
    return 0;
}

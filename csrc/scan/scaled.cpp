#include "scaled.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernel.h"

namespace leanmatch {
namespace scan {

namespace {

constexpr int kBlockRows = 256;  // whose sums are made at a time

#if defined(__wasm_simd128__)
constexpr const char* kLevelName = "wasm";
constexpr ScaledSumsKernel* kSums = scaled_sums_wasm;
#else
void scaled_sums_portable(const std::int8_t* codes, int stride, int rows, const std::int16_t* query, std::int32_t* sums) {
    for (int row = 0; row < rows; row++, codes += stride) {
        std::int32_t sum = 0;
        for (int j = 0; j < stride; j++) sum += std::int32_t(codes[j]) * std::int32_t(query[j]);
        sums[row] = sum;
    }
}

constexpr const char* kLevelName = "portable";
constexpr ScaledSumsKernel* kSums = scaled_sums_portable;
#endif

struct Scored {
    float score;
    std::int32_t row;
};
bool better(const Scored& a, const Scored& b) { return a.score != b.score ? a.score > b.score : a.row < b.row; }

}  // namespace

const char* scaled_level() { return kLevelName; }

int query_steps(int dimension) {
    return std::min(32767, std::numeric_limits<std::int32_t>::max() / (127 * dimension));
}

ScaledCodes::ScaledCodes(int dimension) : dimension_(dimension), stride_((dimension + 15) / 16 * 16) {
    if (dimension < 1 || dimension > 32768)
        throw std::invalid_argument("codes of dimension " + std::to_string(dimension) + ": 1 to 32768 are possible");
}

void ScaledCodes::add(const std::int8_t* codes, const float* scales, int count) {
    if (count < 0 || count > std::numeric_limits<int>::max() - rows_)
        throw std::invalid_argument("there would be " + std::to_string(std::int64_t(rows_) + count) + " rows");
    for (int i = 0; i < count; i++)
        if (!(scales[i] >= 0.0f && std::isfinite(scales[i])))
            throw std::invalid_argument("the scale of row " + std::to_string(rows_ + i) + " is negative or not finite");
    Part part{linear::Buffer<std::int8_t>(std::size_t(count) * std::size_t(stride_)), {scales, scales + count}};
    for (int i = 0; i < count; i++) {
        const std::int8_t* from = codes + std::size_t(i) * std::size_t(dimension_);
        if (std::find(from, from + dimension_, std::int8_t(-128)) != from + dimension_)
            throw std::invalid_argument("row " + std::to_string(rows_ + i) + " has the code -128: codes are -127 to 127");
        std::copy(from, from + dimension_, part.codes.data() + std::size_t(i) * std::size_t(stride_));
    }
    parts_.push_back(std::move(part));
    rows_ += count;
}

std::size_t ScaledCodes::bytes() const {
    std::size_t total = 0;
    for (const Part& part : parts_) total += part.codes.bytes() + part.scales.size() * sizeof(float);
    return total;
}

int ScaledCodes::top(const float* query, int k, const std::uint8_t* keep, std::int32_t* rows, float* scores) const {
    if (k < 0) throw std::invalid_argument("the best " + std::to_string(k) + " rows");
    float largest = 0.0f;
    for (int j = 0; j < dimension_; j++) {
        if (!std::isfinite(query[j])) throw std::invalid_argument("the query holds NaN or infinite numbers");
        largest = std::max(largest, std::fabs(query[j]));
    }
    const float steps = float(query_steps(dimension_)), unit = largest / steps;
    linear::Buffer<std::int16_t> rounded{std::size_t(stride_)};
    for (int j = 0; j < dimension_ && unit > 0.0f; j++)
        rounded[std::size_t(j)] =
            std::int16_t(std::nearbyint(std::min(steps, std::max(-steps, query[j] / unit))));
    const std::size_t wanted = std::size_t(std::min(k, rows_));
    std::vector<Scored> heap;  // the worst of the best on top
    heap.reserve(wanted + 1);
    std::int32_t sums[kBlockRows];
    int first = 0;
    for (const Part& part : parts_) {
        const int count = int(part.scales.size());
        for (int start = 0; start < count && wanted > 0; start += kBlockRows) {
            const int here = std::min(kBlockRows, count - start);
            kSums(part.codes.data() + std::size_t(start) * std::size_t(stride_), stride_, here, rounded.data(), sums);
            for (int i = 0; i < here; i++) {
                const std::int32_t row = first + start + i;
                if (keep && !(keep[row / 8] >> (row % 8) & 1)) continue;
                const Scored one{part.scales[std::size_t(start + i)] * unit * float(sums[i]), row};
                if (heap.size() == wanted && !better(one, heap.front())) continue;
                heap.push_back(one);
                std::push_heap(heap.begin(), heap.end(), better);
                if (heap.size() <= wanted) continue;
                std::pop_heap(heap.begin(), heap.end(), better);
                heap.pop_back();
            }
        }
        first += count;
    }
    std::sort_heap(heap.begin(), heap.end(), better);
    for (std::size_t i = 0; i < heap.size(); i++) rows[i] = heap[i].row, scores[i] = heap[i].score;
    return int(heap.size());
}

}  // namespace scan
}  // namespace leanmatch

// The scan's C interface for JavaScript (web/src/runtime.ts). An instance of the module holds one set of rows.
#include <memory>
#include <stdexcept>

#include "arrays.h"
#include "scan/scaled.h"

namespace {

std::unique_ptr<leanmatch::scan::ScaledCodes> codes;

}  // namespace

LEANMATCH_EXPORT(scan_begin) void scan_begin(int dimension) {
    codes = std::make_unique<leanmatch::scan::ScaledCodes>(dimension);
}

LEANMATCH_EXPORT(scan_add) void scan_add(const std::int8_t* rows, const float* scales, int count) {
    codes->add(rows, scales, count);
}

// rows and scores (k,); returns how many were found.
LEANMATCH_EXPORT(scan_top)
int scan_top(const float* query, int k, const std::uint8_t* keep, std::int32_t* rows, float* scores) {
    return codes->top(query, k, keep, rows, scores);
}

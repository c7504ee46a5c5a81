// What one thread of one call works in. Buffers grow to what the largest group needed and are kept for the next call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "encoder.h"

namespace leanmatch {
namespace encoder {

// Memory aligned to 64 bytes; growing loses what was in it.
template <class Value>
class Buffer {
public:
    Buffer() = default;
    ~Buffer() { std::free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    void reserve(std::size_t count) {
        if (count <= size_) return;
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
        const std::size_t bytes = (count * sizeof(Value) + 127) / 64 * 64;
        data_ = static_cast<Value*>(std::aligned_alloc(64, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
        size_ = count;
    }
    Value* data() const { return data_; }

private:
    Value* data_ = nullptr;
    std::size_t size_ = 0;
};

class Workspace {
public:
    // Room for the shared activations of `tokens` tokens (0: another thread's workspace holds them), and for this
    // thread's own work on texts first .. last of the batch. Throws std::bad_alloc.
    void reserve(const Encoder& encoder, std::size_t tokens, const Batch& batch, std::size_t first, std::size_t last);

    // Shared by the threads of a group; rows are tokens of the group.
    Buffer<float> x;       // (T, width)
    Buffer<float> qkv[2];  // (T, widths of queries, keys and values), or one after the other
    Buffer<float> mixed;   // (T, width of queries): what attention gives

    // This thread's own.
    Buffer<float> embedded;  // (tile, width of the word embeddings), where they are projected
    Buffer<float> normed;    // (tile, width), where norms come first
    Buffer<float> inner;     // (tile, inner), twice where gated
    Buffer<std::int32_t> places;  // of this thread's tokens in their texts, where they are turned
    Buffer<float> scaled;    // (tile, widest input of a layer that scales its inputs)
    Buffer<float> heads;     // attention_scratch
    Buffer<float> pooled[2];
    Buffer<std::uint8_t> scratch;
    Buffer<std::uint8_t> codes;
    Buffer<float> scales;
    Buffer<std::int32_t> zeros;
};

}  // namespace encoder
}  // namespace leanmatch

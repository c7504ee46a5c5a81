// Aligned memory for packed weights, and the carving of scratch areas.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace leanmatch {
namespace linear {

constexpr std::size_t kAlign = 64;

inline std::size_t rounded(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// A zeroed array of plain values on a 64-byte boundary.
template <class T>
class Buffer {
public:
    explicit Buffer(std::size_t size = 0)
        : size_(size),
          data_(static_cast<T*>(::operator new(rounded(size * sizeof(T) + 1), std::align_val_t(kAlign)))) {
        std::memset(static_cast<void*>(data_), 0, size * sizeof(T));
    }
    Buffer(Buffer&& other) noexcept : size_(other.size_), data_(other.data_) {
        other.size_ = 0, other.data_ = nullptr;
    }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() { ::operator delete(data_, std::align_val_t(kAlign)); }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](std::size_t i) { return data_[i]; }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

private:
    std::size_t size_;
    T* data_;
};

// Takes aligned pieces off a scratch area.
class Scratch {
public:
    explicit Scratch(void* memory) : next_(static_cast<unsigned char*>(memory)) {}
    template <class T>
    T* take(std::size_t count) {
        T* piece = reinterpret_cast<T*>(next_);
        next_ += rounded(count * sizeof(T));
        return piece;
    }
    void* rest() { return next_; }

private:
    unsigned char* next_;
};

}  // namespace linear
}  // namespace leanmatch

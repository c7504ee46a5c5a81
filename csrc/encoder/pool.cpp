#include "pool.h"

#include <chrono>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace leanmatch {
namespace encoder {

namespace {

constexpr int kSpins = 2000;                              // about 30 microseconds
constexpr auto kAwake = std::chrono::microseconds(200);  // how long an idle worker looks for the next job before it sleeps

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

template <class Condition>
void spin_until(Condition condition) {
    for (int i = 0; i < kSpins; ++i) {
        if (condition()) return;
        pause();
    }
    while (!condition()) std::this_thread::yield();
}

}  // namespace

void Barrier::wait() {
    if (threads_ == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
        ticket_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int threads, const std::function<void(int)>& job) {
    if (threads <= 1) {
        job(0);
        return;
    }
    while (int(workers_.size()) < threads - 1) {
        const int rank = int(workers_.size()) + 1;
        const unsigned seen = ticket_.load();
        workers_.emplace_back([this, rank, seen] { work(rank, seen); });
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        job_ = &job;
        wanted_ = threads;
        running_ = int(workers_.size());
        ticket_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job(0);
    spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
}

// Every worker answers every ticket (those that the job does not want at once), so that none is missed or answered twice.
void Pool::work(int rank, unsigned seen) {
    for (;;) {
        const auto until = std::chrono::steady_clock::now() + kAwake;
        while (ticket_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until) {
            for (int i = 0; i < 32; ++i) pause();
        }
        if (ticket_.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return ticket_.load(std::memory_order_acquire) != seen; });
        }
        ++seen;
        if (stop_) return;
        if (rank < wanted_.load(std::memory_order_acquire)) (*job_)(rank);
        running_.fetch_sub(1, std::memory_order_acq_rel);
    }
}

}  // namespace encoder
}  // namespace leanmatch

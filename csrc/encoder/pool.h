// Threads that stay: a pool runs one job at a time on the caller and some workers, which meet at barriers. WebAssembly has
// one thread, which runs every job alone and waits for nobody.
#pragma once

#include <functional>
#if !defined(__wasm__)
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>
#endif

namespace leanmatch {
namespace encoder {

#if defined(__wasm__)

struct Mutex {};
struct Lock {
    explicit Lock(Mutex&) {}
};
struct TryLock {
    TryLock(Mutex&, bool) {}
    explicit operator bool() const { return false; }
};

class Barrier {
public:
    explicit Barrier(int) {}
    void wait() {}
};

class Pool {
public:
    void run(int, const std::function<void(int)>& job) { job(0); }
};

#else

using Mutex = std::mutex;
using Lock = std::lock_guard<std::mutex>;

// Holds a mutex if it is wanted and nobody else holds it.
class TryLock {
public:
    TryLock(Mutex& mutex, bool wanted) : lock_(mutex, std::defer_lock) {
        if (wanted) (void)lock_.try_lock();
    }
    explicit operator bool() const { return lock_.owns_lock(); }

private:
    std::unique_lock<std::mutex> lock_;
};

// Where the threads of one job wait for one another. Waiting spins for some microseconds, then yields.
class Barrier {
public:
    explicit Barrier(int threads) : threads_(threads) {}
    void wait();

private:
    const int threads_;
    std::atomic<int> arrived_{0};
    std::atomic<int> round_{0};
};

// Not usable after a fork in the child (its workers are gone): make another there, see Encoder::state.
class Pool {
public:
    Pool() = default;
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // job(0) here and job(1) .. job(threads - 1) on workers; returns when all are done. One caller at a time.
    // A job must not throw.
    void run(int threads, const std::function<void(int)>& job);

private:
    void work(int rank, unsigned seen);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    const std::function<void(int)>* job_ = nullptr;
    std::atomic<unsigned> ticket_{0};  // one more for each job
    std::atomic<int> wanted_{0};       // threads of the current job
    std::atomic<int> running_{0};
    std::atomic<bool> stop_{false};
};

#endif

}  // namespace encoder
}  // namespace leanmatch

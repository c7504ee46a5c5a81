// parallel_for: tasks over a few threads of its own. No pool: a call that is worth it takes far longer than the start
// of its threads (about 20 us each), and nothing is left behind when it returns.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace leanmatch {

// Calls `work(task, worker)` once for every task below `tasks`; `worker` is below `threads`, and no two calls of one
// worker overlap. Tasks are handed out in order, whoever is free takes the next. `work` must not throw.
template <class Work>
void parallel_for(std::size_t tasks, std::size_t threads, Work&& work) {
    const std::size_t workers = std::min(tasks, std::max<std::size_t>(threads, 1));
    std::atomic<std::size_t> next{0};
    const auto run = [&](std::size_t worker) {
        for (std::size_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) work(task, worker);
    };
    std::vector<std::thread> others;
    others.reserve(workers);
    for (std::size_t worker = 1; worker < workers; ++worker) {
        try {
            others.emplace_back(run, worker);
        } catch (...) {  // the system has no thread left: those that run, and this one, do the work
            break;
        }
    }
    run(0);
    for (std::thread& thread : others) thread.join();
}

}  // namespace leanmatch

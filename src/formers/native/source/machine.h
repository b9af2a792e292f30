// Which kernel this machine runs, and how work is shared among threads. Nobody waits by spinning.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "problem.h"

#ifdef FORMERS_X86
extern "C" const Kernel kernel_avx512, kernel_avx2;
#endif
extern "C" const Kernel kernel_plain;

#define FACE extern "C" __attribute__((visibility("default")))

enum Answer { DONE, NO_MEMORY, NO_KERNEL };

inline bool runs_here(const char* name) {
#ifdef FORMERS_X86
    __builtin_cpu_init();
    if (!std::strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !std::strcmp(name, "plain");
}

inline const Kernel* find(const char* name) {
    if (!runs_here(name)) return nullptr;
#ifdef FORMERS_X86
    if (!std::strcmp(name, "avx512")) return &kernel_avx512;
    if (!std::strcmp(name, "avx2")) return &kernel_avx2;
#endif
    return &kernel_plain;
}

// How far shared work has come.
struct Board {
    std::atomic<int64_t> next{0};
    std::mutex door;
    std::condition_variable ended;
    int64_t done = 0;
};

// Calls work(item, thread) for every item; threads take them in order. It waits for items and not for threads: one that
// the machine has not let run yet finds nothing left to do, and keeps nobody waiting.
template <class Work>
void share(int64_t items, int64_t threads, Work&& work) {
    if (items < 2 || threads < 2) {
        for (int64_t item = 0; item < items; item++) work(item, 0);
        return;
    }
    const auto board = std::make_shared<Board>();
    const auto labour = [board, items, &work](int64_t thread) {
        int64_t mine = 0;
        for (int64_t item; (item = board->next.fetch_add(1)) < items; mine++) work(item, thread);
        if (!mine) return;
        const std::lock_guard<std::mutex> inside(board->door);
        board->done += mine;
        if (board->done == items) board->ended.notify_one();
    };
    try {
        for (int64_t t = 1; t < threads && t < items; t++) std::thread(labour, t).detach();
    } catch (const std::system_error&) {
        // The machine gives no more threads: those that there are do the work.
    }
    labour(0);
    std::unique_lock<std::mutex> inside(board->door);
    board->ended.wait(inside, [&] { return board->done == items; });
}

// Work shared among threads: those that the process keeps for it, where it has any, else new ones.
//
// PyTorch's own (OpenMP's) spin for some milliseconds behind each of its operators, so that new threads would find no core
// that is free. Ours do not spin.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

// GOMP_parallel, which is how code compiled for OpenMP starts them: calls work(given) in each of `threads` and waits.
using Fork = void (*)(void (*work)(void*), void* given, unsigned threads, unsigned flags);

// What Python found in the process when it loaded the library; none where it is null.
inline Fork& fork_of_process() {
    static Fork fork = nullptr;
    return fork;
}

// How far shared work has come.
struct Board {
    std::atomic<int64_t> next{0};
    std::mutex door;
    std::condition_variable ended;
    int64_t done = 0;
};

// Calls labour(thread) in `threads` threads, of which the caller is one.
template <class Labour>
void in_kept_threads(const Labour& labour, int64_t threads) {
    struct Team {
        const Labour& labour;
        std::atomic<int64_t> next;
    } team = {labour, {0}};
    const auto enter = [](void* given) {
        Team& own = *static_cast<Team*>(given);
        own.labour(own.next.fetch_add(1));
    };
    fork_of_process()(enter, &team, unsigned(threads), 0);
}

// Calls work(item, thread) for every item; threads take them in order. It waits for items and not for threads: one that
// the machine has not let run yet finds nothing left to do, and keeps nobody waiting, if it is a new one.
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
    if (fork_of_process()) return in_kept_threads(labour, threads < items ? threads : items);
    try {
        for (int64_t t = 1; t < threads && t < items; t++) std::thread(labour, t).detach();
    } catch (const std::system_error&) {
        // The machine gives no more threads: those that there are do the work.
    }
    labour(0);
    std::unique_lock<std::mutex> inside(board->door);
    board->ended.wait(inside, [&] { return board->done == items; });
}

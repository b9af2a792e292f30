#include "crew.h"

#include <algorithm>

namespace {

// How long a helper looks for the next operation of a token: most of them are shorter, and waking takes as long as they.
constexpr std::chrono::microseconds PATIENCE{400};
constexpr std::chrono::milliseconds GOOD{500};     // after so long without a stall, a helper's past is forgotten

}  // namespace

void Job::publish(int64_t count, void (*fn)(void*, int64_t), void* argument) {
    const uint64_t next = uint64_t(number() + 1) << 32;
    done.store(0, std::memory_order_relaxed);
    pieces.store(count, std::memory_order_relaxed);
    work.store(fn, std::memory_order_relaxed);
    with.store(argument, std::memory_order_relaxed);
    left.store(next | uint64_t(count));
}

void Job::labour(uint32_t of) {
    uint64_t now = left.load(std::memory_order_acquire);
    while (uint32_t(now >> 32) == of && uint32_t(now)) {
        const uint32_t there = uint32_t(now), some = std::max(1u, there / (workers + 1));
        if (!left.compare_exchange_weak(now, now - some, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        const int64_t first = pieces.load(std::memory_order_relaxed) - int64_t(there);
        const auto fn = work.load(std::memory_order_relaxed);
        for (int64_t piece = first; piece < first + some; piece++) fn(with.load(std::memory_order_relaxed), piece);
        done.fetch_add(some, std::memory_order_release);
        now = left.load(std::memory_order_acquire);
    }
}

Helper::~Helper() {
    leaving.store(true);
    wake();
    thread.join();
}

void Helper::wake() {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        asleep.store(false);
    }
    woken.notify_one();
}

void Helper::live() {
    uint32_t seen = 0;
    Clock::time_point since = Clock::now();
    while (!leaving.load()) {
        const uint32_t number = job.number();
        if (number != seen && !resting.load()) {
            working.store(true);
            job.labour(number);
            working.store(false);
            seen = number;
            since = Clock::now();
            continue;
        }
        for (int i = 0; i < 32 && job.number() == seen; i++) breathe();
        if (!resting.load() && Clock::now() - since < PATIENCE) {
            std::this_thread::yield();  // another process that waits for this core gets it
            continue;
        }
        sleep(seen);
        since = Clock::now();
    }
}

void Helper::sleep(uint32_t seen) {
    std::unique_lock<std::mutex> lock(mutex);
    asleep.store(true);
    if (leaving.load() || (job.number() != seen && !resting.load())) {
        asleep.store(false);
        return;
    }
    woken.wait(lock, [this] { return !asleep.load(); });
}

void Helper::lose(Clock::time_point now, Clock::duration time) {
    debt = std::max(Clock::duration{}, debt - (now - billed) / 10) + time;
    billed = stalled = now;
    if (debt < MOST_DEBT) return;
    debt = {};
    rest(now);
}

void Helper::rest(Clock::time_point now) {
    resting.store(true);
    until = now + pause;
    stalled = until;
    pause = std::min<Clock::duration>(pause * 4, LONGEST);
}

bool Helper::may_work(Clock::time_point now) {
    if (resting.load() && now >= until) resting.store(false);
    return !resting.load();
}

void Helper::praise(Clock::time_point now) {
    if (now - stalled > GOOD) pause = SHORTEST;
}

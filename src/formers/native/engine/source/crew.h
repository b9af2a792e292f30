// The helpers of a pool: threads that look for a job for a short while, then sleep until they are woken.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;

// What is shared out. `left` says in one word which job it is and how many of its pieces nobody has taken yet, so that
// a helper that comes late can never take a piece of another job; the rest is read only by those who hold a piece.
struct Job {
    explicit Job(int64_t workers) : workers(uint32_t(workers)) {}

    const uint32_t workers;
    // Each of the two that all write to has a line of the cache to itself.
    alignas(64) std::atomic<uint64_t> left{0};  // number of the job << 32 | pieces
    alignas(64) std::atomic<int64_t> done{0};
    alignas(64) std::atomic<int64_t> pieces{0};
    std::atomic<void (*)(void*, int64_t)> work{nullptr};
    std::atomic<void*> with{nullptr};

    uint32_t number() const { return uint32_t(left.load() >> 32); }
    void publish(int64_t count, void (*fn)(void*, int64_t), void* argument);
    // Works on pieces of job number `of` until none is left. Takes several while there are many, since every taking is a
    // message from core to core.
    void labour(uint32_t of);
    bool is_done() const { return done.load(std::memory_order_acquire) == pieces.load(std::memory_order_relaxed); }
};

class Helper {
   public:
    explicit Helper(Job& of) : job(of), thread([this] { live(); }) {}
    ~Helper();

    bool is_asleep() const { return asleep.load(); }
    bool is_working() const { return working.load(); }
    void wake();

    // It came back too late by so much: it had lost its core. That can happen to anybody; where others wait for it more than
    // a tenth of the time, it rests.
    void lose(Clock::time_point now, Clock::duration time);
    // Left out for a while, twice or more as long each time, because its core is wanted by others.
    void rest(Clock::time_point now);
    bool may_work(Clock::time_point now);
    void praise(Clock::time_point now);  // it came back in time

   private:
    void live();
    void sleep(uint32_t seen);

    Job& job;
    std::atomic<bool> asleep{false}, resting{false}, leaving{false};
    // Of the caller. debt: what others have waited for it, less a tenth of the time until `billed`.
    Clock::time_point until{}, stalled{}, billed{};
    Clock::duration debt{};
    alignas(64) std::atomic<bool> working{false};
    Clock::duration pause = SHORTEST;
    std::mutex mutex;
    std::condition_variable woken;
    std::thread thread;  // the last: it starts when all else is there

    static constexpr std::chrono::milliseconds MOST_DEBT{8}, SHORTEST{20}, LONGEST{1000};
};

// Tells the processor that this is a loop that waits.
static inline void breathe() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

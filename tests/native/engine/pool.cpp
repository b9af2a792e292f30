// Shares jobs of many sizes among more threads than there are processors, and counts what was not done exactly once.
#include "pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

int64_t run_jobs(Pool& pool, int64_t jobs) {
    int64_t wrong = 0;
    for (int64_t job = 0; job < jobs; job++) {
        std::vector<int> times(job % 71, 0);  // not atomic: each piece has one worker, and its work is seen afterwards
        share(pool, times.size(), job % 3 ? 1 << 20 : 100000, [&](int64_t piece) {
            for (volatile int64_t i = 0; i < 300 * (job % 7); i = i + 1) continue;
            times[piece]++;
        });
        for (int count : times) wrong += count != 1;
        if (job % 97 == 0) usleep(300);  // long enough for the helpers to fall asleep
    }
    return wrong;
}

int64_t run_rows(Pool& pool) {
    int64_t wrong = 0;
    for (int64_t rows : {1, 15, 16, 17, 1000}) {
        std::vector<int> times(rows, 0);
        share_rows(pool, rows, 40000, [&](int64_t first, int64_t count) {
            for (int64_t i = first; i < first + count; i++) times[i]++;
        });
        for (int count : times) wrong += count != 1;
    }
    return wrong;
}

// A job within a job, as when two callers have one pool, is done by its caller alone.
int64_t run_within(Pool& pool) {
    std::atomic<int64_t> done{0};
    share(pool, 20, 1 << 20, [&](int64_t) { share(pool, 20, 1 << 20, [&](int64_t) { done++; }); });
    return done != 400;
}

int64_t run_in_child(Pool& pool) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);  // a child that waits for threads that it does not have must not wait for ever
        _exit(run_jobs(pool, 50) ? 1 : 0);
    }
    int status = 0;
    return waitpid(child, &status, 0) != child || status != 0;
}

}  // namespace

// The number of threads; whether processors are kept busy meanwhile. Prints what went wrong.
int main(int, char** arguments) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < std::atoi(arguments[2]); i++)
        busy.emplace_back([&] {
            while (!stop) continue;
        });
    int64_t wrong = 0;
    {
        Pool unused(8), pool(std::atoi(arguments[1]));
        wrong = run_jobs(pool, 1500) + run_rows(pool) + run_within(pool) + run_in_child(pool);
    }
    stop = true;
    for (std::thread& thread : busy) thread.join();
    std::printf("%lld\n", static_cast<long long>(wrong));
    return wrong != 0;
}

#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "pool.h"

namespace {

constexpr int64_t PIECE = 1 << 18, PASSES = 5;

// Whatever is read has to be used, so it is summed up; a prefetch some lines ahead keeps more of them on their way.
uint64_t sum_of(const uint64_t* words, int64_t count) {
    constexpr int64_t LINE = 8, AHEAD = 64 * LINE;
    uint64_t sums[LINE] = {0};
    for (int64_t i = 0; i + LINE <= count; i += LINE) {
        __builtin_prefetch(words + i + AHEAD);
        for (int64_t j = 0; j < LINE; j++) sums[j] += words[i + j];
    }
    uint64_t total = 0;
    for (const uint64_t sum : sums) total += sum;
    return total;
}

}  // namespace

double bandwidth(int64_t bytes, int64_t threads) {
    const int64_t pieces = std::max<int64_t>(1, bytes / PIECE), words = PIECE / int64_t(sizeof(uint64_t));
    std::vector<uint64_t> memory(size_t(pieces * words), 1);
    std::atomic<uint64_t> total{0};
    Pool pool(threads);
    double best = 0;
    for (int64_t pass = 0; pass < PASSES; pass++) {
        const auto before = std::chrono::steady_clock::now();
        share(pool, pieces, pieces * PIECE, [&](int64_t piece) {
            total.fetch_add(sum_of(memory.data() + piece * words, words), std::memory_order_relaxed);
        });
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - before;
        best = std::max(best, double(pieces * PIECE) / taken.count());
    }
    return total.load() == uint64_t(PASSES * pieces * words) ? best : 0;
}

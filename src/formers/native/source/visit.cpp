// The face of attention by blocks: chooses the kernel for this machine, and shares the work among threads. Pieces of work
// do not depend on the number of threads, so neither do the results.
#include <new>
#include <vector>

#include "machine.h"
#include "memory.h"

namespace {

// Blocks of queries in a piece of the forward pass: neighbours meet the same keys. And pieces for each thread, at least.
constexpr int64_t MOST_BLOCKS = 64, PIECES_EACH = 4;

class VisitJob {
   public:
    VisitJob(const Visits& visits, const Kernel& with, int64_t of_threads) : p(visits), kernel(with), threads(of_threads) {
        for (int64_t t = 0; t < threads; t++) scratch.push_back(aligned(kernel.visit_scratch(p)));
        int64_t most = 1;
        for (int64_t item = 0; item < p.batch * p.heads; item++) {
            const int64_t begin = p.begins[p.plan[item]], end = p.begins[p.plan[item] + 1];
            views = end - begin > views ? end - begin : views;
            for (int64_t v = begin; v < end; v++) most = p.views[v].query_blocks > most ? p.views[v].query_blocks : most;
        }
        blocks = p.batch * p.heads * most / (threads * PIECES_EACH);
        blocks = blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
        pieces = (most + blocks - 1) / blocks;
    }

    void forward() const {
        for (int64_t number = 0; number < views; number++)
            share(p.batch * p.heads * pieces, threads, [&](int64_t item, int64_t thread) {
                add(item / pieces, number, item % pieces * blocks, thread);
            });
        if (p.merged) share(p.batch * p.heads, threads, [&](int64_t item, int64_t) { kernel.settle(p, item); });
    }

    void backward() const {
        const int64_t each = p.heads / p.key_heads;
        for (int64_t number = 0; number < views; number++)
            share(p.batch * p.key_heads * p.parts, threads, [&](int64_t item, int64_t thread) {
                const int64_t row = item / p.parts;
                const VisitRange range = {row / p.key_heads, row % p.key_heads * each, number, 0, 0, item % p.parts};
                kernel.visit_backward(p, range, scratch[thread].get());
            });
    }

   private:
    // The next blocks of queries of a row's view, if there are any.
    void add(int64_t row, int64_t number, int64_t first, int64_t thread) const {
        const int64_t view = p.begins[p.plan[row]] + number;
        if (view >= p.begins[p.plan[row] + 1]) return;
        const int64_t end = p.views[view].query_blocks, last = first + blocks < end ? first + blocks : end;
        if (first >= last) return;
        kernel.visit_forward(p, {row / p.heads, row % p.heads, view, first, last, 0}, scratch[thread].get());
    }

    const Visits& p;
    const Kernel& kernel;
    const int64_t threads;
    int64_t views = 0, pieces = 0, blocks = 0;  // the first two: at most, of any row and head
    std::vector<Memory> scratch;
};

template <class Run>
int answer(const Visits* visits, const char* name, int64_t threads, Run&& run) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    try {
        const VisitJob job(*visits, *kernel, threads < 1 ? 1 : threads);
        run(job);
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

}  // namespace

FACE int64_t formers_visits_size() { return sizeof(Visits); }

FACE int formers_visit_forward(const Visits* visits, const char* kernel, int64_t threads) {
    return answer(visits, kernel, threads, [](const VisitJob& job) { job.forward(); });
}

FACE int formers_visit_deltas(const Visits* visits, const char* name, int64_t threads) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    const int64_t rows = visits->batch * visits->heads;
    share(rows, threads < 1 ? 1 : threads, [&](int64_t item, int64_t) { kernel->visit_deltas(*visits, item); });
    return DONE;
}

FACE int formers_visit_backward(const Visits* visits, const char* kernel, int64_t threads) {
    return answer(visits, kernel, threads, [](const VisitJob& job) { job.backward(); });
}

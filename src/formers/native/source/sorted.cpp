// The face of the library: chooses the kernel for this machine, and shares the work among threads.
// Within a round each query, and each key, belongs to one range of chunks; rounds follow one another. Ranges do not
// depend on the number of threads, so neither do the results. Nobody waits by spinning.
#include <new>
#include <vector>

#include "machine.h"
#include "memory.h"

namespace {

constexpr int64_t RANGE = 2048;  // slots: long enough that the seams cost little, short enough to share out

class Job {
   public:
    Job(const Problem& problem, const Kernel& with, int64_t of_threads)
        : p(problem), kernel(with), chunks(chunks_of(p)), stride(RANGE / p.chunk > 0 ? RANGE / p.chunk : 1),
          ranges((chunks + stride - 1) / stride), heads(p.batch * p.heads), threads(of_threads) {
        const int64_t most = threads < heads * ranges ? threads : heads * ranges;
        for (int64_t t = 0; t < most; t++) scratch.push_back(aligned(kernel.scratch(p)));
    }

    void forward() {
        run([&](int64_t head, int64_t round, int64_t item, int64_t thread) {
            kernel.forward(p, range(head * ranges + item, round), scratch[thread].get());
        }, [](int64_t, int64_t) {});
    }

    void backward() {
        halos = aligned(heads * ranges * seam() * sizeof(float));
        run([&](int64_t head, int64_t round, int64_t item, int64_t thread) {
            kernel.backward(p, range(head * ranges + item, round), scratch[thread].get());
        }, [&](int64_t head, int64_t round) { add_halos(head, round); });
    }

   private:
    // Calls work(head, round, range, thread) for all of them, and behind each round of a head settle(head, round). Heads
    // go to threads whole, since a thread need not wait then before it begins the next round of its own; those that are
    // left over are shared out range by range.
    template <class Work, class Settle>
    void run(Work&& work, Settle&& settle) const {
        const int64_t whole = heads / threads * threads, left = heads - whole;
        share(whole, threads, [&](int64_t head, int64_t thread) {
            for (int64_t round = 0; round < p.rounds; round++) {
                for (int64_t item = 0; item < ranges; item++) work(head, round, item, thread);
                settle(head, round);
            }
        });
        for (int64_t round = 0; round < p.rounds; round++) {
            share(left * ranges, threads, [&](int64_t item, int64_t thread) {
                work(whole + item / ranges, round, item % ranges, thread);
            });
            share(left, threads, [&](int64_t head, int64_t) { settle(whole + head, round); });
        }
    }

    int64_t seam() const { return (p.before + p.after) * halo_size(p); }

    Range range(int64_t item, int64_t round) const {
        const int64_t head = item / ranges, first = item % ranges * stride;
        float* halo = halos ? static_cast<float*>(halos.get()) + item * seam() : nullptr;
        return {head / p.heads, head % p.heads, round, first, first + stride < chunks ? first + stride : chunks, halo};
    }

    void add_halos(int64_t head, int64_t round) const {
        for (int64_t i = 0; i < ranges; i++) {
            const Range at = range(head * ranges + i, round);
            for (int64_t n = 0; n < p.before + p.after; n++)
                add_halo(at, (n < p.before ? at.first : at.last) + n - p.before, at.halo + n * halo_size(p));
        }
    }

    void add_halo(const Range& at, int64_t chunk, const float* halo) const {
        const Place place = place_of(p, at.round, chunk);
        const int32_t* tokens = row_of<int32_t>(p.order, at.batch, at.head, place.round) + place.first;
        add_rows(row_of<float>(p.grad_k, at.batch, at.head, 0), p.grad_k.row, tokens, place.count, halo, p.dim);
        halo += place.count * p.dim;
        add_rows(row_of<float>(p.grad_v, at.batch, at.head, 0), p.grad_v.row, tokens, place.count, halo, p.value_dim);
    }

    static void add_rows(float* to, int64_t row, const int32_t* tokens, int64_t count, const float* from,
                         int64_t width) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t d = 0; d < width; d++) to[tokens[i] * row + d] += from[i * width + d];
    }

    const Problem& p;
    const Kernel& kernel;
    const int64_t chunks, stride, ranges, heads, threads;
    std::vector<Memory> scratch;
    Memory halos;
};

template <class Run>
int answer(const Problem* problem, const char* name, int64_t threads, Run&& run) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    try {
        Job job(*problem, *kernel, threads < 1 ? 1 : threads);
        run(job);
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

}  // namespace

FACE const char* formers_fastest() { return runs_here("avx512") ? "avx512" : runs_here("avx2") ? "avx2" : "plain"; }

FACE void formers_use_threads(Fork fork) { fork_of_process() = fork; }

FACE int64_t formers_problem_size() { return sizeof(Problem); }

FACE int formers_forward(const Problem* problem, const char* kernel, int64_t threads) {
    return answer(problem, kernel, threads, [](Job& job) { job.forward(); });
}

FACE int formers_backward(const Problem* problem, const char* kernel, int64_t threads) {
    return answer(problem, kernel, threads, [](Job& job) { job.backward(); });
}

FACE int formers_exponential(const float* x, float* y, int64_t count, const char* name) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    kernel->exponential(x, y, count);
    return DONE;
}

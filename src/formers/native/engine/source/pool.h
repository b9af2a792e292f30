// The threads that share the work of one operation. Its face has nothing of the C++ library in it, so it may be
// included in code that is compiled for several instruction sets; pool.cpp is compiled once.
#pragma once
#include <cstdint>

class Pool {
   public:
    explicit Pool(int64_t threads);  // the caller is one of them; the others start when they are first wanted
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int64_t threads() const;

    // Calls work(with, piece) once for every piece in 0..pieces, in any order, and returns when all are done. The caller
    // works too, and alone where the job reads fewer `bytes` than is worth waking anybody. One caller at a time.
    // A piece must not throw, nor call run.
    void run(int64_t pieces, int64_t bytes, void (*work)(void* with, int64_t piece), void* with);

   private:
    struct State;
    State* state;
};

namespace {

// pool.run with anything that can be called: work(piece).
template <class Work>
void share(Pool& pool, int64_t pieces, int64_t bytes, Work work) {
    pool.run(pieces, bytes, [](void* with, int64_t piece) { (*static_cast<Work*>(with))(piece); }, &work);
}

// Shares rows of `row` bytes out in runs of about 128 KiB, or of half of them where there are fewer, a multiple of `unit` rows:
// work(first, count).
template <class Work>
void share_rows(Pool& pool, int64_t rows, int64_t row, Work work, int64_t unit = 16) {
    const int64_t bytes = rows * row < 262144 ? rows * row / 2 : 131072;
    int64_t step = bytes / (row > 0 ? row : 1) / unit * unit;
    if (step < unit) step = unit;
    share(pool, (rows + step - 1) / step, rows * row, [&](int64_t piece) {
        const int64_t first = piece * step;
        work(first, rows - first < step ? rows - first : step);
    });
}

}  // namespace

// Units of a feed-forward that were chosen for some tokens, run after run, so that each row is on its way from memory while
// the runs before it are worked on. Row 2u of the matrix is what unit u multiplies the token by, row 2u + 1 what it adds.
// A unit whose product is not above zero adds nothing, and its second row is not read.
#pragma once
#include "dot.h"
#include "wide.h"

namespace {

// A token: where it is read, where its units add to, and what it has chosen.
struct Chooser {
    Input x;
    float* y;
};

class UnitRuns {
   public:
    static constexpr int64_t MOST_TOKENS = 16, MOST_UNITS = 16;

    // Runs are of so many units that the rows of all tokens in one are some 8 KiB.
    static int64_t units_at_once(const Matrix& m, int64_t tokens) {
        return least<int64_t>(MOST_UNITS, most<int64_t>(1, (8 << 10) / (m.stride * tokens)));
    }

    UnitRuns(const Matrix& units, const Chooser* tokens, int64_t count) : units_(units), tokens_(tokens), count_(count) {}

    // The next run: for each token `count` units, and by what each is multiplied; they are asked for, and the run before is
    // begun, and the one before that done.
    void push(int64_t count, const int64_t* const* units, const float* const* worth) {
        Run& run = runs_[next_ % RUNS];
        for (int64_t t = 0; t < count_; t++) {
            run.sizes[t] = count;
            for (int64_t i = 0; i < count; i++) {
                run.rows[t][i] = 2 * units[t][i], run.worth[t][i] = worth[t][i];
                prefetch_row(units_, run.rows[t][i]);
            }
        }
        if (next_ >= 1) meet(runs_[(next_ - 1) % RUNS]);
        if (next_ >= 2) add(runs_[(next_ - 2) % RUNS]);
        next_++;
    }

    void finish() {
        if (next_ >= 1) meet(runs_[(next_ - 1) % RUNS]);
        if (next_ >= 2) add(runs_[(next_ - 2) % RUNS]);
        if (next_ >= 1) add(runs_[(next_ - 1) % RUNS]);
        next_ = 0;
    }

   private:
    struct Run {
        int64_t sizes[MOST_TOKENS], rows[MOST_TOKENS][MOST_UNITS];
        float worth[MOST_TOKENS][MOST_UNITS];
    };

    void meet(Run& run) {
        for (int64_t t = 0; t < count_; t++) {
            float products[MOST_UNITS];
            dot_listed(units_, run.rows[t], run.sizes[t], tokens_[t].x, products);
            int64_t working = 0;
            for (int64_t i = 0; i < run.sizes[t]; i++) {
                if (products[i] <= 0) continue;  // a number that is none goes on
                run.worth[t][working] = products[i] * run.worth[t][i];
                run.rows[t][working] = run.rows[t][i] + 1;
                prefetch_row(units_, run.rows[t][working++]);
            }
            run.sizes[t] = working;
        }
    }

    void add(const Run& run) {
        for (int64_t t = 0; t < count_; t++) add_listed(units_, run.rows[t], run.sizes[t], run.worth[t], tokens_[t].y);
    }

    static constexpr int64_t RUNS = 3;
    const Matrix& units_;
    const Chooser* tokens_;
    const int64_t count_;
    int64_t next_ = 0;
    Run runs_[RUNS];
};

}  // namespace

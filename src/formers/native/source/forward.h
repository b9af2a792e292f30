// The forward pass over some chunks of one round. `out`, `lse` and `total` hold sums, peaks and weights until the last
// round has been added; so rounds merge without any memory of their own, and each query belongs to one thread.
#pragma once
#include "queries.h"

namespace {

struct Forward {
    const Window& window;
    Queries& queries;
    float *sums, *totals, *fades;  // (BLOCK, E padded), (BLOCK,), (BLOCK,)

    Forward(const Window& of, Queries& with, Scratch& scratch)
        : window(of), queries(with), sums(scratch.take<float>(BLOCK * of.v_row)), totals(scratch.take<float>(BLOCK)),
          fades(scratch.take<float>(BLOCK)) {}

    float* out(long i) const { return row_of<float>(window.p.out, at().batch, at().head, queries.tokens[i]); }
    float& lse(long i) const { return row_of<float>(window.p.lse, at().batch, at().head, 0)[queries.tokens[i]]; }
    float& total(long i) const { return row_of<float>(window.p.total, at().batch, at().head, 0)[queries.tokens[i]]; }
    const Range& at() const { return window.range; }

    void start() const {
        const bool first = at().round == 0;
        for (long i = 0; i < queries.width(); i++) {
            const bool known = !first && i < queries.part.count;
            queries.peaks[i] = known ? lse(i) : -__FLT_MAX__;
            totals[i] = known ? total(i) : 0.0f;
        }
        if (first) __builtin_memset(sums, 0, BLOCK * window.v_row * sizeof(float));
        for (long i = 0; !first && i < queries.part.count; i++)
            Window::copy(out(i), sums + i * window.v_row, window.p.value_dim, window.v_row);
    }

    void meet(Part keys) const {
        __builtin_memcpy(fades, queries.peaks, BLOCK * sizeof(float));
        queries.meet(window, keys);
        for (long lane = 0; lane < queries.width(); lane += LANES)
            weigh(keys.count, lane, queries.scores, queries.peaks, fades, totals);
        queries.drop(window.p, keys, queries.scores);
        for (long i = 0; i < queries.part.count; i++)
            if (fades[i] != 1.0f) fade(sums + i * window.v_row, window.v_row, fades[i]);
        const float* v = keys.chunk->v + keys.start * window.v_row;
        const Left weights = {queries.scores, 1, BLOCK};
        multiply(window.ahead, queries.part.count, window.v_row, keys.count, weights, {v, window.v_row},
                 {sums, window.v_row, true});
    }

    void finish() const {
        const bool last = at().round == window.p.rounds - 1;
        for (long i = 0; i < queries.part.count; i++) {
            float* row = sums + i * window.v_row;
            const bool nothing = totals[i] == 0.0f;
            if (last) fade(row, window.v_row, nothing ? 0.0f : 1.0f / totals[i]);
            __builtin_memcpy(out(i), row, window.p.value_dim * sizeof(float));
            total(i) = totals[i];
            lse(i) = queries.peaks[i];
            if (last) lse(i) += __builtin_logf(totals[i]);
            if (last && nothing) lse(i) = -__builtin_inff();
        }
    }

    void leave(long) const {}

    void expect(long c) const {
        if (at().round > 0) window.expect(window.p.out, c + 1, window.p.value_dim);
    }
};

inline void run_forward(const Problem& p, const Range& range, Scratch& scratch) {
    const Window window(p, range, scratch, false);
    Queries queries(window, scratch);
    Forward block(window, queries, scratch);
    if (!scratch.counting) walk(window, queries, block);
}

}  // namespace

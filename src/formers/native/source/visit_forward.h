// The forward pass over some blocks of queries of a view. Merged: `out`, `lse` and `total` hold sums, peaks and weights
// until all views have been added and `settle` is called.
#pragma once
#include "visit_blocks.h"

namespace {

struct VisitForward {
    const Visits& p;
    KeyBlocks keys;
    QueryBlock queries;
    long v_row;
    float *sums, *totals, *fades;
    Ahead ahead;

    VisitForward(const Visits& visits, Scratch& scratch)
        : p(visits), keys(visits, scratch, false), queries(visits, scratch), v_row(keys.v_row),
          sums(scratch.take<float>(BLOCK * v_row)), totals(scratch.take<float>(BLOCK)),
          fades(scratch.take<float>(BLOCK)) {}

    void run(const VisitRange& at) {
        const View& view = p.views[at.view];
        ahead.clear();
        keys.enter(at);
        keys.listen(at);
        for (int64_t block = at.first; block < at.last; block++) {
            queries.enter(at, view, block, keys.lane);
            start(at);
            for (int64_t visit = view.first[block]; visit < view.first[block + 1]; visit++)
                meet(keys.take(0, view, view.visited[visit]), mask_of(view, visit));
            finish(at);
        }
    }

   private:
    float* out(const VisitRange& at, long i) const { return row_of<float>(p.out, at.batch, at.head, queries.tokens[i]); }
    float& of(const Array& array, const VisitRange& at, long i) const {
        return row_of<float>(array, at.batch, at.head, 0)[queries.tokens[i]];
    }

    void start(const VisitRange& at) const {
        for (long i = 0; i < queries.width(); i++) {
            const bool known = p.merged && i < queries.count;
            queries.peaks[i] = known ? of(p.lse, at, i) : -__FLT_MAX__;
            totals[i] = known ? of(p.total, at, i) : 0.0f;
        }
        if (!p.merged) __builtin_memset(sums, 0, BLOCK * v_row * sizeof(float));
        for (long i = 0; p.merged && i < queries.count; i++)
            KeyBlocks::copy(out(at, i), sums + i * v_row, p.value_dim, v_row);
    }

    void meet(const KeyBlock& block, const int64_t* mask) {
        const Pieces pieces(queries.count, block, mask);
        for (int i = 0; i < pieces.count; i++) meet(block, mask, pieces.each[i]);
    }

    void meet(const KeyBlock& block, const int64_t* mask, const Piece& piece) {
        const long lane = piece.lane, end = lane + piece.width;
        float* scores = queries.scores + piece.first * BLOCK;
        __builtin_memcpy(fades + lane, queries.peaks + lane, piece.width * sizeof(float));
        queries.meet(ahead, block, mask, piece);
        for (long at = lane; at < end; at += LANES) weigh(piece.count, at, scores, queries.peaks, fades, totals);
        queries.drop(block, piece, queries.scores);
        const long rows = queries.rows_of(piece);
        for (long i = lane; i < lane + rows; i++)
            if (fades[i] != 1.0f) fade(sums + i * v_row, v_row, fades[i]);
        multiply(ahead, rows, v_row, piece.count, {scores + lane, 1, BLOCK}, {block.v + piece.first * v_row, v_row},
                 {sums + lane * v_row, v_row, true});
    }

    void finish(const VisitRange& at) const {
        for (long i = 0; i < queries.count; i++) {
            const float total = totals[i], peak = queries.peaks[i];
            if (!p.merged) fade(sums + i * v_row, v_row, total > 0 ? 1.0f / total : 0.0f);
            __builtin_memcpy(out(at, i), sums + i * v_row, p.value_dim * sizeof(float));
            if (p.merged) of(p.total, at, i) = total;
            of(p.lse, at, i) = p.merged ? peak : total > 0 ? peak + __builtin_logf(total) : -__builtin_inff();
        }
    }
};

// Of one row and head: sums become outputs, and peaks log-sum-exps.
inline void settle_row(const Visits& p, int64_t batch, int64_t head) {
    float* lse = row_of<float>(p.lse, batch, head, 0);
    const float* total = row_of<float>(p.total, batch, head, 0);
    for (int64_t t = 0; t < p.queries; t++) {
        const float by = total[t] > 0 ? 1.0f / total[t] : 0.0f;
        float* out = row_of<float>(p.out, batch, head, t);
        for (int64_t e = 0; e < p.value_dim; e++) out[e] *= by;
        lse[t] = total[t] > 0 ? lse[t] + __builtin_logf(total[t]) : -__builtin_inff();
    }
}

}  // namespace

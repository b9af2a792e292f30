// The backward pass over a part of the queries of a view, for the heads that share one head of keys. Weights come back
// from the log-sum-exps. Whoever runs it owns what it adds to: the gradients of these queries, and of the part's keys.
// Views follow one another, for in each the queries stand in other parts.
#pragma once
#include "visit_blocks.h"

namespace {

struct VisitBackward {
    const Visits& p;
    KeyBlocks keys;
    QueryBlock queries;
    long k_row, v_row;
    float *rows, *turned;    // of the gradient by the output: (BLOCK, E padded), (E, BLOCK)
    float *slopes, *grad_q;  // gradient by the scores (BLOCK keys, BLOCK queries); (BLOCK, D padded)
    float *lses, *deltas;    // (BLOCK,)
    Ahead ahead;

    VisitBackward(const Visits& visits, Scratch& scratch)
        : p(visits), keys(visits, scratch, true), queries(visits, scratch), k_row(keys.k_row), v_row(keys.v_row),
          rows(scratch.take<float>(BLOCK * v_row)), turned(scratch.take<float>(BLOCK * p.value_dim)),
          slopes(scratch.take<float>(BLOCK * BLOCK)), grad_q(scratch.take<float>(BLOCK * k_row)),
          lses(scratch.take<float>(BLOCK)), deltas(scratch.take<float>(BLOCK)) {}

    // at.head: the first of those that share their keys. at.view: which view of their plans, counted from the first.
    void run(VisitRange at) {
        const int64_t number = at.view, end = at.head + p.heads / p.key_heads;
        ahead.clear();
        keys.enter(at);
        for (; at.head < end; at.head++) {
            const int64_t plan = p.plan[at.batch * p.heads + at.head];
            at.view = p.begins[plan] + number;
            if (at.view >= p.begins[plan + 1]) continue;
            keys.listen(at);
            run_view(at);
        }
        keys.leave_all();
    }

   private:
    void run_view(const VisitRange& at) {
        const View& view = p.views[at.view];
        const int64_t first = view.query_blocks * at.part / p.parts, last = view.query_blocks * (at.part + 1) / p.parts;
        for (int64_t block = first; block < last; block++) {
            queries.enter(at, view, block, keys.lane);
            start(at);
            for (int64_t visit = view.first[block]; visit < view.first[block + 1]; visit++)
                meet(keys.take(at.view, view, view.visited[visit]), mask_of(view, visit));
            finish(at);
        }
    }

    void start(const VisitRange& at) const {
        for (long i = 0; i < queries.count; i++) {
            const int32_t token = queries.tokens[i];
            const float* grad = row_of<float>(p.grad, at.batch, at.head, token);
            KeyBlocks::copy(grad, rows + i * v_row, p.value_dim, v_row);
            deltas[i] = row_of<float>(p.delta, at.batch, at.head, 0)[token];
            lses[i] = row_of<float>(p.lse, at.batch, at.head, 0)[token];
            if (lses[i] == -__builtin_inff()) lses[i] = __FLT_MAX__;  // met nothing: then all weights are zero
        }
        for (long i = queries.count; i < queries.width(); i++) lses[i] = deltas[i] = 0;
        turn(rows, v_row, queries.count, p.value_dim, turned);
        __builtin_memset(grad_q, 0, BLOCK * k_row * sizeof(float));
    }

    void meet(const KeyBlock& block, const int64_t* mask) {
        const Pieces pieces(queries.count, block, mask);
        for (int i = 0; i < pieces.count; i++) meet(block, mask, pieces.each[i]);
    }

    void meet(const KeyBlock& block, const int64_t* mask, const Piece& piece) {
        const long lane = piece.lane, first = piece.first, keys = piece.count, count = queries.rows_of(piece);
        float *scores = queries.scores + first * BLOCK, *slope = slopes + first * BLOCK;
        const float *k = block.k + first * k_row, *v = block.v + first * v_row;
        queries.meet(ahead, block, mask, piece);
        multiply(ahead, keys, piece.width, p.value_dim, {v, v_row, 1}, {turned + lane, BLOCK},
                 {slope + lane, BLOCK, false});
        queries.drop(block, piece, slopes);
        for (long at = lane; at < lane + piece.width; at += LANES) weigh_back(keys, at, scores, slope, lses, deltas);
        queries.drop(block, piece, queries.scores);
        const Left weights = {scores + lane, BLOCK, 1}, steps = {slope + lane, BLOCK, 1};
        multiply(ahead, keys, v_row, count, weights, {rows + lane * v_row, v_row}, {block.grad_v + first * v_row, v_row, true});
        multiply(ahead, keys, k_row, count, steps, {queries.rows + lane * k_row, k_row},
                 {block.grad_k + first * k_row, k_row, true});
        multiply(ahead, count, k_row, keys, {slope + lane, 1, BLOCK}, {k, k_row}, {grad_q + lane * k_row, k_row, true});
    }

    void finish(const VisitRange& at) const {
        for (long i = 0; i < queries.count; i++) {
            float* to = row_of<float>(p.grad_q, at.batch, at.head, queries.tokens[i]);
            for (long d = 0; d < p.dim; d++) to[d] = p.scale * grad_q[i * k_row + d] + (p.merged ? to[d] : 0.0f);
        }
    }
};

// Of one row and head, for each query: the sum of the products of its output and the gradient by that. It is all that the
// backward pass wants of outputs, which may be gone before it needs room for gradients.
inline void sum_deltas(const Visits& p, int64_t batch, int64_t head) {
    float* delta = row_of<float>(p.delta, batch, head, 0);
    for (int64_t t = 0; t < p.queries; t++)
        delta[t] = dot(row_of<float>(p.grad, batch, head, t), row_of<float>(p.out, batch, head, t), p.value_dim);
}

}  // namespace

// What the forward and the backward pass share: a block of queries, turned so that vectors run over queries.
#pragma once
#include "mask.h"
#include "multiply.h"
#include "turn.h"

namespace {

struct Queries {
    Part part;
    const int32_t* tokens;
    float *rows, *turned;  // scaled: (BLOCK, D padded) and (D, BLOCK)
    float* scores;         // (BLOCK keys, BLOCK queries)
    float *biases, *peaks;  // (BLOCK,)

    Queries(const Window& window, Scratch& scratch)
        : rows(scratch.take<float>(BLOCK * window.k_row)), turned(scratch.take<float>(BLOCK * window.p.dim)),
          scores(scratch.take<float>(BLOCK * BLOCK)), biases(scratch.take<float>(BLOCK)),
          peaks(scratch.take<float>(BLOCK)) {}

    void enter(const Window& window, const Chunk& chunk, long start) {
        const Problem& p = window.p;
        const long left = chunk.place.count - start;
        part = {&chunk, start, left < BLOCK ? left : BLOCK};
        tokens = chunk.tokens + start;
        for (long i = 0; i < part.count; i++) {
            const float* q = row_of<float>(p.q, window.range.batch, window.range.head, tokens[i]);
            float* row = rows + i * window.k_row;
            for (long d = 0; d < p.dim; d++) row[d] = q[d] * p.scale;
            for (long d = p.dim; d < window.k_row; d++) row[d] = 0;
        }
        turn(rows, window.k_row, part.count, p.dim, turned);
        for (long i = 0; i < BLOCK; i++) biases[i] = p.self_bias;
    }

    long width() const { return round_up(part.count, LANES); }

    // Scores with some keys: made, biased and barred.
    void meet(const Window& window, Part keys) {
        const float* k = keys.chunk->k + keys.start * window.k_row;
        multiply(window.ahead, keys.count, width(), window.p.dim, {k, window.k_row, 1}, {turned, BLOCK},
                 {scores, BLOCK, false});
        mask(window.p, window.range.round, part, keys, biases, scores, peaks);
    }

    void drop(const Problem& p, Part keys, float* tile) const {
        if (p.rate <= 0) return;
        const int32_t *of_query = part.chunk->fact(p, WORD) + part.start, *of_key = keys.chunk->fact(p, WORD) + keys.start;
        drop_tile(p.rate, tile, {of_query, part.count}, {of_key, keys.count});
    }
};

// Every block of queries of a range, and for each the blocks of keys that it may meet.
template <class Block>
inline void walk(const Window& window, Queries& queries, Block&& block) {
    const Problem& p = window.p;
    for (long c = window.range.first; c < window.range.last; c++) {
        for (long v = c == window.range.first ? c - p.before : c + p.after; v <= c + p.after; v++) window.enter(v);
        window.ahead.clear();
        window.expect(p.q, c + 1, p.dim);
        window.expect(p.k, c + 1 + p.after, p.dim);
        window.expect(p.v, c + 1 + p.after, p.value_dim);
        block.expect(c);
        if (p.beside_k.data) window.enter_beside(c);
        for (long start = 0; start < window.at(c).place.count; start += BLOCK) {
            queries.enter(window, window.at(c), start);
            block.start();
            const auto meet = [&](const Chunk& chunk) {
                for (long first = 0; first < chunk.place.count; first += BLOCK) {
                    const long left = chunk.place.count - first;
                    const Part keys = {&chunk, first, left < BLOCK ? left : BLOCK};
                    if (!apart(p, queries.part, keys)) block.meet(keys);
                }
            };
            for (long v = c - p.before; v <= c + p.after; v++) meet(window.at(v));
            if (p.beside_k.data) meet(*window.beside);
            block.finish();
        }
        block.leave(c);
    }
}

}  // namespace

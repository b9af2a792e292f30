// The backward pass over some chunks of one round. Weights come back from the log-sum-exps, so every tile stands alone.
// A range owns the gradients of its queries and of the keys in its own chunks; what it has for others goes to its halo.
#pragma once
#include "queries.h"

namespace {

struct Backward {
    const Window& window;
    Queries& queries;
    float *rows, *turned;    // of the gradient by the output: (BLOCK, E padded), (E, BLOCK)
    float *slopes, *grad_q;  // gradient by the scores (BLOCK keys, BLOCK queries); (BLOCK, D padded)
    float *lses, *deltas;    // (BLOCK,)

    Backward(const Window& of, Queries& with, Scratch& scratch)
        : window(of), queries(with), rows(scratch.take<float>(BLOCK * of.v_row)),
          turned(scratch.take<float>(BLOCK * of.p.value_dim)), slopes(scratch.take<float>(BLOCK * BLOCK)),
          grad_q(scratch.take<float>(BLOCK * of.k_row)), lses(scratch.take<float>(BLOCK)),
          deltas(scratch.take<float>(BLOCK)) {}

    const Range& at() const { return window.range; }

    template <class T = float>
    T* row(const Array& array, long token) const {
        return row_of<T>(array, at().batch, at().head, token);
    }

    void start() const {
        const Problem& p = window.p;
        const long count = queries.part.count;
        for (long i = 0; i < count; i++) {
            const long token = queries.tokens[i];
            Window::copy(row(p.grad, token), rows + i * window.v_row, p.value_dim, window.v_row);
            if (at().round == 0) row(p.delta, 0)[token] = dot(row(p.grad, token), row(p.out, token), p.value_dim);
            deltas[i] = row(p.delta, 0)[token];
            lses[i] = row(p.lse, 0)[token];
            if (lses[i] == -__builtin_inff()) lses[i] = __FLT_MAX__;  // met nothing: then all weights are zero
            if (!p.once && is_large(p.self_bias) && lses[i] < 0.5f * p.self_bias) unbias(i, token);
        }
        for (long i = count; i < queries.width(); i++) lses[i] = deltas[i] = 0;
        turn(rows, window.v_row, count, p.value_dim, turned);
        __builtin_memset(grad_q, 0, BLOCK * window.k_row * sizeof(float));
    }

    // A query that met only itself, several times over: next to a large bias, rounding has blurred how often in its
    // log-sum-exp. It is a whole number, so it can be told, and kept without the bias, which all its scores share.
    void unbias(long i, long token) const {
        const float most = window.p.rounds * window.size;
        const float score = dot(queries.rows + i * window.k_row, row(window.p.k, token), window.p.dim);
        const float times = __builtin_expf(lses[i] - window.p.self_bias - score), whole = __builtin_rintf(times);
        const bool told = whole >= 1 && whole <= most && __builtin_fabsf(times - whole) <= 0.01f * whole;
        if (!told) return;
        lses[i] = score + __builtin_logf(whole);
        queries.biases[i] = 0;
    }

    // So that no other score comes near it, and rounding next to it stays below a hundredth.
    static bool is_large(float bias) { return bias < -1e4f && bias > -2e5f; }

    void meet(Part keys) const {
        const long k_row = window.k_row, v_row = window.v_row, count = queries.part.count;
        const Chunk& chunk = *keys.chunk;
        const float *k = chunk.k + keys.start * k_row, *v = chunk.v + keys.start * v_row;
        float *grad_k = chunk.grad_k + keys.start * k_row, *grad_v = chunk.grad_v + keys.start * v_row;
        queries.meet(window, keys);
        const long lanes = queries.width(), width = window.p.value_dim;
        multiply(window.ahead, keys.count, lanes, width, {v, v_row, 1}, {turned, BLOCK}, {slopes, BLOCK, false});
        queries.drop(window.p, keys, slopes);
        for (long lane = 0; lane < lanes; lane += LANES)
            weigh_back(keys.count, lane, queries.scores, slopes, lses, deltas);
        queries.drop(window.p, keys, queries.scores);
        const Left weights = {queries.scores, BLOCK, 1}, steps = {slopes, BLOCK, 1};
        multiply(window.ahead, keys.count, v_row, count, weights, {rows, v_row}, {grad_v, v_row, true});
        multiply(window.ahead, keys.count, k_row, count, steps, {queries.rows, k_row}, {grad_k, k_row, true});
        multiply(window.ahead, count, k_row, keys.count, {slopes, 1, BLOCK}, {k, k_row}, {grad_q, k_row, true});
    }

    void finish() const {
        const Problem& p = window.p;
        for (long i = 0; i < queries.part.count; i++) {
            float* to = row(p.grad_q, queries.tokens[i]);
            const float* from = grad_q + i * window.k_row;
            if (at().round == 0)
                for (long d = 0; d < p.dim; d++) to[d] = p.scale * from[d];
            else
                for (long d = 0; d < p.dim; d++) to[d] += p.scale * from[d];
        }
    }

    // The window moves on: the last chunk of it has met all that it meets in this range.
    void leave(long c) const {
        const Problem& p = window.p;
        if (p.beside_k.data) write(*window.beside, p.grad_beside_k, p.grad_beside_v);
        const long end = c + 1 == at().last ? c + p.after : c - p.before;
        for (long v = c - p.before; v <= end; v++) {
            const Chunk& chunk = window.at(v);
            const bool own = v >= at().first && v < at().last;
            if (own && at().round == 0)
                write(chunk, p.grad_k, p.grad_v);
            else if (own)
                add_to_keys(chunk);
            else
                keep(chunk, at().halo + halo_size(p) * (p.before + v - (v < at().first ? at().first : at().last)));
        }
    }

    void expect(long c) const {
        const Problem& p = window.p;
        window.expect(p.grad, c + 1, p.value_dim);
        if (at().round == 0) window.expect(p.out, c + 1, p.value_dim);
        window.expect(p.grad_q, c + 1, p.dim);
        window.expect(p.grad_k, c + 1 - p.before, p.dim);
        window.expect(p.grad_v, c + 1 - p.before, p.value_dim);
    }

    void write(const Chunk& chunk, const Array& keys, const Array& values) const {
        const Problem& p = window.p;
        for (long i = 0; i < chunk.place.count; i++) {
            __builtin_memcpy(row(keys, chunk.tokens[i]), chunk.grad_k + i * window.k_row, p.dim * sizeof(float));
            float* v = row(values, chunk.tokens[i]);
            __builtin_memcpy(v, chunk.grad_v + i * window.v_row, p.value_dim * sizeof(float));
        }
    }

    void add_to_keys(const Chunk& chunk) const {
        const Problem& p = window.p;
        for (long i = 0; i < chunk.place.count; i++) {
            float *k = row(p.grad_k, chunk.tokens[i]), *v = row(p.grad_v, chunk.tokens[i]);
            for (long d = 0; d < p.dim; d++) k[d] += chunk.grad_k[i * window.k_row + d];
            for (long e = 0; e < p.value_dim; e++) v[e] += chunk.grad_v[i * window.v_row + e];
        }
    }

    void keep(const Chunk& chunk, float* halo) const {
        const Problem& p = window.p;
        for (long i = 0; i < chunk.place.count; i++) {
            __builtin_memcpy(halo + i * p.dim, chunk.grad_k + i * window.k_row, p.dim * sizeof(float));
            float* v = halo + chunk.place.count * p.dim + i * p.value_dim;
            __builtin_memcpy(v, chunk.grad_v + i * window.v_row, p.value_dim * sizeof(float));
        }
    }
};

inline void run_backward(const Problem& p, const Range& range, Scratch& scratch) {
    const Window window(p, range, scratch, true);
    Queries queries(window, scratch);
    Backward block(window, queries, scratch);
    if (!scratch.counting) walk(window, queries, block);
}

}  // namespace

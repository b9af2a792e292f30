// Products with a matrix gate[s, i] * mix[i, m] that is never made: the input gated for every module, times mix.
#pragma once
#include "sparse_gated.h"

namespace {

struct Share {
    int64_t first, last;
};

ALWAYS_INLINE Share share_of(int64_t piece, int64_t pieces, int64_t count) {
    return {first_of(piece, pieces, count), first_of(piece + 1, pieces, count)};
}

struct Multiplicative {
    const Matrix &gate, &mix;
    int64_t modules, panel, panels;
    bool of_outputs;  // pieces are: then a panel's blocks of inputs lie one behind the other, else a block's panels do

    explicit Multiplicative(const Op& op)
        : gate(op.matrices[0]), mix(op.matrices[1]), modules(op.ints[0]), panel(op.ints[1]),
          panels(mix.rows / gate.rows), of_outputs(op.ints[4]) {}

    int64_t width() const { return panel * panels; }  // of a module, with its padding
    int64_t row_of(int64_t block, int64_t p) const { return of_outputs ? p * gate.rows + block : block * panels + p; }

    // A share of the blocks of inputs and of the panels of outputs, for all rows: adds to sums(row), (modules, width()).
    template <class Sums>
    void run(const Step& step, int64_t x, Share inputs, Share outputs, const Sums& sums) const {
        [[maybe_unused]] const Tiles tiles;
        const int64_t vectors = step.rows * modules, at_once = least(vectors, MOST_VECTORS_AT_ONCE);
        Gated gated(gate, mix, at_once);
        Asking asking;
        BlockStep steps[MOST_STEPS];
        with_weights(inputs.first, least(gated.most_blocks(), inputs.last - inputs.first), outputs.first, ask_for_all);
        for (int64_t block = inputs.first, blocks; block < inputs.last; block += blocks) {
            blocks = least(gated.most_blocks(), inputs.last - block);
            const int64_t behind = block + blocks, next = least(gated.most_blocks(), gate.rows - behind);
            gated.ask(behind, next);
            const auto ask = [&](const uint8_t* data, int64_t bytes) { asking = {data, bytes}; };
            for (int64_t vector = 0; vector < vectors; vector += at_once) {
                const int64_t some = least(at_once, vectors - vector);
                const Groups g = gated.groups(some);
                for (int64_t i = 0; i < blocks; i++) {
                    store_gated(step, x, block + i, vector, some, gated, i);
                    for (int64_t t = 0; t < g.count; t++) steps[i].inputs[t] = gated.at(i, t);
                }
                for (int64_t p = outputs.first; p < outputs.last; p++) {
                    for (int64_t i = 0; i < blocks; i++) steps[i].row = row_of(block + i, p);
                    if (vector > 0)
                        asking = {};  // what is behind has been asked for
                    else if (of_outputs && p + 1 < outputs.last)
                        with_weights(block, blocks, p + 1, ask);
                    else if (of_outputs || p == outputs.first)
                        with_weights(behind, next, outputs.first, ask);
                    add(steps, blocks, g, vector, some, asking, [&](int64_t r) { return sums(r) + p * panel; });
                }
            }
        }
    }

    // What `run` will add these outputs to, for `rows` rows.
    template <class Sums>
    void clear(int64_t rows, Share outputs, const Sums& sums) const {
        const int64_t bytes = (outputs.last - outputs.first) * panel * int64_t(sizeof(float));
        for (int64_t v = 0; v < rows * modules; v++)
            __builtin_memset(sums(v / modules) + v % modules * width() + outputs.first * panel, 0, bytes);
    }

   private:
    // work(data, bytes) with what some blocks of inputs are multiplied by: of one panel where pieces are of outputs, else of all.
    template <class Work>
    void with_weights(int64_t block, int64_t blocks, int64_t p, const Work& work) const {
        const int64_t row = row_of(block, of_outputs ? p : 0);
        work(mix.data + row * mix.stride, blocks * (of_outputs ? 1 : panels) * mix.stride);
    }

    // Groups of one row add to their sums where these are; others beside them first.
    template <class Sums>
    void add(const BlockStep* steps, int64_t count, const Groups& g, int64_t vector, int64_t vectors, Asking& asking,
             const Sums& sums) const {
        const auto place = [&](int64_t v) { return sums(v / modules) + v % modules * width(); };
        TileSums where;
        where.stride = width();
        if (modules % GROUP == 0) {
            for (int64_t t = 0; t < g.count; t++) where.data[t] = place(vector + t * GROUP);
            return add_products(mix, steps, count, panel, g, asking, where);
        }
        alignas(64) float made[MOST_VECTORS_AT_ONCE * MOST_PANEL];
        __builtin_memset(made, 0, g.count * GROUP * panel * sizeof(float));
        where.stride = panel;
        for (int64_t t = 0; t < g.count; t++) where.data[t] = made + t * GROUP * panel;
        add_products(mix, steps, count, panel, g, asking, where);
        for (int64_t v = 0; v < vectors; v++) add_scaled(place(vector + v), 1.0f, made + v * panel, panel);
        if (!g.folded) return;
        for (int64_t v = 0; v < vectors; v++) add_scaled(place(vector + v), 1.0f, made + (GROUP / 2 + v) * panel, panel);
    }

    void store_gated(const Step& step, int64_t x, int64_t block, int64_t vector, int64_t some, Gated& gated, int64_t i) const {
        gated.open(block);
        int64_t r = vector / modules, module = vector % modules;
        for (int64_t v = 0, count; v < some; v += count, r++, module = 0) {
            count = least(modules - module, some - v);
            float inputs[DEPTH] = {};
            copy_run(inputs, step.row(x, r) + block * DEPTH, least(DEPTH, step.registers[x].width - block * DEPTH));
            gated.store(i, v, inputs, module, count);
        }
    }
};

// Where there are many panels, pieces are of those; else they are of inputs, and their sums are joined.
inline void run_multiplicative(const Op& op, Step& step) {
    const Multiplicative product(op);
    const int64_t pieces = op.ints[2], blocks = product.gate.rows, bytes = product.mix.rows * product.mix.stride;
    const int64_t parted = product.modules * product.width(), parts = product.of_outputs ? 1 : pieces;
    share(*step.pool, pieces, blocks * product.gate.stride + bytes, [&](int64_t piece) {
        const Share inputs = product.of_outputs ? Share{0, blocks} : share_of(piece, pieces, blocks);
        const Share outputs = product.of_outputs ? share_of(piece, pieces, product.panels) : Share{0, product.panels};
        const auto sums = [&](int64_t r) { return step.row(op.out[1], r) + (product.of_outputs ? 0 : piece * parted); };
        product.clear(step.rows, outputs, sums);
        product.run(step, op.in[0], inputs, outputs, sums);
    });
    const int64_t out = step.registers[op.out[0]].width / product.modules, joins = step.rows * product.modules;
    share(*step.pool, joins, joins * parts * product.width() * int64_t(sizeof(float)), [&](int64_t i) {
        const int64_t r = i / product.modules, s = i % product.modules;
        const Vector bias = {op.vectors[0].data + (op.vectors[0].size ? s * out : 0), op.vectors[0].size ? out : 0};
        join_pieces(step.row(op.out[0], r) + s * out, op.ints[3], bias, step.row(op.out[1], r) + s * product.width(), parts,
                    parted, out);
    });
}

}  // namespace

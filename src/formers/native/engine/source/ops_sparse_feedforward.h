// The sparse feed-forward: a controller picks one unit of each block, and only those are read.
#pragma once
#include "sparse_choice.h"
#include "sparse_products.h"
#include "sparse_units.h"

namespace {

// A block of units, as the controller sees it.
struct Controller {
    const Matrix& blocks;  // a row for each block: rank inputs, `width` outputs
    const Vector& bias;    // `width` for each block
    int64_t units, width, rank;
    bool weighted;

    // What each of `count` tokens picks in a block, and by what its product is multiplied.
    void choose(int64_t block, Left inner, int64_t count, int64_t* picked, float* worth) const {
        alignas(64) float logits[4 * MOST_CHOICES];
        for (int64_t first = 0; first < count; first += 4) {
            const int64_t some = least<int64_t>(4, count - first);
            for (int64_t t = 0; t < some; t++) copy_run(logits + t * width, bias.data + block * width, width);
            add_block(blocks, block, rank, width, {inner.data + first * inner.stride, inner.stride}, some, {logits, width});
            for (int64_t t = 0; t < some; t++) {
                const Largest found = largest(logits + t * width, width);
                picked[first + t] = block * units + least(found.place, units - 1);
                worth[first + t] = weighted ? chance_of_largest(logits + t * width, width, found.value) : 1.0f;
            }
        }
    }
};

// Blocks from `first` to `last`, for tokens whose controllers' inner numbers are `inner`.
inline void run_blocks(const Controller& controller, const Matrix& units, int64_t first, int64_t last, Left inner,
                       const Chooser* tokens, int64_t count) {
    int64_t picked[MOST_TOKENS][MOST_UNITS], now[MOST_TOKENS];
    float worth[MOST_TOKENS][MOST_UNITS], worth_now[MOST_TOKENS];
    for (int64_t block = first; block < last; block += MOST_UNITS) {
        const int64_t some = least(MOST_UNITS, last - block);
        for (int64_t i = 0; i < some; i++) {
            controller.choose(block + i, inner, count, now, worth_now);
            for (int64_t t = 0; t < count; t++) picked[t][i] = now[t], worth[t][i] = worth_now[t];
        }
        for (int64_t t = 0; t < count; t++) add_units(units, picked[t], worth[t], some, tokens[t]);
    }
}

// Each of up to 16 rows on its own, as products with rows of `like` want them.
inline int64_t prepare_rows(const Matrix& like, Step& step, int64_t x, int64_t first, Chooser* tokens) {
    const int64_t count = least(MOST_TOKENS, step.rows - first);
    const int64_t bytes = up_to(input_bytes(like.columns, 1), 64);
    for (int64_t t = 0; t < count; t++)
        tokens[t].x = prepare(like, step.row(x, first + t), 0, 1, step.scratch + t * bytes);
    return count;
}

inline void run_sparse_feedforward(const Op& op, Step& step) {
    const Matrix &inner = op.matrices[0], &units = op.matrices[2];
    const int64_t pieces = op.ints[2], blocks = op.matrices[1].rows, width = step.registers[op.out[0]].width;
    const Controller controller = {op.matrices[1], op.vectors[0], op.ints[0], op.ints[1], inner.rows, op.ints[4] != 0};
    const int64_t parted = step.registers[op.out[2]].width / pieces;
    for (int64_t first = 0; first < step.rows; first += MOST_TOKENS) {
        Chooser tokens[MOST_TOKENS];
        const int64_t count = least(MOST_TOKENS, step.rows - first);
        const Left chosen_by = {step.row(op.out[1], first), step.registers[op.out[1]].stride};
        const Input x = prepare(inner, step.row(op.in[0], first), step.registers[op.in[0]].stride, count, step.scratch);
        share_rows(*step.pool, inner.rows, inner.stride, [&](int64_t row, int64_t some) {
            dot_rows(inner, row, some, x, step.row(op.out[1], first) + row, chosen_by.stride);
        });
        prepare_rows(units, step, op.in[0], first, tokens);
        const int64_t bytes = blocks * (controller.blocks.stride + least(count, controller.units) * 2 * units.stride);
        share(*step.pool, pieces, bytes, [&](int64_t piece) {
            Chooser mine[MOST_TOKENS];
            for (int64_t t = 0; t < count; t++) {
                mine[t] = {tokens[t].x, step.row(op.out[2], first + t) + piece * parted};
                __builtin_memset(mine[t].y, 0, parted * sizeof(float));
            }
            run_blocks(controller, units, first_of(piece, pieces, blocks), first_of(piece + 1, pieces, blocks), chosen_by,
                       mine, count);
        });
        for (int64_t t = first; t < first + count; t++)
            join_pieces(step.row(op.out[0], t), op.ints[3], op.vectors[1], step.row(op.out[2], t), pieces, parted, width);
    }
}

}  // namespace

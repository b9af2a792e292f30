// A feed-forward of which each token works with one expert, a run of its units.
#pragma once
#include "ops_sparse_feedforward.h"

namespace {

inline void run_experts(const Op& op, Step& step) {
    const Matrix &router = op.matrices[0], &units = op.matrices[1];
    const int64_t each = op.ints[0], pieces = op.ints[1], weighted = op.ints[3];
    const int64_t width = step.registers[op.out[0]].width, logits = step.registers[op.out[1]].width;
    const int64_t parted = step.registers[op.out[2]].width / pieces;
    for (int64_t first = 0; first < step.rows; first += MOST_TOKENS) {
        Chooser tokens[MOST_TOKENS];
        const int64_t count = least(MOST_TOKENS, step.rows - first);
        const Input x = prepare(router, step.row(op.in[0], first), step.registers[op.in[0]].stride, count, step.scratch);
        share_rows(*step.pool, router.rows, router.stride, [&](int64_t row, int64_t some) {
            dot_rows(router, row, some, x, step.row(op.out[1], first) + row, step.registers[op.out[1]].stride);
        });
        prepare_rows(units, step, op.in[0], first, tokens);
        int64_t expert[MOST_TOKENS];
        float worth[MOST_TOKENS];
        for (int64_t t = 0; t < count; t++) {
            float* mine = step.row(op.out[1], first + t);
            for (int64_t i = router.rows; i < logits; i++) mine[i] = -__builtin_inff();
            const Largest found = largest(mine, logits);
            expert[t] = least(found.place, router.rows - 1);
            worth[t] = weighted ? chance_of_largest(mine, logits, found.value) : 1.0f;
        }
        share(*step.pool, pieces, least(count, router.rows) * each * 2 * units.stride, [&](int64_t piece) {
            for (int64_t t = 0; t < count; t++) {
                const Chooser mine = {tokens[t].x, step.row(op.out[2], first + t) + piece * parted};
                __builtin_memset(mine.y, 0, parted * sizeof(float));
                const int64_t end = first_of(piece + 1, pieces, each);
                for (int64_t unit = first_of(piece, pieces, each); unit < end; unit += MOST_UNITS) {
                    const int64_t some = least(MOST_UNITS, end - unit);
                    int64_t chosen[MOST_UNITS];
                    float alike[MOST_UNITS];
                    for (int64_t i = 0; i < some; i++) chosen[i] = expert[t] * each + unit + i, alike[i] = worth[t];
                    add_units(units, chosen, alike, some, mine);
                }
            }
        });
        for (int64_t t = first; t < first + count; t++)
            join_pieces(step.row(op.out[0], t), op.ints[2], op.vectors[0], step.row(op.out[2], t), pieces, parted, width);
    }
}

}  // namespace

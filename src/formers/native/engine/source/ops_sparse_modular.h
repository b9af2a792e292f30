// Products module by module: each module of the output sees its own module of the input and those beside it, in a circle.
#pragma once
#include "dot.h"
#include "wide.h"

namespace {

inline void run_modular(const Op& op, Step& step) {
    const Matrix& m = op.matrices[0];
    const int64_t modules = op.ints[0], inputs = step.registers[op.in[0]].width, each = inputs / modules;
    const int64_t beside = (m.columns / each - 1) / 2, out = m.rows / modules;
    for (int64_t r = 0; r < step.rows; r++) {
        const float* x = step.row(op.in[0], r);
        float* circle = step.row(op.out[1], r);
        copy_run(circle, x + inputs - beside * each, beside * each);
        copy_run(circle + beside * each, x, inputs);
        copy_run(circle + beside * each + inputs, x, beside * each);
    }
    share_rows(*step.pool, modules, out * m.stride, [&](int64_t first, int64_t count) {
        for (int64_t s = first; s < first + count; s++)
            for (int64_t r = 0; r < step.rows; r += MOST_BATCH) {
                const Input x = {step.row(op.out[1], r) + s * each, step.registers[op.out[1]].stride,
                                 least(MOST_BATCH, step.rows - r), nullptr};
                dot_rows(m, s * out, out, x, step.row(op.out[0], r) + s * out, step.registers[op.out[0]].stride);
            }
    });
    for (int64_t r = 0; op.vectors[0].size && r < step.rows; r++)
        add_scaled(step.row(op.out[0], r), 1.0f, op.vectors[0].data, m.rows);
}

}  // namespace

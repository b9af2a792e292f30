// The simple recurrent unit: one number carried on for each channel.
#pragma once
#include "wide.h"

namespace {

inline void run_recurrent(const Op& op, Step& step) {
    const int64_t width = step.registers[op.out[0]].width;
    for (int64_t r = 0; r < step.rows; r++) {  // those of a stream one after another
        const float* gates = step.row(op.in[0], r);
        float *x = step.row(op.out[0], r), *carried = step.cache(op.caches[0], r).floats();
        for (int64_t i = 0; i < width; i += WIDE) {
            float given[5][WIDE] = {};
            const int64_t some = least(WIDE, width - i);
            for (int64_t part = 0; part < 3; part++) copy_run(given[part], gates + part * width + i, some);
            copy_run(given[3], x + i, some), copy_run(given[4], carried + i, some);
            const Wide forget = sigmoid(load_wide(given[0])), reset = sigmoid(load_wide(given[1]));
            const Wide state = forget * load_wide(given[4]) + (1.0f - forget) * load_wide(given[2]);
            store_wide(given[4], state);
            store_wide(given[3], reset * state + (1.0f - reset) * load_wide(given[3]) * 1.7320508f);
            copy_run(x + i, given[3], some), copy_run(carried + i, given[4], some);
        }
    }
}

}  // namespace

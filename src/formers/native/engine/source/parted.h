// Few key heads and many threads: the keys of each head are cut into parts, and what each part gives is joined.
#pragma once
#include "attention.h"

namespace {

constexpr int64_t KEYS_OF_PART = 256;       // at least
constexpr int64_t PARTED_FLOATS = 1 << 16;  // room for what all parts of all rows give

// One of some parts, or all of it.
struct Part {
    int64_t index = 0, count = 1;

    SeenRun of(const SeenRun& run) const {
        const int64_t keys = run.end - run.first;
        return {run.first + keys * index / count, run.first + keys * (index + 1) / count};
    }
};

// What the parts of some rows give: outputs, maxima and sums of all heads for each.
struct Parted {
    int64_t parts, heads, width;
    float* memory;

    static int64_t floats(int64_t heads, int64_t width) { return heads * (width + 2); }  // of a part of a row

    Outputs of(int64_t row, int64_t part) const {
        float* const out = memory + (row * parts + part) * floats(heads, width);
        return {out, out + heads * width, out + heads * (width + 1)};
    }

    // The output of a row, divided.
    void join(int64_t row, float* y) const {
        for (int64_t h = 0; h < heads; h++) {
            float top = of(row, 0).top[h], total = 0;
            for (int64_t p = 1; p < parts; p++) top = most(top, of(row, p).top[h]);
            for (int64_t i = 0; i < width; i++) y[h * width + i] = 0;
            for (int64_t p = 0; p < parts; p++) {
                const Outputs from = of(row, p);
                const float weight = exponential(Wide{} + (from.top[h] - top))[0];
                total += weight * from.total[h];
                add_scaled(y + h * width, weight, from.out + h * width, width);
            }
            scale_run(y + h * width, total > 0 ? 1.0f / total : 0.0f, width);
        }
    }
};

}  // namespace

// A controller of low rank and what it chooses, block by block: its logits, which are many, are made where they are needed and
// again on the way back, and never lie in memory.
#pragma once
#include "drawn.h"

namespace {

inline void fill_logits(const Controller& c, int64_t row, int64_t k, Block& block) {
    const float *inner = c.inner + row * c.rank, *weight = c.weight + k * c.rank * c.padded, *bias = c.bias + k * c.padded;
    for (long j = 0; j < block.padded; j += LANES) {
        Floats sum = load<Floats>(bias + j);
        for (int64_t r = 0; r < c.rank; r++) sum += load<Floats>(weight + r * c.padded + j) * inner[r];
        store(block.numbers + j, sum);
    }
}

// Picks in all blocks of these rows, where choices are not given: by shares, or the largest where there are none. Then as `weigh_units`.
void control(const Controller& c, Rows rows) {
    Block block(c.size), sums(c.size);
    for (int64_t k = 0; k < c.blocks; k++)
        for (int64_t row = rows.first; row < rows.last; row++) {
            const int64_t i = row * c.blocks + k;
            fill_logits(c, row, k, block);
            const float peak = block.largest();
            if (!c.given) c.picked[i] = c.shares ? drawn(block, peak, c.sharpness, c.shares[i], sums) : block.place_of(peak);
            const Weighed found = weigh(block, peak);
            c.peaks[i] = found.peak;
            c.totals[i] = found.total;
            c.chances[i] = block.numbers[c.picked[i]] / found.total;
        }
}

// Adds to the gradients by inner numbers, weights and bias what one logit's row in a block tells them.
inline void teach(const Controller& c, const Block& slopes, int64_t row, int64_t k, float* by_inner) {
    const float *inner = c.inner + row * c.rank, *weight = c.weight + k * c.rank * c.padded;
    float *by_weight = c.by_weight + k * c.rank * c.padded, *by_bias = c.by_bias + k * c.padded;
    for (long j = 0; j < slopes.padded; j += LANES)
        store(by_bias + j, load<Floats>(by_bias + j) + load<Floats>(slopes.numbers + j));
    for (int64_t r = 0; r < c.rank; r++) {
        Floats told = {};
        for (long j = 0; j < slopes.padded; j += LANES) {
            const int64_t at = r * c.padded + j;
            const Floats slope = load<Floats>(slopes.numbers + j);
            told += slope * load<Floats>(weight + at);
            store(by_weight + at, load<Floats>(by_weight + at) + slope * inner[r]);
        }
        by_inner[r] += summed(told)[0];
    }
}

// The way back of one group of blocks, of the gradient `upstream` by the chances. Gradients begin at 0.
void control_backward(const Controller& c, Rows blocks) {
    float* by_inner = c.by_inner + blocks.first / c.at_once * c.rows * c.rank;
    Block block(c.size);
    for (int64_t k = blocks.first; k < blocks.last; k++)
        for (int64_t row = 0; row < c.rows; row++) {
            const int64_t i = row * c.blocks + k;
            const float slope = c.upstream[i] * c.chances[i];
            if (slope == 0.0f) continue;  // a unit that does not fire tells nothing
            fill_logits(c, row, k, block);
            slope_of(block, {c.peaks[i], c.totals[i]}, slope, c.picked[i]);
            teach(c, block, row, k, by_inner + row * c.rank);
        }
}

}  // namespace

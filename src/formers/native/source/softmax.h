// The softmax of tiles, (BLOCK keys, BLOCK queries), one vector of queries at a time: forwards with sums that fade as the
// peak grows, backwards from the log-sum-exps.
#pragma once
#include "vector.h"

namespace {

constexpr long BLOCK = 64;  // queries and keys that are worked on at a time

// Scores become weights; what was summed before fades by the growth of the peak. fades: the old peaks, then by how much.
inline void weigh(long keys, long lane, float* scores, const float* peaks, float* fades, float* totals) {
    const Floats peak = load<Floats>(peaks + lane);
    const Floats faded = exponential(load<Floats>(fades + lane) - peak);
    Floats even{}, odd{};
    float* score = scores + lane;
    for (long i = 0; i < keys; i++) {
        const Floats weight = exponential(load<Floats>(score + i * BLOCK) - peak);
        store(score + i * BLOCK, weight);
        (i % 2 ? odd : even) += weight;
    }
    store(fades + lane, faded);
    store(totals + lane, load<Floats>(totals + lane) * faded + (even + odd));
}

// Scores become weights, and the gradients by the weights become those by the scores.
inline void weigh_back(long keys, long lane, float* scores, float* slopes, const float* lses, const float* deltas) {
    const Floats lse = load<Floats>(lses + lane), delta = load<Floats>(deltas + lane);
    float *score = scores + lane, *slope = slopes + lane;
    for (long i = 0; i < keys * BLOCK; i += BLOCK) {
        const Floats weight = exponential(load<Floats>(score + i) - lse);
        store(score + i, weight);
        store(slope + i, weight * (load<Floats>(slope + i) - delta));
    }
}

// A row of whole vectors, times a number.
inline void fade(float* row, long width, float by) {
    for (long j = 0; j < width; j += LANES) store(row + j, load<Floats>(row + j) * by);
}

inline float dot(const float* a, const float* b, long width) {
    Floats sums{};
    long i = 0;
    for (; i + LANES <= width; i += LANES) sums += load<Floats>(a + i) * load<Floats>(b + i);
    float sum = 0;
    for (; i < width; i++) sum += a[i] * b[i];
    for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
    return sum;
}

}  // namespace

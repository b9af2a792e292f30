// Attention by features: each head keeps sums over its keys, which a token adds to and reads in one pass.
#pragma once
#include "feature_map.h"

namespace {

// What a head keeps, in units of e^peak: a row of features for each number of a value, one for the 1 behind it, and then the
// weights that keys came in with, the peak, and whether there was any key.
struct HeadSums {
    float* rows;
    float *weights, *peak, *begun;

    HeadSums(const FeatureMap& f, const Slots& slots, int64_t head) {
        rows = slots.floats() + head * slots.capacity * sums_slot(f.op);
        weights = rows + (f.width + 1) * f.count, peak = weights + 1, begun = weights + 2;
    }
};

constexpr float PEAK_OF_NOTHING = -1e4f;  // e to its power is 0
constexpr float LEAST_TOTAL = 1e-30f;     // less is lost in rounding

// How a token reads the sums, and what it adds: `keep` is left of what was there, and its key comes in with `fed`.
struct Pass {
    const float *asked, *told;
    int64_t features;
    float keep, fed;
};

// Numbers that have faded to less than 2^-120 as 0: a feature that no key has any more would end in numbers that are not
// normal, with which processors are many times slower.
ALWAYS_INLINE packed::Floats normal(const packed::Floats& x) {
    using packed::Ints;
    return packed::Floats(Ints(x) & ((Ints(x) & 0x7FFFFFFF) >= 0x03800000));
}

// Rows side by side, each asking for the one as far behind it as there are rows.
template <int rows, bool adds>
ALWAYS_INLINE void pass_rows(const Pass& p, float* row, const float* values, float* out) {
    using packed::Floats;
    Floats sums[rows] = {}, by[rows] = {};
    if (adds)
        for (int j = 0; j < rows; j++) by[j] = packed::fill(p.fed * values[j]);
    const Floats keep = packed::fill(p.keep);
    for (int64_t i = 0; i < p.features; i += packed::WIDTH) {
        const Floats asked = packed::load<Floats>(p.asked + i), told = packed::load<Floats>(p.told + i);
        UNROLLED
        for (int j = 0; j < rows; j++) {
            float* at = row + j * p.features + i;
            __builtin_prefetch(at + rows * p.features, adds);
            Floats now = packed::load<Floats>(at);
            if (adds) {
                now = normal(now * keep + by[j] * told);
                packed::store(at, now);
            }
            sums[j] += now * asked;
        }
    }
    UNROLLED
    for (int j = 0; j < rows; j++) out[j] = packed::total(sums[j]);
}

// All rows: sums of values go to `out`, and their weights' total is given back.
template <bool adds>
float pass_sums(const FeatureMap& f, const Pass& p, float* row, const float* values, float* out) {
    constexpr int ROWS = packed::WIDTH == 16 ? 8 : 4;  // as many as fit into registers
    const float one = 1;
    float total;
    int64_t j = 0;
    for (; j + ROWS <= f.width; j += ROWS) pass_rows<ROWS, adds>(p, row + j * f.count, values + j, out + j);
    for (; j < f.width; j++) pass_rows<1, adds>(p, row + j * f.count, values + j, out + j);
    pass_rows<1, adds>(p, row + j * f.count, &one, &total);
    return total;
}

// Brings a head's output to weights that add up to 1, or to as much as `floats` let them.
void divide(const FeatureMap& f, float total, float weights, float* out) {
    const float floor = f.op.floats[3];
    if (floor >= 0) total = most(floor * weights, total < LEAST_TOTAL ? LEAST_TOTAL : total);
    scale_run(out, 1.0f / (total == 0 ? 1.0f : total), f.width);
}

// Token `r` of a head. memory: for the features of its query and its key.
void attend_by_features(const FeatureMap& f, Step& step, int64_t r, int64_t head, float* memory) {
    const Op& op = f.op;
    const int64_t first = head * f.width;
    const float *q = step.row(op.in[0], r) + op.ints[QUERIES_AT], *k = step.row(op.in[1], r) + op.ints[KEYS_AT];
    const float* const x[] = {q + first, k + first};
    float* const phi[] = {memory, memory + f.count};
    meet_directions<2>(f, head, x, phi);
    make_features(f, x[0], phi[0]);
    const float own = make_features(f, x[1], phi[1]);
    const HeadSums sums(f, step.cache(op.caches[0], r), head);
    const float before = *sums.begun != 0 ? *sums.peak : PEAK_OF_NOTHING, peak = most(own, before);
    Pass pass = {phi[0], phi[1], f.count, __builtin_expf(before - peak), __builtin_expf(own - peak)};
    if (op.in.size > 3) {
        const float gate = step.row(op.in[3], r)[head];
        pass.keep /= 1.0f + __builtin_expf(-gate), pass.fed /= 1.0f + __builtin_expf(gate);
    }
    *sums.weights = *sums.weights * pass.keep + pass.fed, *sums.peak = peak, *sums.begun = 1;
    float* out = step.row(op.out[0], r) + first;
    const float* values = step.row(op.in[2], r) + op.ints[VALUES_AT] + first;
    divide(f, pass_sums<true>(f, pass, sums.rows, values, out), *sums.weights, out);
}

// About how many bytes the rows of a call read and write.
int64_t bytes_of_sums(const Op& op, const Step& step) {
    const Matrix& m = op.matrices[0];
    return step.rows * (op.ints[HEADS] * sums_slot(op) * 8 + m.rows * m.stride);
}

// Each piece is a head and a stream, whose tokens it goes through in order.
void run_feature_attend(const Op& op, Step& step) {
    const FeatureMap f(op);
    int64_t ends[MOST_ROWS], runs = 0;
    for (int64_t r = 0; r < step.rows; r++)
        if (r + 1 == step.rows || step.streams[r + 1] != step.streams[r]) ends[runs++] = r + 1;
    share(*step.pool, runs * op.ints[HEADS], bytes_of_sums(op, step), [&](int64_t piece) {
        const int64_t run = piece / op.ints[HEADS], head = piece % op.ints[HEADS];
        const int64_t first = run ? ends[run - 1] : 0;
        float* memory = step.row(op.out[1], first) + head * 2 * f.count;
        for (int64_t r = first; r < ends[run]; r++) attend_by_features(f, step, r, head, memory);
    });
}

void run_feature_cross(const Op& op, Step& step) {
    const FeatureMap f(op);
    share(*step.pool, step.rows * op.ints[HEADS], bytes_of_sums(op, step), [&](int64_t piece) {
        const int64_t r = piece / op.ints[HEADS], head = piece % op.ints[HEADS], first = head * f.width;
        const float* const x[] = {step.row(op.in[0], r) + op.ints[QUERIES_AT] + first};
        float* const phi[] = {step.row(op.out[1], r) + head * f.count};
        meet_directions<1>(f, head, x, phi);
        make_features(f, x[0], phi[0]);
        const HeadSums sums(f, step.cache(op.caches[0], r), head);
        float* out = step.row(op.out[0], r) + first;
        const Pass pass = {phi[0], phi[0], f.count, 1, 0};
        divide(f, pass_sums<false>(f, pass, sums.rows, out, out), *sums.weights, out);
    });
}

}  // namespace

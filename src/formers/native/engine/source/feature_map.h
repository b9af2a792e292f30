// Features of queries and keys: products with the directions of a head, and what a kernel makes of them.
#pragma once
#include "feature_shapes.h"
#include "lanes.h"
#include "wide.h"

namespace {

struct FeatureMap {
    const Op& op;
    const int64_t width, kind, directions, padded, count, panel;  // padded: of directions; count: of features, padded too
    const float factor, offset, square;

    explicit FeatureMap(const Op& op)
        : op(op), width(op.ints[HEAD_WIDTH]), kind(op.ints[FEATURE_KIND]), directions(op.ints[DIRECTIONS]),
          padded(padded_directions(op)), count(padded_features(op)), panel(op.ints[FEATURE_PANEL]), factor(op.floats[0]),
          offset(op.floats[1]), square(op.floats[2]) {}
};

// Products of some vectors with `vectors` registers full of the directions of a panel, which are read once for all.
template <int inputs, int vectors>
ALWAYS_INLINE void meet_lanes(const FeatureMap& f, const float* w, const float* const* x, int64_t first,
                              float* const* y) {
    using packed::Floats;
    Floats sums[inputs][vectors] = {};
    for (int64_t d = 0; d < f.width; d++, w += f.panel) {
        Floats row[vectors];
        UNROLLED
        for (int v = 0; v < vectors; v++) row[v] = packed::load<Floats>(w + v * packed::WIDTH);
        UNROLLED
        for (int i = 0; i < inputs; i++)
            UNROLLED
            for (int v = 0; v < vectors; v++) sums[i][v] += packed::fill(x[i][d]) * row[v];
    }
    for (int i = 0; i < inputs; i++)
        for (int v = 0; v < vectors; v++) packed::store(y[i] + first + v * packed::WIDTH, sums[i][v]);
}

// y[i]: the products of vector x[i] with all directions of a head.
template <int inputs>
void meet_directions(const FeatureMap& f, int64_t head, const float* const* x, float* const* y) {
    constexpr int64_t SOME = 4 * packed::WIDTH;
    const Matrix& m = f.op.matrices[0];
    const int64_t panels = f.padded / f.panel;
    for (int64_t p = 0; p < panels; p++) {
        const float* w = reinterpret_cast<const float*>(m.data + (head * panels + p) * m.stride);
        int64_t lane = 0;
        for (; lane + SOME <= f.panel; lane += SOME) meet_lanes<inputs, 4>(f, w + lane, x, p * f.panel + lane, y);
        for (; lane < f.panel; lane += packed::WIDTH) meet_lanes<inputs, 1>(f, w + lane, x, p * f.panel + lane, y);
    }
}

// e^x, and 0 where that is so small that products with it would not be normal numbers.
ALWAYS_INLINE Wide vanishing_exponential(const Wide& x) { return pick(x < -80.0f, Wide{}, exponential(x)); }

constexpr float FAR = 8192.0f;  // up to there the quarters of a turn are told exactly enough

// Sine and cosine of numbers not beyond FAR: the rest behind whole quarters of a turn, and a polynomial for each.
ALWAYS_INLINE void sine_cosine(const Wide& x, Wide& sine, Wide& cosine) {
    const Wide shifted = x * 0.636619772f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to a whole number
    const Wide n = shifted - 12582912.0f;
    const Wide r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.549789948768648e-8f, z = r * r;
    const Wide s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    const Wide c =
        ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    const WideInts quarter = WideInts(shifted), odd = -(quarter & 1);
    sine = pick(-((quarter >> 1) & 1), -pick(odd, c, s), pick(odd, c, s));
    cosine = pick(-(((quarter + 1) >> 1) & 1), -pick(odd, s, c), pick(odd, s, c));
}

// y, `count` numbers, becomes their sines, and those behind them their cosines.
void make_waves(float* y, int64_t count, float furthest) {
    if (furthest <= FAR) {
        for (int64_t i = 0; i < count; i += WIDE) {
            Wide sine, cosine;
            sine_cosine(load_wide(y + i), sine, cosine);
            store_wide(y + i, sine), store_wide(y + count + i, cosine);
        }
        return;
    }
    for (int64_t i = 0; i < count; i++) y[count + i] = __builtin_cosf(y[i]), y[i] = __builtin_sinf(y[i]);
}

// The largest of `count` numbers, a multiple of 16, without their signs.
float furthest_of(const float* x, int64_t count) {
    Wide sizes = {};
    for (int64_t i = 0; i < count; i += WIDE) {
        const Wide some = load_wide(x + i), size = pick(some < 0.0f, -some, some);
        sizes = pick(size > sizes, size, sizes);
    }
    float furthest = 0;
    for (int i = 0; i < WIDE; i++) furthest = most(sizes[i], furthest);
    return furthest;
}

// Of products y, whose last ones are padding: what is put out is in units of e to the power that is given back.
float apply_kind(const FeatureMap& f, float* y) {
    float unit = 0;
    for (int64_t i = f.directions; i < f.padded; i++) y[i] = y[0];
    if (f.kind == WAVES) make_waves(y, f.padded, furthest_of(y, f.padded));
    if (f.kind == RECTIFIED) activate_run<relu>(y, f.padded);
    if (f.kind == EXPONENTIAL) {
        unit = largest_of(y, f.padded);
        for (int64_t i = 0; i < f.padded; i += WIDE) store_wide(y + i, vanishing_exponential(load_wide(y + i) - unit));
    }
    if (f.kind == EXPONENTIALS) {
        unit = furthest_of(y, f.padded);
        for (int64_t i = 0; i < f.padded; i += WIDE) {
            const Wide x = load_wide(y + i);
            store_wide(y + i, vanishing_exponential(x - unit));
            store_wide(y + f.padded + i, vanishing_exponential(-x - unit));
        }
    }
    return unit;
}

// Turns products y of a vector x with all directions into its features, in units of e to the power of its peak, which is given
// back. Padding is 0.
float make_features(const FeatureMap& f, const float* x, float* y) {
    const float squares = dot_run(x, x, f.width);
    if (f.op.ints[OF_UNITS]) scale_run(y, 1.0f / most(__builtin_sqrtf(squares), 1e-12f), f.padded);
    const float unit = apply_kind(f, y);
    for (int64_t i = 0; i < f.count; i += WIDE) store_wide(y + i, load_wide(y + i) * f.factor + f.offset);
    for (int64_t part = 0; part < f.count; part += f.padded)
        for (int64_t i = f.directions; i < f.padded; i++) y[part + i] = 0;
    return f.square != 0 ? unit + f.square * squares : unit;
}

}  // namespace

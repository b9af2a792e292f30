// Which of some axes, or of their opposites, rows of numbers point along most.
#pragma once
#include "vector.h"

namespace {

// So many rows as a vector has lanes, turned so that vectors run over them: lane i of square[a] is number first + a of row
// i, and 0 behind the last number. row: so many numbers apart are rows, of which there are `count`; beyond, the last one again.
inline void turned_rows(const float* from, long row, long count, long first, long some, Floats* square) {
    for (long i = 0; i < LANES; i++) {
        const float* at = from + (i < count ? i : count - 1) * row + first;
        square[i] = Floats{};
        if (some == LANES)
            square[i] = load<Floats>(at);
        else
            __builtin_memcpy(&square[i], at, some * sizeof(float));
    }
    transpose(square);
}

// For each of LANES rows, of which `count` are there: a where number a is the largest and a + axes where its opposite is.
// Of equals the first.
inline Ints nearest_lanes(const float* from, long axes, long count) {
    Floats square[LANES], high{}, low{};
    Ints highest{}, lowest{};
    for (long first = 0; first < axes; first += LANES) {
        const long some = axes - first < LANES ? axes - first : LANES;
        turned_rows(from, axes, count, first, some, square);
        if (first == 0) high = low = square[0];
        for (long a = 0; a < some; a++) {
            const Ints index = Ints{} + int32_t(first + a);
            highest = square[a] > high ? index : highest;
            high = square[a] > high ? square[a] : high;
            lowest = square[a] < low ? index : lowest;
            low = square[a] < low ? square[a] : low;
        }
    }
    return high >= -low ? highest : lowest + int32_t(axes);
}

// x: (rows, axes), to (rows,).
inline void nearest_axes(const float* x, long rows, long axes, int32_t* to) {
    for (long i = 0; i < rows; i += LANES) {
        const long some = rows - i < LANES ? rows - i : LANES;
        const Ints found = nearest_lanes(x + i * axes, axes, some);
        __builtin_memcpy(to + i, &found, some * sizeof(int32_t));
    }
}

}  // namespace

// The largest of a row of numbers: first along the vector's own positions, then across them.
#pragma once
#include "wide.h"

namespace {

struct Largest {
    int64_t place;  // the first of the largest, below `count` whatever the numbers are
    float value;
};

// count: a multiple of 16.
inline Largest largest(const float* x, int64_t count) {
    Wide best = Wide{} - __builtin_inff();
    WideInts at = {}, here;
    for (int i = 0; i < WIDE; i++) here[i] = i;
    for (int64_t i = 0; i < count; i += WIDE, here += int32_t(WIDE)) {
        const Wide now = load_wide(x + i);
        const WideInts above = now > best;
        best = pick(above, now, best);
        at = (above & here) | (~above & at);
    }
    Largest found = {at[0], best[0]};
    for (int i = 1; i < WIDE; i++)
        if (best[i] > found.value || (best[i] == found.value && at[i] < found.place)) found = {at[i], best[i]};
    return found;
}

// The softmax of `count` numbers, a multiple of 16, at their largest.
inline float chance_of_largest(const float* x, int64_t count, float value) {
    Wide sum = {};
    for (int64_t i = 0; i < count; i += WIDE) sum += exponential(load_wide(x + i) - value);
    return 1.0f / sum_of(sum);
}

}  // namespace

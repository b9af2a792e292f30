// Operations of attention over what the caches keep.
#pragma once
#include "attention.h"
#include "pattern.h"

namespace {

// Calls work(numbers) with what a cache keeps, as the numbers that they are.
template <class Work>
ALWAYS_INLINE void with_numbers(const Slots& slots, const Work& work) {
    if (slots.type == Type::fp32)
        work(slots.floats());
    else
        work(reinterpret_cast<uint16_t*>(slots.data));
}

ALWAYS_INLINE void store_kept(float* to, const float* from, int64_t count) { copy_run(to, from, count); }
ALWAYS_INLINE void store_kept(uint16_t* to, const float* from, int64_t count) { to_halves(to, from, count); }

void remember(const Slots& into, const float* from, int64_t heads, int64_t width, int64_t position) {
    const int64_t slot = position % into.capacity;
    with_numbers(into, [&](auto* numbers) {
        for (int64_t h = 0; h < heads; h++)
            store_kept(numbers + (h * into.capacity + slot) * width, from + h * width, width);
    });
}

// The keys that a row meets in both caches: `count` from slot `first` on.
struct Reach {
    const Slots &k, &v;
    int64_t first, count, distance;
};

// All query heads of key head `group` in one row.
void attend_group(const Scored& s, const Reach& reach, const float* q, int64_t group, float* out) {
    const int64_t heads = s.op.ints[0] / s.op.ints[1], end = (group + 1) * heads, capacity = reach.k.capacity;
    with_numbers(reach.k, [&](const auto* k) {
        const auto* v = reinterpret_cast<decltype(k)>(reach.v.data);
        const Met<decltype(k)> met = {k + group * capacity * s.width, v + group * capacity * s.value_width, reach.first,
                                      capacity, reach.count, reach.distance};
        for (int64_t h = group * heads; h < end; h += TOGETHER)
            attend(s, met, q + h * s.width, h, least(TOGETHER, end - h), out + h * s.value_width);
    });
}

void run_attend(const Op& op, Step& step) {
    const int64_t groups = op.ints[1];
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], op.floats[1]};
    int64_t met_keys = 0;
    for (int64_t r = 0; r < step.rows; r++) {
        const int64_t p = step.positions[r];
        remember(step.cache(op.caches[0], r), step.row(op.in[1], r) + op.ints[5], groups, s.width, p);
        remember(step.cache(op.caches[1], r), step.row(op.in[2], r) + op.ints[6], groups, s.value_width, p);
        met_keys += p + 1 - first_seen(op.ints, p);
    }
    share(*step.pool, step.rows * groups, met_keys * groups * (s.width + s.value_width) * 4, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups, p = step.positions[r], first = first_seen(op.ints, p);
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        const Reach reach = {k, v, first % k.capacity, p + 1 - first, p - first};
        attend_group(s, reach, step.row(op.in[0], r) + op.ints[4], group, step.row(op.out[0], r));
    });
}

void run_cross(const Op& op, Step& step) {
    const int64_t groups = op.ints[1];
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], 0};
    int64_t met_keys = 0;
    for (int64_t r = 0; r < step.rows; r++) met_keys += step.cache(op.caches[0], r).length;
    share(*step.pool, step.rows * groups, met_keys * groups * (s.width + s.value_width) * 4, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups;
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        attend_group(s, {k, v, 0, k.length, 0}, step.row(op.in[0], r) + op.ints[4], group, step.row(op.out[0], r));
    });
}

}  // namespace

// Operations of attention over what the caches keep.
#pragma once
#include "attention.h"
#include "pattern.h"

namespace {

constexpr int64_t MANY_BYTES = 1 << 22;  // more make no difference to who reads them

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

// Some query heads of key head `group` in one row, against what both caches keep. tiles(met, work): see `attend`.
template <class Tiles>
void attend_heads(const Scored& s, const Slots& k, const Slots& v, int64_t group, const float* q, int64_t head,
                  int64_t heads, float* out, const Tiles& tiles) {
    with_numbers(k, [&](const auto* keys) {
        const auto* values = reinterpret_cast<decltype(keys)>(v.data);
        const int64_t key_run = k.capacity * s.width, value_run = k.capacity * s.value_width;
        keys += group * key_run, values += group * value_run;
        const Met<decltype(keys)> met = {keys, values, keys + key_run, values + value_run, k.capacity};
        attend(s, [&](const auto& work) { tiles(met, work); }, q + head * s.width, head, heads, out + head * s.value_width);
    });
}

// How many of the heads from `head` on see alike, and are read together.
int64_t heads_alike(const List<int64_t>& ints, int64_t head, int64_t end) {
    int64_t count = 1;
    while (count < TOGETHER && head + count < end && ints[PATTERN_AT + head + count] == ints[PATTERN_AT + head]) count++;
    return count;
}

// All query heads of key head `group` in one row, at a position.
void attend_group(const Scored& s, const Slots& k, const Slots& v, int64_t position, int64_t group, const float* q,
                  float* out) {
    const int64_t heads = s.op.ints[0] / s.op.ints[1], end = (group + 1) * heads;
    for (int64_t head = group * heads, count; head < end; head += count) {
        count = heads_alike(s.op.ints, head, end);
        const List<int64_t> pattern = pattern_of(s.op.ints, head);
        const SeenRun run = next_run(pattern, position, 0);
        attend_heads(s, k, v, group, q, head, count, out, [&](const auto& met, const auto& work) {
            if (run.end > position)
                for_tiles(met, {run.first % k.capacity, position - run.first}, run.end - run.first, work);
            else
                for_tiles(met, pattern, position, run, work);
        });
    }
}

// About how many bytes a row reads at a position, by what its first head sees; no more are counted than matter.
int64_t bytes_met(const Scored& s, int64_t position) {
    const List<int64_t> pattern = pattern_of(s.op.ints, 0);
    const int64_t key = s.op.ints[1] * (s.width + s.value_width) * 4;
    int64_t keys = 0;
    for (SeenRun run = next_run(pattern, position, 0); run.first < run.end && keys * key < MANY_BYTES;
         run = next_run(pattern, position, run.end))
        keys += run.end - run.first;
    return keys * key;
}

void run_attend(const Op& op, Step& step) {
    const int64_t groups = op.ints[1];
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], op.floats[1]};
    int64_t bytes = 0;
    for (int64_t r = 0; r < step.rows; r++) {
        const int64_t p = step.positions[r];
        remember(step.cache(op.caches[0], r), step.row(op.in[1], r) + op.ints[5], groups, s.width, p);
        remember(step.cache(op.caches[1], r), step.row(op.in[2], r) + op.ints[6], groups, s.value_width, p);
        if (bytes < MANY_BYTES) bytes += bytes_met(s, p);
    }
    share(*step.pool, step.rows * groups, bytes, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups;
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        attend_group(s, k, v, step.positions[r], group, step.row(op.in[0], r) + op.ints[4], step.row(op.out[0], r));
    });
}

void run_cross(const Op& op, Step& step) {
    const int64_t groups = op.ints[1], heads = op.ints[0] / groups;
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], 0};
    int64_t keys = 0;
    for (int64_t r = 0; r < step.rows; r++) keys += step.cache(op.caches[0], r).length;
    share(*step.pool, step.rows * groups, keys * groups * (s.width + s.value_width) * 4, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups, end = (group + 1) * heads;
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        const float* q = step.row(op.in[0], r) + op.ints[4];
        const auto tiles = [&](const auto& met, const auto& work) { for_tiles(met, {0, 0}, k.length, work); };
        for (int64_t head = group * heads; head < end; head += TOGETHER)
            attend_heads(s, k, v, group, q, head, least(TOGETHER, end - head), step.row(op.out[0], r), tiles);
    });
}

}  // namespace

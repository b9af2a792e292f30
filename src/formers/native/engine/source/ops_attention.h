// Attention over what the caches keep. One softmax in one pass: scores of a tile of keys, the running maximum and sum, and
// the output scaled to it.
#pragma once
#include "pattern.h"
#include "wide.h"

namespace {

constexpr int64_t KEYS = 64, TOGETHER = 8;  // keys in a tile; query heads that read it together

// The keys and values that one query meets, of one key head. Key i stands at `first` + i; its distance to the query is
// `distance` - i.
struct Met {
    const float *k, *v;
    int64_t slot, capacity;  // of the first; slots go round
    int64_t count, distance;
};

struct Scored {
    const Op& op;
    int64_t width, value_width;
    float scale, charge;
};

// Added to the score of a pair by its distance.
void add_bias(const Scored& s, int64_t head, int64_t distance, float* scores, int64_t count) {
    const Vector &slopes = s.op.vectors[0], &table = s.op.vectors[1];
    if (slopes.size)
        for (int64_t i = 0; i < count; i++) scores[i] -= slopes.data[head] * float(distance - i);
    if (table.size) {
        const int64_t known = table.size / s.op.ints[0];
        for (int64_t i = 0; i < count; i++) scores[i] += table.data[head * known + least(distance - i, known - 1)];
    }
    if (s.charge != 0 && distance < count) scores[distance] += s.charge;
}

struct Running {
    float top[TOGETHER], total[TOGETHER];
};

// Adds a tile of `count` keys in successive slots to the outputs of `heads` query heads.
void add_tile(const Scored& s, const float* q, int64_t head, int64_t heads, const float* k, const float* v,
              int64_t count, int64_t distance, Running& running, float* out) {
    alignas(64) float scores[KEYS];
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < count; i++) scores[i] = dot_run(q + h * s.width, k + i * s.width, s.width) * s.scale;
        add_bias(s, head + h, distance, scores, count);
        float top = running.top[h];
        for (int64_t i = 0; i < count; i++) top = most(top, scores[i]);
        for (int64_t i = count; i < KEYS; i++) scores[i] = -__builtin_inff();
        const float before = exponential(Wide{} + (running.top[h] - top))[0];
        Wide sum = {};
        for (int64_t i = 0; i < count; i += WIDE) {
            const Wide weights = exponential(load_wide(scores + i) - top);
            store_wide(scores + i, weights);
            sum += weights;
        }
        running.total[h] = running.total[h] * before + sum_of(sum);
        running.top[h] = top;
        float* y = out + h * s.value_width;
        if (before != 1.0f) scale_run(y, before, s.value_width);
        for (int64_t i = 0; i < count; i++) add_scaled(y, scores[i], v + i * s.value_width, s.value_width);
    }
}

void attend(const Scored& s, const Met& met, const float* q, int64_t head, int64_t heads, float* out) {
    Running running;
    for (int64_t h = 0; h < heads; h++) running.top[h] = -__builtin_inff(), running.total[h] = 0;
    for (int64_t i = 0; i < heads * s.value_width; i++) out[i] = 0;
    int64_t slot = met.slot;
    for (int64_t i = 0; i < met.count;) {
        const int64_t count = least(KEYS, least(met.count - i, met.capacity - slot));
        const float *k = met.k + slot * s.width, *v = met.v + slot * s.value_width;
        add_tile(s, q, head, heads, k, v, count, met.distance - i, running, out);
        i += count;
        slot = slot + count == met.capacity ? 0 : slot + count;
    }
    for (int64_t h = 0; h < heads; h++)
        scale_run(out + h * s.value_width, running.total[h] > 0 ? 1.0f / running.total[h] : 0.0f, s.value_width);
}

// All query heads of key head `group` in one row.
void attend_group(const Scored& s, const Met& met, const float* q, int64_t group, float* out) {
    const int64_t heads = s.op.ints[0] / s.op.ints[1], end = (group + 1) * heads;
    for (int64_t h = group * heads; h < end; h += TOGETHER)
        attend(s, met, q + h * s.width, h, least(TOGETHER, end - h), out + h * s.value_width);
}

void remember(const Slots& into, const float* from, int64_t heads, int64_t width, int64_t position) {
    const int64_t slot = position % into.capacity;
    for (int64_t h = 0; h < heads; h++)
        copy_run(into.data + (h * into.capacity + slot) * width, from + h * width, width);
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
    const int64_t bytes = met_keys * groups * (s.width + s.value_width) * int64_t(sizeof(float));
    share(*step.pool, step.rows * groups, bytes, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups, p = step.positions[r], first = first_seen(op.ints, p);
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        const Met met = {k.data + group * k.capacity * s.width, v.data + group * v.capacity * s.value_width,
                         first % k.capacity, k.capacity, p + 1 - first, p - first};
        attend_group(s, met, step.row(op.in[0], r) + op.ints[4], group, step.row(op.out[0], r));
    });
}

void run_cross(const Op& op, Step& step) {
    const int64_t groups = op.ints[1];
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], 0};
    int64_t met_keys = 0;
    for (int64_t r = 0; r < step.rows; r++) met_keys += step.cache(op.caches[0], r).length;
    const int64_t bytes = met_keys * groups * (s.width + s.value_width) * int64_t(sizeof(float));
    share(*step.pool, step.rows * groups, bytes, [&](int64_t item) {
        const int64_t r = item / groups, group = item % groups;
        const Slots &k = step.cache(op.caches[0], r), &v = step.cache(op.caches[1], r);
        const Met met = {k.data + group * k.capacity * s.width, v.data + group * v.capacity * s.value_width,
                         0, k.capacity, k.length, 0};
        attend_group(s, met, step.row(op.in[0], r) + op.ints[4], group, step.row(op.out[0], r));
    });
}

}  // namespace

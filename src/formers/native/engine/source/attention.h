// Query heads against the keys and values of one key head. One softmax in one pass: scores of a tile of keys, the running
// maximum and sum, and the output scaled to it. Each tile asks for the one behind it, so that short runs of keys, head by
// head, come from memory as one.
#pragma once
#include "wide.h"

namespace {

constexpr int64_t KEYS = 64, TOGETHER = 8;  // keys in a tile; query heads that read it together
constexpr int64_t AT_A_TIME = 4;            // keys whose scores are summed side by side

// What one key head keeps. Key i stands at `first` + i, goes round, and its distance to the query is `distance` - i.
template <class Numbers>
struct Met {
    Numbers k, v;
    int64_t first, capacity, count, distance;
};

struct Scored {
    const Op& op;
    int64_t width, value_width;
    float scale, charge;
};

// A run of slots, and the one that will be read behind it.
template <class Numbers>
struct Tile {
    Numbers k, v, next_k, next_v;
    int64_t count, distance;
};

template <class Numbers>
ALWAYS_INLINE void ask_for(Numbers numbers, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof *numbers)) __builtin_prefetch(numbers + i);
}

template <int keys, class Numbers>
ALWAYS_INLINE void score_some(const float* q, Numbers k, int64_t width, float scale, float* scores) {
    Wide sums[keys] = {};
    int64_t i = 0;
    for (; i + WIDE <= width; i += WIDE) {
        const Wide mine = load_wide(q + i);
        for (int j = 0; j < keys; j++) sums[j] += mine * load_wide(k + j * width + i);
    }
    for (int j = 0; j < keys; j++) {
        float sum = sum_of(sums[j]);
        for (int64_t rest = i; rest < width; rest++) sum += q[rest] * number_of(k[j * width + rest]);
        scores[j] = sum * scale;
    }
}

template <class Numbers>
ALWAYS_INLINE void score(const Scored& s, const float* q, const Tile<Numbers>& tile, bool ask, float* scores) {
    int64_t i = 0;
    for (; i + AT_A_TIME <= tile.count; i += AT_A_TIME) {
        if (ask) ask_for(tile.next_k + i * s.width, AT_A_TIME * s.width);
        score_some<AT_A_TIME>(q, tile.k + i * s.width, s.width, s.scale, scores + i);
    }
    for (; i < tile.count; i++) score_some<1>(q, tile.k + i * s.width, s.width, s.scale, scores + i);
}

// y += the sum of weights[i] * v[i]: from `column` on, as many columns as make whole runs of `vectors` vectors.
template <int vectors, class Numbers>
ALWAYS_INLINE void add_columns(const float* weights, const Tile<Numbers>& tile, int64_t width, bool ask, int64_t& column,
                               float* y) {
    for (; column + vectors * WIDE <= width; column += vectors * WIDE) {
        const Numbers v = tile.v + column, next = tile.next_v + column;
        Wide sums[vectors];
        for (int c = 0; c < vectors; c++) sums[c] = load_wide(y + column + c * WIDE);
        for (int64_t i = 0; i < tile.count; i++) {
            if (ask) ask_for(next + i * width, vectors * WIDE);
            for (int c = 0; c < vectors; c++) sums[c] += weights[i] * load_wide(v + i * width + c * WIDE);
        }
        for (int c = 0; c < vectors; c++) store_wide(y + column + c * WIDE, sums[c]);
    }
}

template <class Numbers>
ALWAYS_INLINE void add_values(const float* weights, const Tile<Numbers>& tile, int64_t width, bool ask, float* y) {
    int64_t column = 0;
    add_columns<8>(weights, tile, width, ask, column, y);
    add_columns<4>(weights, tile, width, ask, column, y);
    add_columns<1>(weights, tile, width, ask, column, y);
    for (; column < width; column++)
        for (int64_t i = 0; i < tile.count; i++) y[column] += weights[i] * number_of(tile.v[i * width + column]);
}

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

// Adds a tile to the outputs of `heads` query heads, of which the first asks for the next.
template <class Numbers>
void add_tile(const Scored& s, const float* q, int64_t head, int64_t heads, const Tile<Numbers>& tile, Running& running,
              float* out) {
    alignas(64) float scores[KEYS];
    for (int64_t h = 0; h < heads; h++) {
        score(s, q + h * s.width, tile, h == 0, scores);
        add_bias(s, head + h, tile.distance, scores, tile.count);
        for (int64_t i = tile.count; i % WIDE; i++) scores[i] = -__builtin_inff();
        const float top = most(running.top[h], largest_of(scores, tile.count));
        const float before = exponential(Wide{} + (running.top[h] - top))[0];
        Wide sum = {};
        for (int64_t i = 0; i < tile.count; i += WIDE) {
            const Wide weights = exponential(load_wide(scores + i) - top);
            store_wide(scores + i, weights);
            sum += weights;
        }
        running.total[h] = running.total[h] * before + sum_of(sum);
        running.top[h] = top;
        float* y = out + h * s.value_width;
        if (before != 1.0f) scale_run(y, before, s.value_width);
        add_values(scores, tile, s.value_width, h == 0, y);
    }
}

template <class Numbers>
void attend(const Scored& s, const Met<Numbers>& met, const float* q, int64_t head, int64_t heads, float* out) {
    Running running;
    for (int64_t h = 0; h < heads; h++) running.top[h] = -__builtin_inff(), running.total[h] = 0;
    for (int64_t i = 0; i < heads * s.value_width; i++) out[i] = 0;
    const auto k = [&](int64_t slot) { return met.k + slot * s.width; };
    const auto v = [&](int64_t slot) { return met.v + slot * s.value_width; };
    int64_t slot = met.first;
    for (int64_t i = 0; i < met.count;) {
        const int64_t count = least(KEYS, least(met.count - i, met.capacity - slot));
        int64_t next = slot + count == met.capacity ? 0 : slot + count;
        if (i + count == met.count) next = met.capacity + met.first;  // of the next head
        const Tile<Numbers> tile = {k(slot), v(slot), k(next), v(next), count, met.distance - i};
        add_tile(s, q, head, heads, tile, running, out);
        i += count, slot = next;
    }
    for (int64_t h = 0; h < heads; h++)
        scale_run(out + h * s.value_width, running.total[h] > 0 ? 1.0f / running.total[h] : 0.0f, s.value_width);
}

}  // namespace

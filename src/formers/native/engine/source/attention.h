// Query heads against the keys and values of one key head. One softmax in one pass: scores of a tile of keys, the running
// maximum and sum, and the output scaled to it. Each tile asks for the one behind it, so that short runs of keys, head by
// head, come from memory as one. A key is made into floats once for several heads.
#pragma once
#include "asking.h"
#include "pattern.h"
#include "wide.h"

namespace {

constexpr int64_t KEYS = 64, TOGETHER = 8;  // keys in a tile; query heads that read it together
constexpr int64_t AT_A_TIME = 4;            // keys whose scores are summed side by side
#ifdef __AVX512F__
constexpr int SIDE_BY_SIDE = 4;  // heads that are worked on at once, since a key is made into floats once for all of them
#else
constexpr int SIDE_BY_SIDE = 1;  // there are not the registers for more
#endif

// What one key head keeps in `capacity` slots, and where the next head's are.
template <class Numbers>
struct Met {
    Numbers k, v, next_k, next_v;
    int64_t capacity;
};

struct Scored {
    const Op& op;
    int64_t width, value_width;
    float scale, charge;
};

// Where the keys of a tile are: key i in `slot`, and `back` from the query. Side by side, or anywhere.
struct Beside {
    int64_t first, distance;
    ALWAYS_INLINE int64_t slot(int64_t i) const { return first + i; }
    ALWAYS_INLINE int64_t back(int64_t i) const { return distance - i; }
};

struct Apart {
    const int64_t *slots, *distances;
    ALWAYS_INLINE int64_t slot(int64_t i) const { return slots[i]; }
    ALWAYS_INLINE int64_t back(int64_t i) const { return distances[i]; }
};

// Some keys, and those that will be read behind them.
template <class Numbers, class Where>
struct Tile {
    Numbers k, v, next_k, next_v;
    int64_t count;
    Where now, next;
};

template <class Numbers>
ALWAYS_INLINE void ask_for(Numbers numbers, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof *numbers)) __builtin_prefetch(numbers + i);
}

// Asks for what is behind a tile while this one's keys are read: keys that are anywhere, or keys and values side by side.
template <class Tile>
struct Ahead {
    static constexpr bool VALUES = false;  // are asked for
    const Scored& s;
    const Tile& tile;

    Ahead(const Scored& s, const Tile& tile) : s(s), tile(tile) {}

    ALWAYS_INLINE void keys(int64_t first, int64_t count) {
        for (int64_t i = first; i < first + count; i++) ask_for(tile.next_k + tile.next.slot(i) * s.width, s.width);
    }
};

template <class Numbers>
struct Ahead<Tile<Numbers, Beside>> {
    static constexpr bool VALUES = true;
    const int64_t a_key, a_value;  // bytes
    Asking k, v;

    Ahead(const Scored& s, const Tile<Numbers, Beside>& tile)
        : a_key(s.width * int64_t(sizeof *tile.k)),
          a_value(s.value_width * int64_t(sizeof *tile.v)),
          k(tile.next_k + tile.next.first * s.width, tile.count * a_key),
          v(tile.next_v + tile.next.first * s.value_width, tile.count * a_value) {}

    ALWAYS_INLINE void keys(int64_t, int64_t count) {
        k.pairs(Asking::pairs_in(count * a_key)), v.pairs(Asking::pairs_in(count * a_value));
    }
};

// Scores of `keys` keys from `first` on for `heads` heads, whose queries lie side by side: [heads][KEYS].
template <int heads, int keys, class Tile>
ALWAYS_INLINE void score_some(const Scored& s, const float* q, const Tile& tile, int64_t first, float* scores) {
    decltype(tile.k) k[keys];
    for (int j = 0; j < keys; j++) k[j] = tile.k + tile.now.slot(first + j) * s.width;
    Wide sums[heads][keys] = {};
    int64_t i = 0;
    for (; i + WIDE <= s.width; i += WIDE) {
        Wide mine[heads];
        for (int h = 0; h < heads; h++) mine[h] = load_wide(q + h * s.width + i);
        for (int j = 0; j < keys; j++) {
            const Wide key = load_wide(k[j] + i);
            for (int h = 0; h < heads; h++) sums[h][j] += mine[h] * key;
        }
    }
    alignas(64) float made[heads][keys];
    if constexpr (heads * keys == WIDE)
        store_wide(made[0], sums_of_all(sums[0]));
    else
        for (int h = 0; h < heads; h++)
            for (int j = 0; j < keys; j++) made[h][j] = sum_of(sums[h][j]);
    for (int h = 0; h < heads; h++)
        for (int j = 0; j < keys; j++) {
            float sum = made[h][j];
            for (int64_t rest = i; rest < s.width; rest++) sum += q[h * s.width + rest] * number_of(k[j][rest]);
            scores[h * KEYS + first + j] = sum * s.scale;
        }
}

template <int heads, class Tile>
ALWAYS_INLINE void score(const Scored& s, const float* q, const Tile& tile, bool ask, float* scores) {
    Ahead<Tile> ahead(s, tile);
    int64_t i = 0;
    for (; i + AT_A_TIME <= tile.count; i += AT_A_TIME) {
        if (ask) ahead.keys(i, AT_A_TIME);
        score_some<heads, AT_A_TIME>(s, q, tile, i, scores);
    }
    if (ask) ahead.keys(i, tile.count - i);
    for (; i < tile.count; i++) score_some<heads, 1>(s, q, tile, i, scores);
}

// y += the sum of weights[i] * v[i], for each head: from `column` on, as many columns as make whole runs of `vectors` vectors.
template <int heads, int vectors, class Tile>
ALWAYS_INLINE void add_columns(const float* weights, const Tile& tile, int64_t width, bool ask, int64_t& column, float* y) {
    for (; column + vectors * WIDE <= width; column += vectors * WIDE) {
        const auto v = tile.v + column, next = tile.next_v + column;
        Wide sums[heads][vectors];
        for (int h = 0; h < heads; h++)
            for (int c = 0; c < vectors; c++) sums[h][c] = load_wide(y + h * width + column + c * WIDE);
        for (int64_t i = 0; i < tile.count; i++) {
            if (ask) ask_for(next + tile.next.slot(i) * width, vectors * WIDE);
            const auto mine = v + tile.now.slot(i) * width;
            for (int c = 0; c < vectors; c++) {
                const Wide value = load_wide(mine + c * WIDE);
                for (int h = 0; h < heads; h++) sums[h][c] += weights[h * KEYS + i] * value;
            }
        }
        for (int h = 0; h < heads; h++)
            for (int c = 0; c < vectors; c++) store_wide(y + h * width + column + c * WIDE, sums[h][c]);
    }
}

template <int heads, class Tile>
ALWAYS_INLINE void add_values(const float* weights, const Tile& tile, int64_t width, bool ask, float* y) {
    int64_t column = 0;
    if constexpr (heads == 1) add_columns<heads, 8>(weights, tile, width, ask, column, y);
    add_columns<heads, 4>(weights, tile, width, ask, column, y);
    add_columns<heads, 1>(weights, tile, width, ask, column, y);
    for (; column < width; column++)
        for (int h = 0; h < heads; h++)
            for (int64_t i = 0; i < tile.count; i++)
                y[h * width + column] += weights[h * KEYS + i] * number_of(tile.v[tile.now.slot(i) * width + column]);
}

// Added to the score of a pair by its distance. A query's own key is the last of all.
template <class Where>
void add_bias(const Scored& s, int64_t head, const Where& where, float* scores, int64_t count) {
    const Vector &slopes = s.op.vectors[0], &table = s.op.vectors[1];
    if (slopes.size)
        for (int64_t i = 0; i < count; i++) scores[i] -= slopes.data[head] * float(where.back(i));
    if (table.size) {
        const int64_t known = table.size / s.op.ints[0];
        for (int64_t i = 0; i < count; i++) scores[i] += table.data[head * known + least(where.back(i), known - 1)];
    }
    if (s.charge != 0 && where.back(count - 1) == 0) scores[count - 1] += s.charge;
}

struct Running {
    float top[TOGETHER], total[TOGETHER];
};

// Adds a tile to the outputs of `count` heads: from `first` on, of those that read it.
template <int count, class Tile>
ALWAYS_INLINE void add_tile_to(const Scored& s, const float* q, int64_t head, int64_t first, const Tile& tile, Running& running,
                               float* out) {
    alignas(64) float scores[count * KEYS];
    score<count>(s, q + first * s.width, tile, first == 0, scores);
    float* const y = out + first * s.value_width;
    for (int64_t h = 0; h < count; h++) {
        float *mine = scores + h * KEYS, &total = running.total[first + h], &highest = running.top[first + h];
        add_bias(s, head + first + h, tile.now, mine, tile.count);
        for (int64_t i = tile.count; i % WIDE; i++) mine[i] = -__builtin_inff();
        const float top = most(highest, largest_of(mine, tile.count));
        const float before = exponential(Wide{} + (highest - top))[0];
        Wide sum = {};
        for (int64_t i = 0; i < tile.count; i += WIDE) {
            const Wide weights = exponential(load_wide(mine + i) - top);
            store_wide(mine + i, weights);
            sum += weights;
        }
        total = total * before + sum_of(sum);
        highest = top;
        if (before != 1.0f) scale_run(y + h * s.value_width, before, s.value_width);
    }
    add_values<count>(scores, tile, s.value_width, first == 0 && !Ahead<Tile>::VALUES, y);
}

// Adds a tile to the outputs of `heads` query heads, of which the first ones ask for the next.
template <class Tile>
void add_tile(const Scored& s, const float* q, int64_t head, int64_t heads, const Tile& tile, Running& running, float* out) {
    int64_t h = 0;
    for (; h + SIDE_BY_SIDE <= heads; h += SIDE_BY_SIDE) add_tile_to<SIDE_BY_SIDE>(s, q, head, h, tile, running, out);
    for (; h < heads; h++) add_tile_to<1>(s, q, head, h, tile, running, out);
}

// Keys side by side: the first in slot `at.first`, and behind the last slot the first one follows. Tiles are nearly alike,
// since each asks for as many keys as it has itself: a short last one would leave most of the next head's first to be waited for.
template <class Numbers, class Work>
void for_tiles(const Met<Numbers>& met, Beside at, int64_t count, const Work& work) {
    while (count > 0) {
        const int64_t beside = least(count, met.capacity - at.first), tiles = (beside + KEYS - 1) / KEYS;
        const int64_t some = least(beside, up_to((beside + tiles - 1) / tiles, AT_A_TIME));
        const Beside next = {at.first + some == met.capacity ? 0 : at.first + some, at.distance - some};
        if (some < count)
            work(Tile<Numbers, Beside>{met.k, met.v, met.k, met.v, some, at, next});
        else
            work(Tile<Numbers, Beside>{met.k, met.v, met.next_k, met.next_v, some, at, at});
        at = next, count -= some;
    }
}

// The keys that a pattern shows, some at a time.
struct Gathered {
    int64_t count, slots[KEYS], distances[KEYS];

    Apart where() const { return {slots, distances}; }

    // Takes keys from `run` on, and leaves there what comes behind them.
    void take(const List<int64_t>& pattern, int64_t query, int64_t capacity, SeenRun& run) {
        count = 0;
        while (count < KEYS && run.first < run.end) {
            int64_t slot = run.first < capacity ? run.first : run.first % capacity;
            for (; count < KEYS && run.first < run.end; run.first++, count++) {
                slots[count] = slot, distances[count] = query - run.first;
                slot = slot + 1 == capacity ? 0 : slot + 1;
            }
            if (run.first == run.end) run = next_run(pattern, query, run.end);
        }
    }
};

template <class Numbers, class Work>
void for_tiles(const Met<Numbers>& met, const List<int64_t>& pattern, int64_t query, SeenRun run, const Work& work) {
    Gathered all[2] = {};
    all[0].take(pattern, query, met.capacity, run);
    for (int64_t i = 0; all[i % 2].count > 0; i++) {
        const Gathered& now = all[i % 2];
        Gathered& next = all[(i + 1) % 2];
        next.take(pattern, query, met.capacity, run);
        if (next.count)
            work(Tile<Numbers, Apart>{met.k, met.v, met.k, met.v, now.count, now.where(), next.where()});
        else
            work(Tile<Numbers, Apart>{met.k, met.v, met.next_k, met.next_v, now.count, now.where(), now.where()});
    }
}

// Where what heads are given goes, by the number of the head: divided by the sum of their weights, or with `top` and `total`,
// the maximum and the sum, beside it.
struct Outputs {
    float *out, *top, *total;

    bool divided() const { return !top; }
};

// tiles(work): calls work with each tile of the keys that the heads meet.
template <class Tiles>
void attend(const Scored& s, const Tiles& tiles, const float* q, int64_t head, int64_t heads, const Outputs& to) {
    Running running;
    float* const out = to.out + head * s.value_width;
    for (int64_t h = 0; h < heads; h++) running.top[h] = -__builtin_inff(), running.total[h] = 0;
    for (int64_t i = 0; i < heads * s.value_width; i++) out[i] = 0;
    tiles([&](const auto& tile) { add_tile(s, q + head * s.width, head, heads, tile, running, out); });
    for (int64_t h = 0; h < heads; h++)
        if (to.divided())
            scale_run(out + h * s.value_width, running.total[h] > 0 ? 1.0f / running.total[h] : 0.0f, s.value_width);
        else
            to.top[head + h] = running.top[h], to.total[head + h] = running.total[h];
}

}  // namespace

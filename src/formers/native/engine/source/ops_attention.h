// Operations of attention over what the caches keep.
#pragma once
#include "attention.h"
#include "parted.h"
#include "pattern.h"
#include "query_products.h"

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

// What key head `group` keeps, of the caches of all. What the next one keeps is read next, unless this is a part.
template <class Numbers>
Met<Numbers> met_by(const Scored& s, int64_t capacity, int64_t group, Numbers keys, Numbers values, const Outputs& to) {
    const int64_t key_run = capacity * s.width, value_run = capacity * s.value_width;
    keys += group * key_run, values += group * value_run;
    if (!to.divided()) return {keys, values, keys, values, capacity};
    return {keys, values, keys + key_run, values + value_run, capacity};
}

// Some query heads of key head `group` in one row, against what both caches keep. tiles(met, work): see `attend`.
template <class Tiles>
void attend_heads(const Scored& s, const Slots& k, const Slots& v, int64_t group, const float* q, int64_t head,
                  int64_t heads, const Outputs& to, const Tiles& tiles) {
    with_numbers(k, [&](const auto* keys) {
        const auto* values = reinterpret_cast<decltype(keys)>(v.data);
        const Met<decltype(keys)> met = met_by(s, k.capacity, group, keys, values, to);
        attend(s, [&](const auto& work) { tiles(met, work); }, q, head, heads, to);
    });
}

// How many of the heads from `head` on see alike, and are read together.
int64_t heads_alike(const List<int64_t>& ints, int64_t head, int64_t end) {
    int64_t count = 1;
    while (count < TOGETHER && head + count < end && ints[PATTERN_AT + head + count] == ints[PATTERN_AT + head]) count++;
    return count;
}

// All query heads of key head `group` in one row, at a position. part: of keys that stand side by side.
void attend_group(const Scored& s, const Slots& k, const Slots& v, int64_t position, int64_t group, const float* q,
                  const Outputs& to, const Part& part) {
    const int64_t heads = s.op.ints[0] / s.op.ints[1], end = (group + 1) * heads;
    for (int64_t head = group * heads, count; head < end; head += count) {
        count = heads_alike(s.op.ints, head, end);
        const List<int64_t> pattern = pattern_of(s.op.ints, head);
        const SeenRun run = next_run(pattern, position, 0);
        attend_heads(s, k, v, group, q, head, count, to, [&](const auto& met, const auto& work) {
            if (run.end <= position) return for_tiles(met, pattern, position, run, work);
            const SeenRun mine = part.of(run);
            for_tiles(met, {mine.first % k.capacity, position - mine.first}, mine.end - mine.first, work);
        });
    }
}

// Some rows of one stream, which are worked on together.
struct Rows {
    int64_t first, count;
};

// All rows of a call, in the order in which they stand.
struct RowBlocks {
    int64_t count = 0;
    Rows each[MOST_ROWS];

    // As many rows in a block as have QUERIES queries together, or fewer where `groups` blocks of each would leave threads idle.
    RowBlocks(const Step& step, int64_t heads, int64_t groups) {
        int64_t most_rows = most<int64_t>(QUERIES / heads, 1);
        while (most_rows > 1 && most_rows * heads > QUERIES / 4 &&
               groups * (step.rows / most_rows) < 2 * step.pool->threads())
            most_rows /= 2;
        for (int64_t r = 0; r < step.rows; r++)
            if (r > 0 && step.streams[r] == step.streams[r - 1] && each[count - 1].count < most_rows)
                each[count - 1].count++;
            else
                each[count++] = {r, 1};
    }
};

// Whether products of many queries with these keys go by tiles.
bool by_tiles([[maybe_unused]] const Scored& s, [[maybe_unused]] const Slots& k) {
#ifdef HAS_TILES
    return k.type == Type::bf16 && ByTiles::can(s);
#else
    return false;
#endif
}

// Queries of some rows against all that the caches of their stream keep.
void attend_queries(const Scored& s, const Slots& k, const Slots& v, int64_t group, const Queries& queries) {
    with_numbers(k, [&](const auto* keys) {
        const auto* values = reinterpret_cast<decltype(keys)>(v.data);
        const Met<decltype(keys)> met = met_by(s, k.capacity, group, keys, values, queries.each[0].to);
#ifdef HAS_TILES
        if constexpr (sizeof *keys == 2)
            if (ByTiles::can(s)) return attend_together<ByTiles>(s, queries, met);
#endif
        attend_together<ByVectors>(s, queries, met);
    });
}

// The queries of key head `group` in some rows. seen(row, head): the keys that one sees, up to its own or nothing. to(row):
// where its output goes.
template <class SeenBy, class To>
bool find_queries(const Scored& s, const Op& op, const Step& step, const Rows& rows, int64_t group, const SeenBy& seen,
                  const To& to, Queries& queries) {
    const int64_t heads = op.ints[0] / op.ints[1], head = group * heads, count = rows.count * heads;
    if (count < FEWEST || count > QUERIES || s.width > WIDEST || s.value_width > WIDEST) return false;
    if (rows.count == 1 && !by_tiles(s, step.cache(op.caches[0], rows.first))) return false;
    for (int64_t r = rows.first; r < rows.first + rows.count; r++)
        for (int64_t h = head; h < head + heads; h++) {
            const SeenRun run = seen(r, h);
            if (run.first >= run.end) return false;
            const float* q = step.row(op.in[0], r) + op.ints[4] + h * s.width;
            queries.add({q, to(r), h, step.positions[r], run.first, run.end - 1});
        }
    return true;
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

// Into how many parts the keys of each key head are cut, that all threads have work: where each row has a block to itself and
// sees keys side by side.
template <class SeenBy>
int64_t cut(const Scored& s, const Op& op, const Step& step, int64_t blocks, const SeenBy& seen) {
    const int64_t threads = step.pool->threads(), items = step.rows * op.ints[1];
    if (threads < 2 || items >= 2 * threads || blocks < step.rows) return 1;
    int64_t keys = step.positions[0] + 1;
    for (int64_t r = 0; r < step.rows; r++)
        for (int64_t h = 0; h < op.ints[0]; h++) {
            const SeenRun run = seen(r, h);
            keys = least(keys, run.end - run.first);
        }
    const int64_t room = PARTED_FLOATS / (step.rows * Parted::floats(op.ints[0], s.value_width));
    return most<int64_t>(1, least(room, least(keys / KEYS_OF_PART, (2 * threads + items - 1) / items)));
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
    // One run of keys up to the query's own is read together with those of other rows, all else row by row.
    const auto seen = [&](int64_t r, int64_t head) {
        const int64_t p = step.positions[r];
        const SeenRun run = next_run(pattern_of(op.ints, head), p, 0);
        return run.end > p ? run : SeenRun{p, p};
    };
    const RowBlocks blocks(step, op.ints[0] / groups, groups);
    alignas(64) float memory[PARTED_FLOATS];
    const Parted parted = {cut(s, op, step, blocks.count, seen), op.ints[0], s.value_width, memory};
    share(*step.pool, blocks.count * groups * parted.parts, bytes, [&](int64_t item) {
        const Part part = {item % parted.parts, parted.parts};
        const int64_t group = item / part.count % groups;
        const Rows& rows = blocks.each[item / part.count / groups];
        const Slots &k = step.cache(op.caches[0], rows.first), &v = step.cache(op.caches[1], rows.first);
        const auto to = [&](int64_t r) { return part.count == 1 ? Outputs{step.row(op.out[0], r), nullptr, nullptr} : parted.of(r, part.index); };
        const auto mine = [&](int64_t r, int64_t head) { return part.of(seen(r, head)); };
        Queries queries;
        if (find_queries(s, op, step, rows, group, mine, to, queries)) return attend_queries(s, k, v, group, queries);
        for (int64_t r = rows.first; r < rows.first + rows.count; r++)
            attend_group(s, k, v, step.positions[r], group, step.row(op.in[0], r) + op.ints[4], to(r), part);
    });
    for (int64_t r = 0; parted.parts > 1 && r < step.rows; r++) parted.join(r, step.row(op.out[0], r));
}

void run_cross(const Op& op, Step& step) {
    const int64_t groups = op.ints[1], heads = op.ints[0] / groups;
    const Scored s = {op, op.ints[2], op.ints[3], op.floats[0], 0};
    int64_t keys = 0;
    for (int64_t r = 0; r < step.rows; r++) keys += step.cache(op.caches[0], r).length;
    const auto seen = [&](int64_t r, int64_t) { return SeenRun{0, step.cache(op.caches[0], r).length}; };
    const RowBlocks blocks(step, heads, groups);
    share(*step.pool, blocks.count * groups, keys * groups * (s.width + s.value_width) * 4, [&](int64_t item) {
        const Rows& rows = blocks.each[item / groups];
        const int64_t group = item % groups, end = (group + 1) * heads;
        const Slots &k = step.cache(op.caches[0], rows.first), &v = step.cache(op.caches[1], rows.first);
        Queries queries;
        const auto to = [&](int64_t r) { return Outputs{step.row(op.out[0], r), nullptr, nullptr}; };
        if (find_queries(s, op, step, rows, group, seen, to, queries)) return attend_queries(s, k, v, group, queries);
        const auto tiles = [&](const auto& met, const auto& work) { for_tiles(met, {0, 0}, k.length, work); };
        for (int64_t r = rows.first; r < rows.first + rows.count; r++)
            for (int64_t head = group * heads; head < end; head += TOGETHER) {
                const float* q = step.row(op.in[0], r) + op.ints[4];
                attend_heads(s, k, v, group, q, head, least(TOGETHER, end - head), to(r), tiles);
            }
    });
}

}  // namespace

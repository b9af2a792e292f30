// Many queries of a stream, as a prompt has them, and what they are given by one key head. A query is a lane of vectors, so
// that keys, scores and outputs have a row of lanes each, and no sum goes across lanes.
#pragma once
#include "attention.h"
#include "transposed.h"

namespace {

constexpr int64_t QUERIES = 64;     // that are worked on together
constexpr int64_t FEWEST = 8;       // for fewer, row by row is faster
constexpr int64_t SPAN = 128;       // keys in a tile
constexpr int64_t WIDEST = 256;     // of keys and of values
constexpr float NOTHING = -__builtin_inff();

// One query: its numbers, where its output goes, its head, its position, and the first key that it sees; it sees all up to
// `last`.
struct Query {
    const float* q;
    Outputs to;
    int64_t head, position, first, last;
};

// Queries that see all the keys between two.
struct Queries {
    int64_t count = 0;
    Query each[QUERIES];

    void add(const Query& query) { each[count++] = query; }

    int64_t first() const {
        int64_t found = each[0].first;
        for (int64_t i = 1; i < count; i++) found = least(found, each[i].first);
        return found;
    }
    int64_t end() const {
        int64_t found = each[0].last;
        for (int64_t i = 1; i < count; i++) found = most(found, each[i].last);
        return found + 1;
    }
};

// What lanes have in a tile of keys, counted from its first one: the keys that they see, and how far back it is.
struct Lanes {
    alignas(64) int32_t first[QUERIES], end[QUERIES], back[QUERIES];
    bool all_seen = true;

    Lanes(const Queries& queries, int64_t lanes, int64_t key, int64_t keys) {
        for (int64_t i = 0; i < lanes; i++) {
            const Query& query = queries.each[i < queries.count ? i : 0];
            first[i] = int32_t(most<int64_t>(query.first - key, 0));
            end[i] = i < queries.count ? int32_t(least(query.last + 1 - key, keys)) : 0;
            back[i] = int32_t(query.position - key);
            all_seen = all_seen && first[i] == 0 && end[i] == keys;
        }
    }
};

ALWAYS_INLINE WideInts load_ints(const int32_t* x) { return *reinterpret_cast<const WideInts*>(x); }

// What is added to a score by the distance of its pair, for 16 lanes from one on; the same as `add_bias` adds.
class Biases {
   public:
    Biases(const Scored& s, const Queries& queries)
        : s_(s), queries_(queries), known_(s.op.vectors[1].size / s.op.ints[0]) {
        const Vector& slopes = s.op.vectors[0];
        for (int64_t i = 0; i < QUERIES; i++)
            slopes_[i] = slopes.size && i < queries.count ? slopes.data[queries.each[i].head] : 0;
    }

    bool are_any() const { return s_.op.vectors[0].size || known_ || s_.charge != 0; }

    ALWAYS_INLINE Wide of(int64_t lane, const WideInts& back) const {
        Wide made = -load_wide(slopes_ + lane) * __builtin_convertvector(back, Wide);
        if (s_.charge != 0) made += pick(back == 0, Wide{} + s_.charge, Wide{});
        return known_ ? made + from_table(lane, back) : made;
    }

   private:
    Wide from_table(int64_t lane, const WideInts& back) const {
        Wide found = {};
        for (int64_t i = 0; i < least(WIDE, queries_.count - lane); i++) {
            const int64_t place = least<int64_t>(most(back[i], 0), known_ - 1);
            found[i] = s_.op.vectors[1].data[queries_.each[lane + i].head * known_ + place];
        }
        return found;
    }

    const Scored& s_;
    const Queries& queries_;
    const int64_t known_;
    alignas(64) float slopes_[QUERIES];
};

// Biases and masks the scores of `keys` keys.
void finish_scores(const Biases& biases, const Lanes& at, int64_t lanes, int64_t keys, float* scores) {
    if (at.all_seen && !biases.are_any()) return;
    for (int64_t lane = 0; lane < lanes; lane += WIDE) {
        const WideInts first = load_ints(at.first + lane), end = load_ints(at.end + lane), back = load_ints(at.back + lane);
        for (int64_t i = 0; i < keys; i++) {
            float* const mine = scores + i * QUERIES + lane;
            Wide made = load_wide(mine);
            if (biases.are_any()) made += biases.of(lane, back - int32_t(i));
            store_wide(mine, pick((first <= int32_t(i)) & (end > int32_t(i)), made, Wide{} + NOTHING));
        }
    }
}

// e^x of x up to 0, and nothing at all where a float would lose digits: sums with such numbers are slow. NaN stays NaN.
ALWAYS_INLINE Wide weight_of(const Wide& x) {
#ifdef __AVX512F__
    const __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
    const __m512 base = _mm512_set1_ps(1.44269504f);
    const __m512 whole = _mm512_roundscale_ps(_mm512_mul_ps((__m512)x, base), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Wide r = (Wide)_mm512_fmsub_ps((__m512)x, base, whole);
    Wide y = r * 1.5403530e-4f + 1.3333558e-3f;  // 2^r from -1/2 to 1/2
    y = y * r + 9.6181291e-3f;
    y = y * r + 5.5504109e-2f;
    y = y * r + 2.4022651e-1f;
    y = y * r + 6.9314718e-1f;
    y = y * r + 1.0f;
    return (Wide)_mm512_maskz_scalef_ps(counts, (__m512)y, whole);
#else
    return pick(x < -87.0f, Wide{}, exponential(x));
#endif
}

// The running maximum and sum of each query.
struct Totals {
    alignas(64) float top[QUERIES], sum[QUERIES];

    Totals() {
        for (int64_t i = 0; i < QUERIES; i++) top[i] = NOTHING, sum[i] = 0;
    }
};

// Makes scores of `keys` keys the weights of a softmax, and scales what was summed up before to it.
template <int vectors>
ALWAYS_INLINE void weigh_lanes(int64_t keys, int64_t lane, int64_t width, float* scores, Totals& totals, float* out) {
    Wide top[vectors], scale[vectors], sum[vectors] = {};
    for (int j = 0; j < vectors; j++) top[j] = load_wide(totals.top + lane + j * WIDE);
    for (int64_t i = 0; i < keys; i++)
        for (int j = 0; j < vectors; j++) {
            const Wide score = load_wide(scores + i * QUERIES + lane + j * WIDE);
            top[j] = larger(score, top[j]);
        }
    bool higher = false;
    for (int j = 0; j < vectors; j++) {
        float* const mine = totals.top + lane + j * WIDE;
        const Wide before = load_wide(mine);
        store_wide(mine, top[j]);
        for (int i = 0; i < WIDE; i++) higher = higher || before[i] != top[j][i];
        top[j] = pick(top[j] == NOTHING, Wide{}, top[j]);  // of a query that has seen no key yet
        scale[j] = weight_of(before - top[j]);
    }
    for (int64_t i = 0; i < keys; i++)
        for (int j = 0; j < vectors; j++) {
            float* const mine = scores + i * QUERIES + lane + j * WIDE;
            const Wide weight = weight_of(load_wide(mine) - top[j]);
            store_wide(mine, weight);
            sum[j] += weight;
        }
    for (int j = 0; j < vectors; j++) {
        float* const mine = totals.sum + lane + j * WIDE;
        store_wide(mine, load_wide(mine) * scale[j] + sum[j]);
    }
    for (int64_t d = 0; higher && d < width; d++)
        for (int j = 0; j < vectors; j++) {
            float* const mine = out + d * QUERIES + lane + j * WIDE;
            store_wide(mine, load_wide(mine) * scale[j]);
        }
}

// The outputs [width][QUERIES] to where they belong.
void hand_out(const Queries& queries, int64_t width, const Totals& totals, const float* out) {
    const bool divided = queries.each[0].to.divided();
    for (int64_t lane = 0; lane < queries.count; lane += WIDE) {
        const Wide sums = load_wide(totals.sum + lane);
        const Wide by = divided ? pick(sums > 0.0f, 1.0f / sums, Wide{}) : Wide{} + 1.0f;
        for (int64_t d = 0; d < width; d += WIDE) {
            Wide square[WIDE] = {};
            for (int64_t i = 0; i < least(WIDE, width - d); i++) square[i] = by * load_wide(out + (d + i) * QUERIES + lane);
            transpose(square);
            for (int64_t i = 0; i < least(WIDE, queries.count - lane); i++) {
                const Query& query = queries.each[lane + i];
                alignas(64) float row[WIDE];
                store_wide(row, square[i]);
                copy_run(query.to.out + query.head * width + d, row, least(WIDE, width - d));
            }
        }
    }
    for (int64_t i = 0; !divided && i < queries.count; i++) {
        const Query& query = queries.each[i];
        query.to.top[query.head] = totals.top[i], query.to.total[query.head] = totals.sum[i];
    }
}

// Keys side by side in a cache, and their values.
template <class Numbers>
struct Keys {
    Numbers k, v;
    int64_t count;
};

// Attention of queries that see runs of keys. Products: see query_products.h.
template <class Products, class Numbers>
void attend_together(const Scored& s, const Queries& queries, const Met<Numbers>& met) {
    alignas(64) float scores[SPAN * QUERIES], out[WIDEST * QUERIES];
    Totals totals;
    const Biases biases(s, queries);
    Products products(s, queries);
    const int64_t lanes = up_to(queries.count, Products::LANES_AT_ONCE), first = queries.first(), end = queries.end();
    const auto keys_from = [&](int64_t key, Numbers k, Numbers v) {
        const int64_t slot = key % met.capacity, count = least(end - key, met.capacity - slot);
        return Keys<Numbers>{k + slot * s.width, v + slot * s.value_width, least(Products::KEYS_AT_ONCE, count)};
    };
    __builtin_memset(out, 0, sizeof(float) * s.value_width * QUERIES);
    for (int64_t key = first, behind; key < end; key = behind) {
        const Keys<Numbers> now = keys_from(key, met.k, met.v);
        behind = key + now.count;
        const bool last = behind == end;
        const Keys<Numbers> next = last ? keys_from(first, met.next_k, met.next_v) : keys_from(behind, met.k, met.v);
        products.score(now, next, lanes, scores);
        finish_scores(biases, Lanes(queries, lanes, key, now.count), lanes, now.count, scores);
        int64_t lane = 0;
        for (; lane + 4 * WIDE <= lanes; lane += 4 * WIDE)
            weigh_lanes<4>(now.count, lane, s.value_width, scores, totals, out);
        for (; lane < lanes; lane += WIDE) weigh_lanes<1>(now.count, lane, s.value_width, scores, totals, out);
        products.add(now, next, lanes, scores, out);
    }
    hand_out(queries, s.value_width, totals, out);
}

}  // namespace

// The products of attention of many queries: of keys with queries, and of values with weights. By vectors, or by tiles where
// caches are in halves and the machine has them.
//
// Each has LANES_AT_ONCE, KEYS_AT_ONCE, a constructor that makes queries ready, and of keys, while those are asked for that come
// next,
//   score(keys, next, lanes, scores)          scores[key * QUERIES + lane] = the scaled product of a key and a query
//   add(keys, next, lanes, weights, out)      out[column * QUERIES + lane] += the sum over keys of weights times values
#pragma once
#include "queries.h"
#include "tile_halves.h"

namespace {

#ifdef __AVX512F__
constexpr int VECTORS_AT_ONCE = 4;
#else
constexpr int VECTORS_AT_ONCE = 1;  // there are not the registers for more
#endif
constexpr int64_t ROWS_AT_ONCE = 4;

// A matrix of floats whose numbers are at data[i * row + k * column].
struct Factor {
    const float* data;
    int64_t row, column, count;  // count: columns
};

// made[i][lane] = the sum over k of x(i, k) * lanes[k][lane]; add: to what is there.
template <bool add, int rows, int vectors>
ALWAYS_INLINE void multiply_some(const Factor& x, int64_t row, const float* lanes, float* made) {
    Wide sums[rows][vectors] = {};
    for (int i = 0; add && i < rows; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = load_wide(made + i * QUERIES + j * WIDE);
    const float* left = x.data + row * x.row;
    for (int64_t k = 0; k < x.count; k++, left += x.column) {
        Wide right[vectors];
        for (int j = 0; j < vectors; j++) right[j] = load_wide(lanes + k * QUERIES + j * WIDE);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors; j++) sums[i][j] += left[i * x.row] * right[j];
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) store_wide(made + i * QUERIES + j * WIDE, sums[i][j]);
}

// asked: pairs of lines that are asked for with some rows.
template <bool add, int vectors>
void multiply_rows(const Factor& x, int64_t rows, const float* lanes, float* made, int64_t asked, Asking& asking) {
    int64_t i = 0;
    for (; i + ROWS_AT_ONCE <= rows; i += ROWS_AT_ONCE) {
        asking.pairs(asked);
        multiply_some<add, ROWS_AT_ONCE, vectors>(x, i, lanes, made + i * QUERIES);
    }
    for (; i < rows; i++) multiply_some<add, 1, vectors>(x, i, lanes, made + i * QUERIES);
}

// What `next` has is asked for meanwhile, `bytes` of it.
template <bool add>
void multiply_lanes(const Factor& x, int64_t rows, int64_t count, const float* lanes, float* made, const void* next,
                    int64_t bytes) {
    const int64_t columns = (count + VECTORS_AT_ONCE * WIDE - 1) / (VECTORS_AT_ONCE * WIDE);
    const int64_t asked = Asking::pairs_in(bytes) * ROWS_AT_ONCE / (columns * most(rows, ROWS_AT_ONCE)) + 1;
    Asking asking(next, bytes);
    int64_t lane = 0;
    for (; lane + VECTORS_AT_ONCE * WIDE <= count; lane += VECTORS_AT_ONCE * WIDE)
        multiply_rows<add, VECTORS_AT_ONCE>(x, rows, lanes + lane, made + lane, asked, asking);
    for (; lane < count; lane += WIDE) multiply_rows<add, 1>(x, rows, lanes + lane, made + lane, asked, asking);
}

class ByVectors {
   public:
    static constexpr int64_t LANES_AT_ONCE = WIDE, KEYS_AT_ONCE = 64;

    ByVectors(const Scored& s, const Queries& queries) : s_(s) {
        for (int64_t lane = 0; lane < up_to(queries.count, LANES_AT_ONCE); lane++)
            for (int64_t d = 0; d < s.width; d++)
                q_[d * QUERIES + lane] = lane < queries.count ? s.scale * queries.each[lane].q[d] : 0;
    }

    template <class Numbers>
    void score(const Keys<Numbers>& now, const Keys<Numbers>& next, int64_t lanes, float* scores) {
        const float* k = floats(now.k, now.count * s_.width);
        const int64_t bytes = next.count * s_.width * int64_t(sizeof *next.k);
        multiply_lanes<false>({k, s_.width, 1, s_.width}, now.count, lanes, q_, scores, next.k, bytes);
    }

    template <class Numbers>
    void add(const Keys<Numbers>& now, const Keys<Numbers>& next, int64_t lanes, const float* weights, float* out) {
        const float* v = floats(now.v, now.count * s_.value_width);
        const int64_t bytes = next.count * s_.value_width * int64_t(sizeof *next.v);
        multiply_lanes<true>({v, 1, s_.value_width, now.count}, s_.value_width, lanes, weights, out, next.v, bytes);
    }

   private:
    const float* floats(const float* numbers, int64_t) { return numbers; }
    const float* floats(const uint16_t* halves, int64_t count) {
        for (int64_t i = 0; i < count; i++) opened_[i] = number_of(halves[i]);
        return opened_;
    }

    const Scored& s_;
    alignas(64) float q_[WIDEST * QUERIES], opened_[KEYS_AT_ONCE * WIDEST];
};

#ifdef HAS_TILES

class ByTiles {
   public:
    static constexpr int64_t LANES_AT_ONCE = packed::PAIR, KEYS_AT_ONCE = SPAN;

    static bool can(const Scored& s) { return s.width % packed::PAIR == 0 && s.value_width % packed::PAIR == 0; }

    ByTiles(const Scored& s, const Queries& queries) : s_(s) {
        const Wide scale = Wide{} + s.scale;
        for (int64_t lane = 0; lane < up_to(queries.count, LANES_AT_ONCE); lane += GROUP)
            for (int64_t d = 0; d < s.width; d += packed::PAIR) {
                const auto read = [&](int64_t b, int64_t half) INLINE_HERE {
                    return (__m512)(scale * load_wide(queries.each[lane + b].q + d + half * WIDE));
                };
                uint8_t* const to = q_ + lane / GROUP * group_bytes(s.width) + d * BYTES;
                packed::split_vectors(most<int64_t>(least(GROUP, queries.count - lane), 0), read, to);
            }
    }

    void score(const Keys<const uint16_t*>& now, const Keys<const uint16_t*>& next, int64_t lanes, float* scores) {
        const int64_t row = s_.width * 2;
        Asking asking(next.k, next.count * row);
        for (int64_t key = 0; key < now.count; key += packed::PAIR) {
            const auto* rows = reinterpret_cast<const uint8_t*>(now.k + key * s_.width);
            if (now.count - key < packed::PAIR) {  // what is behind them may be nobody's
                __builtin_memcpy(turned_, rows, (now.count - key) * row);
                rows = reinterpret_cast<const uint8_t*>(turned_);
            }
            multiply<false>({rows, row, s_.width, nullptr, nullptr}, q_, lanes, asking, scores + key * QUERIES);
        }
    }

    void add(const Keys<const uint16_t*>& now, const Keys<const uint16_t*>& next, int64_t lanes, const float* weights,
             float* out) {
        const int64_t width = s_.value_width, whole = up_to(now.count, packed::PAIR);
        Asking asking(next.v, next.count * width * 2);
        for (int64_t key = 0; key < whole; key += packed::PAIR) turn(now.v + key * width, key, now.count - key);
        for (int64_t lane = 0; lane < lanes; lane += GROUP)
            for (int64_t key = 0; key < whole; key += 2)
                split(weights + key * QUERIES + lane, now.count - key, key, weights_ + lane / GROUP * group_bytes(whole));
        const auto* rows = reinterpret_cast<const uint8_t*>(turned_);
        for (int64_t d = 0; d < width; d += packed::PAIR)
            multiply<true>({rows + d * SPAN * 2, SPAN * 2, whole, nullptr, nullptr}, weights_, lanes, asking, out + d * QUERIES);
    }

   private:
    static constexpr int64_t GROUP = packed::SIDE, BYTES = 2 * packed::TILE_BYTES / packed::PAIR;  // of a column of a group

    static constexpr int64_t group_bytes(int64_t columns) { return columns * BYTES; }

    template <bool add>
    static void multiply(packed::Pairs of, const uint8_t* right, int64_t lanes, Asking& asking, float* made) {
        const int64_t asked = asking.is_for_any() ? QUERIES / lanes : 0;  // pairs of lines are as many as products of all lanes
        for (int64_t lane = 0; lane < lanes; lane += packed::PAIR) {
            of.left = right + lane / GROUP * group_bytes(of.columns), of.right = of.left + group_bytes(of.columns);
            packed::multiply_pairs<add>(of, asked, asking, made + lane, QUERIES);
        }
    }

    // Puts values of 32 keys into columns from `key` on, one row for each of their columns; of those behind `keys`, zeros.
    void turn(const uint16_t* v, int64_t key, int64_t keys) {
        const __m512i from_both = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                                   5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        const __m512i behind = _mm512_add_epi16(from_both, _mm512_set1_epi16(16));
        for (int64_t d = 0; d < s_.value_width; d += packed::PAIR) {
            Wide first[WIDE], second[WIDE];
            for (int64_t i = 0; i < WIDE; i++) {
                const uint16_t* const from = v + 2 * i * s_.value_width + d;
                const __m512i none = _mm512_setzero_si512();
                const __m512i a = 2 * i < keys ? _mm512_loadu_si512(from) : none;
                const __m512i b = 2 * i + 1 < keys ? _mm512_loadu_si512(from + s_.value_width) : none;
                first[i] = (Wide)_mm512_permutex2var_epi16(a, from_both, b);
                second[i] = (Wide)_mm512_permutex2var_epi16(a, behind, b);
            }
            transpose(first), transpose(second);
            for (int64_t i = 0; i < WIDE; i++) {
                _mm512_store_si512(turned_ + (d + i) * SPAN + key, (__m512i)first[i]);
                _mm512_store_si512(turned_ + (d + WIDE + i) * SPAN + key, (__m512i)second[i]);
            }
        }
    }

    // Weights of two keys for 16 lanes, to where tiles want them; of those behind `keys`, zeros.
    static void split(const float* weights, int64_t keys, int64_t key, uint8_t* to) {
        const __m512i uppers = _mm512_set_epi16(63, 31, 61, 29, 59, 27, 57, 25, 55, 23, 53, 21, 51, 19, 49, 17, 47, 15, 45, 13, 43,
                                                11, 41, 9, 39, 7, 37, 5, 35, 3, 33, 1);
        const __m512 none = _mm512_setzero_ps();
        const packed::Split split(keys > 0 ? _mm512_load_ps(weights) : none, keys > 1 ? _mm512_load_ps(weights + QUERIES) : none,
                                  uppers);
        uint8_t* const row = to + key / packed::PAIR * 2 * packed::TILE_BYTES + key % packed::PAIR / 2 * 64;
        _mm512_store_si512(row, split.upper);
        _mm512_store_si512(row + packed::TILE_BYTES, split.lower);
    }

    const Scored& s_;
    const Configured tiles_;
    alignas(64) uint8_t q_[QUERIES * WIDEST * 4], weights_[QUERIES * SPAN * 4];
    alignas(64) uint16_t turned_[WIDEST * SPAN];
};

#endif

}  // namespace

// What the operations of ops_attention.h mean by their ints, floats and vectors, and what must hold of them.
#pragma once
#include "check.h"
#include "pattern.h"

namespace {

void check_heads(const Check& c) {
    const auto& ints = c.op.ints;
    constexpr int64_t MOST = 1 << 20;
    c.within("the number of heads", ints[0], 1, MOST), c.within("the number of key heads", ints[1], 1, MOST);
    c.within("the width of a key", ints[2], 1, MOST), c.within("the width of a value", ints[3], 1, MOST);
    c.that(ints[0] % ints[1] == 0, "query heads do not share key heads evenly");
    c.slice("the queries", ints[4], ints[0] * ints[2], c.in(0));
    c.same("the width of the output", c.out(0), ints[0] * ints[3]);
    for (int64_t i = 0; i < c.op.in.size; i++)
        c.that(c.op.in[i] != c.op.out[0], "heads cannot be written over queries");
    c.optional("the number of slopes", c.op.vectors[0], ints[0]);
    c.that(c.op.vectors[1].size % ints[0] == 0, "the biases by distance are not as many for each head");
    for (int64_t i = 0; i < 2; i++) {
        c.same("the number of heads of a cache", c.cache(i).heads, ints[1]);
        c.same("the width of a cache", c.cache(i).width, ints[2 + i]);
        c.that(c.cache(i).keep == c.cache(0).keep && c.cache(i).capacity == c.cache(0).capacity &&
                   c.cache(i).type == c.cache(0).type,
               "the caches differ");
    }
}

constexpr int64_t MOST_KEYS = int64_t(1) << 30;

// The furthest that a LISTED rule looks back, of which `size` ints are there.
int64_t reach_of_list(const Check& c, const int64_t* number, int64_t size) {
    const int64_t rows = number[1], offsets_at = PATTERN_NUMBERS[LISTED], runs_at = offsets_at + rows + 1;
    c.within("the number of rows of a list", rows, 1, size - offsets_at - 1);
    c.within("whether a list begins again", number[2], 0, 1);
    c.same("the first run of a list", number[offsets_at], 0);
    int64_t reach = 1;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t first = number[offsets_at + row], end = number[offsets_at + row + 1];
        c.within("where the runs of a row end", end, first, (size - runs_at) / 2);
        for (int64_t run = first, before = 0; run < end; run++) {
            const int64_t* keys = number + runs_at + 2 * run;
            c.within("the first key of a run", keys[0], before, MOST_KEYS);
            c.within("the end of a run", keys[1], keys[0] + 1, MOST_KEYS + 1);
            before = keys[1];
        }
        if (first < end) reach = std::max(reach, (row + 1) * number[0] - number[runs_at + 2 * first]);
    }
    return reach;
}

// The furthest that a rule looks back, in keys; EVER: to the beginning. `size` ints are there, as many as it has at least.
int64_t reach_of_rule(const Check& c, int64_t word, const int64_t* number, int64_t size) {
    c.within("the size of a pattern", number[0], 1, MOST_KEYS);
    if (word == LISTED) return reach_of_list(c, number, size);
    if (word == BLOCKS || word == SHIFTED) c.within("what a pattern looks back", number[1], 0, MOST_KEYS);
    if (word == GLOBAL) c.within("the first key that all see", number[1], 0, MOST_KEYS);
    if (word == SUMMARY) {
        c.within("the first of the cells", number[1], 0, number[0] - 1);
        c.within("the number of cells", number[2], 1, number[0] - number[1]);
    }
    if (word == PERMUTED) {
        c.within("the number of blocks", number[1], 1, MOST_KEYS);
        c.within("what blocks are shifted by", number[2], 0, number[1] - 1);
    }
    if (word == WINDOW) return number[0];
    if (word == BLOCKS) return number[0] + number[1];
    if (word == SHIFTED) return number[0] * (number[1] + 1);
    return word == PERMUTED ? number[0] * number[1] : EVER;
}

// The furthest that one pattern looks back.
int64_t reach_of(const Check& c, const List<int64_t>& words) {
    std::vector<int64_t> reach;
    for (int64_t i = 0; i < words.size;) {
        const int64_t word = words[i++];
        c.within("a word of the pattern", word, 0, PATTERN_WORDS - 1);
        if (word == BOTH || word == EITHER) {
            c.that(reach.size() >= 2, "the pattern joins two, and there are fewer");
            const int64_t right = reach.back();
            reach.pop_back();
            reach.back() = word == BOTH ? std::min(reach.back(), right) : std::max(reach.back(), right);
            continue;
        }
        c.that(PATTERN_NUMBERS[word] <= words.size - i, "the pattern ends within a word");
        reach.push_back(reach_of_rule(c, word, words.data + i, words.size - i));
        c.within("the depth of the pattern", int64_t(reach.size()), 1, PATTERN_DEPTH);
        i += numbers_of(word, words.data + i);
    }
    c.that(reach.size() <= 1, "the pattern has rules that nothing joins");
    return reach.empty() ? EVER : reach[0];
}

// The furthest that any head looks back.
int64_t furthest(const Check& c) {
    const auto& ints = c.op.ints;
    const int64_t heads = ints[0], first = PATTERN_AT + heads;
    int64_t reach = 0;
    c.within("the number of ints before the patterns", first, 0, ints.size - 1);
    for (int64_t head = 0; head < heads; head++) {
        const int64_t at = ints[PATTERN_AT + head];
        c.within("the place of a pattern", at, first, ints.size - 1);
        if (head && at == ints[PATTERN_AT + head - 1]) continue;
        c.within("the number of words of a pattern", ints[at], 0, ints.size - 1 - at);
        reach = std::max(reach, reach_of(c, pattern_of(ints, head)));
    }
    return reach;
}

// in: registers with q, k, v. out: heads side by side. caches: keys, values; growing, or rolling.
// ints: heads, key heads, width of a key, of a value, where q, k and v begin in their registers, then the patterns.
// floats: the scale of the scores, what is added where a query meets its own key. vectors: [a slope for each head, times
// the distance taken from the score], [for each head biases at distance 0, 1, ...; the last holds for all beyond].
void check_attend(const Check& c) {
    const auto& op = c.op;
    c.counts(3, 1, std::max<int64_t>(op.ints.size, PATTERN_AT), 2, 0, 2, 2);
    check_heads(c);
    c.slice("the keys", op.ints[5], op.ints[1] * op.ints[2], c.in(1));
    c.slice("the values", op.ints[6], op.ints[1] * op.ints[3], c.in(2));
    const int64_t reach = furthest(c);
    if (c.cache(0).keep == Keep::rolling) {
        c.that(reach != EVER, "rolling caches need patterns that look back only so far");
        c.within("the capacity of the rolling caches", c.cache(0).capacity, reach, int64_t(1) << 40);
    } else {
        c.that(c.cache(0).keep == Keep::growing, "attention keeps growing or rolling caches");
    }
}

// Attention to keys and values that were given. in: q. ints: heads, key heads, width of a key, of a value, where q begins.
// floats: the scale. vectors: as for `attend`, both empty. caches: keys, values; given.
void check_cross(const Check& c) {
    c.counts(1, 1, 5, 1, 0, 2, 2);
    check_heads(c);
    c.that(!c.op.vectors[0].size && !c.op.vectors[1].size, "there is no distance to what is given");
    c.that(c.cache(0).keep == Keep::given, "cross-attention reads given caches");
}

}  // namespace

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

// The furthest that a pattern looks back, in keys; 0: to the beginning.
int64_t horizon(const Check& c) {
    const auto& ints = c.op.ints;
    std::vector<int64_t> reach;
    const auto word = [&](int64_t& i) {
        c.that(i < ints.size, "the pattern ends within a word");
        return ints[i++];
    };
    for (int64_t i = PATTERN_AT; i < ints.size;) {
        const int64_t kind = word(i);
        c.within("a word of the pattern", kind, WINDOW, EITHER);
        if (kind == WINDOW || kind == BLOCKS) {
            const int64_t size = word(i), blocks = kind == BLOCKS ? word(i) : 0;
            c.within("the size of a pattern", size, 1, int64_t(1) << 30);
            c.within("the number of blocks before", blocks, 0, int64_t(1) << 30);
            reach.push_back(size * (blocks + 1));
            c.within("the depth of the pattern", int64_t(reach.size()), 1, PATTERN_DEPTH);
        } else {
            c.that(reach.size() >= 2, "the pattern joins two, and there are fewer");
            const int64_t right = reach.back();
            reach.pop_back();
            reach.back() = kind == BOTH ? std::min(reach.back(), right) : std::max(reach.back(), right);
        }
    }
    c.that(reach.size() <= 1, "the pattern has rules that nothing joins");
    return reach.empty() ? 0 : reach[0];
}

// in: registers with q, k, v. out: heads side by side. caches: keys, values; growing, or rolling.
// ints: heads, key heads, width of a key, of a value, where q, k and v begin in their registers, then the pattern.
// floats: the scale of the scores, what is added where a query meets its own key. vectors: [a slope for each head, times
// the distance taken from the score], [for each head biases at distance 0, 1, ...; the last holds for all beyond].
void check_attend(const Check& c) {
    const auto& op = c.op;
    c.counts(3, 1, std::max<int64_t>(op.ints.size, PATTERN_AT), 2, 0, 2, 2);
    check_heads(c);
    c.slice("the keys", op.ints[5], op.ints[1] * op.ints[2], c.in(1));
    c.slice("the values", op.ints[6], op.ints[1] * op.ints[3], c.in(2));
    const int64_t seen = horizon(c);
    if (c.cache(0).keep == Keep::rolling) {
        c.that(seen != 0, "rolling caches need a pattern that looks back only so far");
        c.within("the capacity of the rolling caches", c.cache(0).capacity, seen, int64_t(1) << 40);
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

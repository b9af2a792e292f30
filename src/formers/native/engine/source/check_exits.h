// What the operations of ops_exits.h mean by their ints and floats, and what must hold of them. Which registers move with
// their rows is the program's business: one that is read behind `leave` or `rejoin`, and was written before, must be in out.
#pragma once
#include "check.h"

namespace {

// How much more probable the likeliest is than the next. in: logits. out: one number.
void check_response(const Check& c) {
    c.counts(1, 1, 0, 0, 0, 0);
    c.same("the width of a confidence", c.out(0), 1);
    c.within("the number of logits", c.in(0), 2, int64_t(1) << 31);
}

// The cosine of the angle between two vectors. in: both. out: one number. floats: what the product of lengths is at least.
void check_alike(const Check& c) {
    c.counts(2, 1, 0, 1, 0, 0);
    c.same("the width of a confidence", c.out(0), 1);
    c.same("the width of what is compared", c.in(1), c.in(0));
}

// Tokens as sure as is demanded leave the depth. in: how sure each is. out: the registers that are read on. floats: a, b
// and c of what is demanded at position p, a + b exp(-c p), not below 0 or above 1.
void check_leave(const Check& c) {
    c.counts(1, c.op.out.size, 0, 3, 0, 0);
    c.same("the width of a confidence", c.in(0), 1);
    for (int64_t i = 0; i < c.op.out.size; i++)
        for (int64_t j = 0; j < i; j++) c.that(c.op.out[i] != c.op.out[j], "a register moves with its rows once");
}

// ints: how many operations behind this one are run with those that have left, and with no others.
void check_others(const Check& c) {
    c.counts(0, 0, 1, 0, 0, 0);
    c.within("the number of operations for those that have left", c.op.ints[0], 1, int64_t(1) << 30);
}

// What attention keeps of tokens that pass it by. in: registers with k and v. caches: keys, values, which `attend` keeps.
// ints: key heads, width of a key, of a value, where k and v begin in their registers.
void check_keep(const Check& c) {
    constexpr int64_t MOST = 1 << 20;
    const auto& ints = c.op.ints;
    c.counts(2, 0, 5, 0, 0, 0, 2);
    c.within("the number of key heads", ints[0], 1, MOST);
    for (int64_t i = 0; i < 2; i++) {
        c.within("the width of a head", ints[1 + i], 1, MOST);
        c.slice("what is kept", ints[3 + i], ints[0] * ints[1 + i], c.in(i));
        c.same("the number of heads of a cache", c.cache(i).heads, ints[0]);
        c.same("the width of a cache", c.cache(i).width, ints[1 + i]);
        c.that(c.cache(i).keep == Keep::growing || c.cache(i).keep == Keep::rolling, "attention keeps growing or rolling caches");
    }
}

// All rows stand in their order again. out: the registers that are read on.
void check_rejoin(const Check& c) {
    c.counts(0, c.op.out.size, 0, 0, 0, 0);
    for (int64_t i = 0; i < c.op.out.size; i++)
        for (int64_t j = 0; j < i; j++) c.that(c.op.out[i] != c.op.out[j], "a register moves with its rows once");
}

}  // namespace

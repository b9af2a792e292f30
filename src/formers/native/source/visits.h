// What attention by blocks works on: blocks of queries, and the blocks of keys that each of them visits.
// Plain C structs, which Python fills in (see ../visits.py: the two must agree field by field).
#pragma once
#include "array.h"

// One order of the tokens. Blocks hold 64 tokens each, -1 behind the last.
struct View {
    const int32_t *queries, *keys;  // (query blocks, 64), (key blocks, 64): tokens
    const int32_t* first;           // (query blocks + 1): where the visits of a block begin
    const int32_t *visited, *mask;  // (visits): the block of keys, and which mask tells the pairs that meet; -1: all do
    const int64_t* masks;           // (masks, 64): for each key of a block, the bits of the queries that it meets
    int64_t query_blocks;
};

// Every (row, head) has a plan, which is some views one after another; no pair meets in two of them.
struct Visits {
    int64_t batch, heads, key_heads, queries, keys, dim, value_dim;
    int64_t merged;  // queries stand in several views, or not in all of them: sums are kept between, and settled at last
    int64_t places;  // blocks of keys that a thread holds; block n has place n % places
    int64_t parts;   // pieces of a head's queries in the backward pass, each with room of its own in grad_k and grad_v
    float scale;
    double rate;  // of the weights that dropout drops, told by `seed`
    int64_t seed;
    Array q, k, v;                 // float (B, H, T, D), (B, K, S, D), (B, K, S, E), K dividing H
    Array out, lse, total;         // float (B, H, T, E), (B, H, T), (B, H, T); merged: 0, -FLT_MAX and 0 at first
    Array grad, delta;             // float (B, H, T, E), (B, H, T); delta: sums of grad * out
    Array grad_q;                  // float (B, H, T, D); merged: 0 at first
    Array grad_k, grad_v;          // float (B, K, rows, D or E), 0 at first: for all the keys that any part reaches
    Array real;                    // bool (B, S), False at keys that nobody meets; may be absent
    const int64_t* shift;          // (parts): by how much a part's rows of grad_k and grad_v lie behind the keys
    const int64_t *plan, *begins;  // (B * H): which plan; (plans + 1): where its views begin
    const View* views;
};

// Blocks of queries [first, last) of a view. Backwards: part number `part` of the queries, of the heads that share keys.
struct VisitRange {
    int64_t batch, head, view, first, last, part;
};

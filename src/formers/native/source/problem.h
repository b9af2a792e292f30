// What a call works on. Plain C structs, which Python fills in (see ../library.py: the two must agree field by field).
#pragma once
#include "array.h"
#include "units.h"
#include "visits.h"

struct Problem {
    int64_t batch, heads, rounds, length, dim, value_dim;
    int64_t chunk, before, after, wrap, reach, same, once, causal;
    float self_bias, scale;
    double rate;                       // of the weights that dropout drops, told by `seed`
    int64_t seed;
    Array q, k, v;                     // float (B, H, L, D or E)
    Array out, lse, total;             // float (B, H, L, E), (B, H, L), (B, H, L); total: sums while rounds are merged
    Array grad, delta;                 // float (B, H, L, E), (B, H, L); delta: sums of grad * out
    Array grad_q, grad_k, grad_v;      // float; the first round writes them, the others add
    Array beside_k, beside_v;          // float, as k and v; may be absent. Every chunk but the first also meets these rows
    Array grad_beside_k, grad_beside_v;  // at its own tokens, whatever the rules; rounds is 1, reach and same are 0 then
    Array order, slot, bucket;         // int32 (B, H, R, L); bucket may be absent
    Array position, real;              // int32 and bool (B, L); real may be absent
};

// Chunks [first, last) of one round of one head. `halo`: the gradients of keys that other ranges own, chunk by chunk:
// the `before` chunks in front of the range, then the `after` ones behind it; each holds its keys' rows, then values'.
struct Range {
    int64_t batch, head, round, first, last;
    float* halo;
};

// What the translation unit of one instruction set offers.
struct Kernel {
    const char* name;
    int64_t (*scratch)(const Problem&);  // bytes that a thread needs
    void (*forward)(const Problem&, const Range&, void* scratch);
    void (*backward)(const Problem&, const Range&, void* scratch);
    int64_t (*visit_scratch)(const Visits&);
    void (*visit_forward)(const Visits&, const VisitRange&, void* scratch);
    void (*visit_backward)(const Visits&, const VisitRange&, void* scratch);
    void (*settle)(const Visits&, int64_t item);
    void (*visit_deltas)(const Visits&, int64_t item);
    void (*nearest)(const float* x, int64_t rows, int64_t axes, int32_t* to);
    void (*exponential)(const float* x, float* y, int64_t count);  // count: a multiple of 16
    void (*unit_products)(const Units&, const UnitArrays&, Rows rows);
    void (*unit_sums)(const Units&, const UnitArrays&, Rows rows);
    void (*unit_outers)(const Units&, const UnitArrays&, Rows blocks, float* scratch);
    void (*draw_units)(const Draws&, Rows blocks);
    void (*weigh_units)(const Draws&, Rows blocks);
    void (*slope_units)(const Draws&, Rows blocks);
    void (*control)(const Controller&, Rows rows);
    void (*control_backward)(const Controller&, Rows blocks);
};

static inline int64_t chunks_of(const Problem& p) { return (p.length + p.chunk - 1) / p.chunk; }

static inline int64_t halo_size(const Problem& p) { return p.chunk * (p.dim + p.value_dim); }

// Where a chunk, counted from the first of a round and possibly beyond its ends, has its tokens; count 0: nowhere.
struct Place {
    int64_t round, first, count;
};

static inline Place place_of(const Problem& p, int64_t round, int64_t chunk) {
    const int64_t chunks = chunks_of(p);
    if (chunk < 0 || chunk >= chunks) {
        const int64_t step = chunk < 0 ? -1 : 1;
        chunk -= step * chunks;
        if (!p.wrap || chunk < 0 || chunk >= chunks) return {round, 0, 0};
        round = (round + step + p.rounds) % p.rounds;
    }
    const int64_t first = chunk * p.chunk;
    return {round, first, p.length - first < p.chunk ? p.length - first : p.chunk};
}

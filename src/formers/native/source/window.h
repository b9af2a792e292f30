// The chunks that a query's chunk meets: gathered from their tokens once, and kept while the window passes over them.
#pragma once
#include "ahead.h"
#include "drop.h"
#include "problem.h"
#include "scratch.h"
#include "softmax.h"

namespace {

// Facts about the tokens of a chunk, one row of integers for each. Of each earlier round: its MET rows.
enum Fact { PADDING, POSITION, SLOT, BUCKET, WORD, EARLIER };
enum Met { MET_CHUNK, MET_SLOT, MET_BUCKET, MET_FACTS };

struct Chunk {
    Place place;
    const int32_t* tokens;
    int32_t* facts;
    float *k, *v, *grad_k, *grad_v;

    const int32_t* fact(const Problem& p, int which) const { return facts + which * round_up(p.chunk, LANES); }
};

// x / chunk for 0 <= x < 2^31 by a multiplication.
struct Divider {
    uint64_t factor;
    int shift;
    explicit Divider(int64_t by) : shift(31) {
        while ((int64_t(1) << (shift - 31)) < by) shift++;
        factor = (uint64_t(1) << shift) / by + 1;
    }
    int32_t operator()(int32_t x) const { return int32_t(uint64_t(uint32_t(x)) * factor >> shift); }
};

struct Window {
    const Problem& p;
    const Range& range;
    long k_row, v_row, size;  // floats in a row of keys and of values, padded with zeros; chunks in the window
    bool backward;
    Divider chunk_of;
    Chunk *ring, *beside;
    mutable Ahead ahead;

    Window(const Problem& problem, const Range& of, Scratch& scratch, bool with_gradients)
        : p(problem), range(of), k_row(round_up(p.dim, LANES)), v_row(round_up(p.value_dim, LANES)),
          size(p.before + 1 + p.after), backward(with_gradients), chunk_of(p.chunk), ring(scratch.take<Chunk>(size + 1)),
          beside(ring + size) {
        const long facts = EARLIER + MET_FACTS * (p.once ? p.rounds - 1 : 0);
        for (long i = 0; i < size + (p.beside_k.data != nullptr); i++) {
            int32_t* fact = scratch.take<int32_t>(facts * round_up(p.chunk, LANES));
            float* k = scratch.take<float>(p.chunk * k_row);
            float* v = scratch.take<float>(p.chunk * v_row);
            float* grad_k = backward ? scratch.take<float>(p.chunk * k_row) : nullptr;
            float* grad_v = backward ? scratch.take<float>(p.chunk * v_row) : nullptr;
            if (scratch.counting) continue;
            ring[i] = {{}, nullptr, fact, k, v, grad_k, grad_v};
            // Vectors read behind the last token of a chunk, too.
            __builtin_memset(fact, 0, facts * round_up(p.chunk, LANES) * sizeof(int32_t));
        }
    }

    Chunk& at(long chunk) const { return ring[(chunk + p.before) % size]; }

    // Gather what stands in a chunk.
    void enter(long number) const {
        Chunk& chunk = at(number);
        chunk.place = place_of(p, range.round, number);
        chunk.tokens = row_of<int32_t>(p.order, range.batch, range.head, chunk.place.round) + chunk.place.first;
        collect(chunk, p.k, p.v);
        learn(chunk);
    }

    // Gather what stands beside a chunk: before all positions, and nothing beside the first.
    void enter_beside(long number) const {
        Chunk& chunk = *beside;
        chunk.place = at(number).place;
        chunk.tokens = at(number).tokens;
        if (number == 0) chunk.place.count = 0;
        collect(chunk, p.beside_k, p.beside_v);
        for (long i = 0; i < chunk.place.count; i++) {
            row(chunk, PADDING)[i] = 0;
            row(chunk, POSITION)[i] = BEFORE_ALL;
        }
    }

    // Rows of `array` at the tokens of a chunk will be wanted soon. Long chunks compute long enough on each row.
    void expect(const Array& array, long number, long width) const {
        if (p.chunk > 2 * BLOCK) return;
        const Place place = place_of(p, range.round, number);
        const int32_t* tokens = row_of<int32_t>(p.order, range.batch, range.head, place.round) + place.first;
        ahead.expect(array, range.batch, range.head, tokens, place.count, width);
    }

    static void copy(const float* from, float* to, long width, long padded) {
        __builtin_memcpy(to, from, width * sizeof(float));
        for (long i = width; i < padded; i++) to[i] = 0;
    }

   private:
    static constexpr int32_t BEFORE_ALL = -(1 << 30);

    void collect(Chunk& chunk, const Array& keys, const Array& values) const {
        const long count = chunk.place.count;
        for (long i = 0; i < count; i++) {
            copy(row_of<float>(keys, range.batch, range.head, chunk.tokens[i]), chunk.k + i * k_row, p.dim, k_row);
            copy(row_of<float>(values, range.batch, range.head, chunk.tokens[i]), chunk.v + i * v_row, p.value_dim,
                 v_row);
        }
        if (backward) {
            __builtin_memset(chunk.grad_k, 0, count * k_row * sizeof(float));
            __builtin_memset(chunk.grad_v, 0, count * v_row * sizeof(float));
        }
    }

    void learn(Chunk& chunk) const {
        const int32_t* position = row_of<int32_t>(p.position, range.batch, 0, 0);
        const bool* real = p.real.data ? row_of<bool>(p.real, range.batch, 0, 0) : nullptr;
        int32_t* padding = row(chunk, PADDING);
        for (long i = 0; i < chunk.place.count; i++) padding[i] = real && !real[chunk.tokens[i]] ? -1 : 0;
        gather(chunk, POSITION, position);
        if (p.reach) gather(chunk, SLOT, of_round(p.slot, range.round));
        if (p.same) gather(chunk, BUCKET, of_round(p.bucket, range.round));
        const uint32_t lane = lane_word(p.seed, range.batch * p.heads + range.head);
        int32_t* word = row(chunk, WORD);
        for (long i = 0; p.rate > 0 && i < chunk.place.count; i++)
            word[i] = token_word(lane, chunk.tokens[i]);
        for (long earlier = 0; p.once && earlier < range.round; earlier++) {
            const long first = EARLIER + MET_FACTS * earlier;
            gather(chunk, first + MET_SLOT, of_round(p.slot, earlier));
            if (p.same) gather(chunk, first + MET_BUCKET, of_round(p.bucket, earlier));
            const int32_t* slot = row(chunk, first + MET_SLOT);
            int32_t* of = row(chunk, first + MET_CHUNK);
            for (long i = 0; i < chunk.place.count; i++) of[i] = chunk_of(slot[i]);
        }
    }

    int32_t* row(Chunk& chunk, long fact) const { return chunk.facts + fact * round_up(p.chunk, LANES); }

    const int32_t* of_round(const Array& array, long round) const {
        return row_of<int32_t>(array, range.batch, range.head, round);
    }

    void gather(Chunk& chunk, long fact, const int32_t* from) const {
        int32_t* to = row(chunk, fact);
        for (long i = 0; i < chunk.place.count; i++) to[i] = from[chunk.tokens[i]];
    }
};

}  // namespace

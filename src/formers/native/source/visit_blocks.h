// Blocks of queries and of keys, gathered from their tokens, and the scores of a pair of them.
#pragma once
#include "drop.h"
#include "multiply.h"
#include "scratch.h"
#include "turn.h"
#include "visits.h"

namespace {

// A block of keys. tag: which one it is, -1: none.
struct KeyBlock {
    int64_t tag;
    const int32_t* tokens;
    long count;
    uint64_t real;  // bits of the keys that are no padding
    int32_t* words;
    float *k, *v, *grad_k, *grad_v;
};

// The blocks of keys that were met last: most are met again and again, and gathering one takes a tenth of the time that it
// is worked on, a quarter with its gradients. These stay with it until its place is wanted for another.
struct KeyBlocks {
    const Visits& p;
    long k_row, v_row;
    bool backward;
    int64_t batch, head, part;  // head: of the keys
    uint32_t lane;              // of the word of a token
    KeyBlock* places;

    KeyBlocks(const Visits& visits, Scratch& scratch, bool with_gradients)
        : p(visits), k_row(round_up(p.dim, LANES)), v_row(round_up(p.value_dim, LANES)), backward(with_gradients),
          places(scratch.take<KeyBlock>(p.places)) {
        for (long i = 0; i < p.places; i++) {
            int32_t* words = scratch.take<int32_t>(BLOCK);
            float* k = scratch.take<float>(BLOCK * k_row);
            float* v = scratch.take<float>(BLOCK * v_row);
            float* grad_k = backward ? scratch.take<float>(BLOCK * k_row) : nullptr;
            float* grad_v = backward ? scratch.take<float>(BLOCK * v_row) : nullptr;
            if (!scratch.counting) places[i] = {-1, nullptr, 0, 0, words, k, v, grad_k, grad_v};
        }
    }

    void enter(const VisitRange& at) {
        batch = at.batch;
        part = at.part;
        head = at.head / (p.heads / p.key_heads);
    }

    // Words depend on the head of the queries.
    void listen(const VisitRange& at) {
        lane = lane_word(p.seed, at.batch * p.heads + at.head);
        for (long i = 0; p.rate > 0 && i < p.places; i++)
            if (places[i].tag >= 0) hear(places[i]);
    }

    const KeyBlock& take(int64_t number, const View& view, int64_t which) {
        KeyBlock& block = places[which % p.places];
        const int64_t tag = number << 32 | which;
        if (block.tag == tag) return block;
        leave(block);
        block.tag = tag;
        block.tokens = view.keys + which * BLOCK;
        for (block.count = 0; block.count < BLOCK && block.tokens[block.count] >= 0;) block.count++;
        collect(block);
        if (p.rate > 0) hear(block);
        return block;
    }

    void leave_all() {
        for (long i = 0; i < p.places; i++) {
            leave(places[i]);
            places[i].tag = -1;
        }
    }

   private:
    void collect(KeyBlock& block) const {
        const bool* real = p.real.data ? row_of<bool>(p.real, batch, 0, 0) : nullptr;
        block.real = 0;
        for (long i = 0; i < block.count; i++) {
            const int32_t token = block.tokens[i];
            copy(row_of<float>(p.k, batch, head, token), block.k + i * k_row, p.dim, k_row);
            copy(row_of<float>(p.v, batch, head, token), block.v + i * v_row, p.value_dim, v_row);
            block.real |= uint64_t(!real || real[token]) << i;
        }
        if (!backward) return;
        __builtin_memset(block.grad_k, 0, block.count * k_row * sizeof(float));
        __builtin_memset(block.grad_v, 0, block.count * v_row * sizeof(float));
    }

    void hear(KeyBlock& block) const {
        for (long i = 0; i < block.count; i++) block.words[i] = token_word(lane, block.tokens[i]);
    }

    void leave(KeyBlock& block) const {
        if (!backward || block.tag < 0) return;
        for (long i = 0; i < block.count; i++) {
            float* k = row_of<float>(p.grad_k, batch, head, block.tokens[i] + p.shift[part]);
            float* v = row_of<float>(p.grad_v, batch, head, block.tokens[i] + p.shift[part]);
            for (long d = 0; d < p.dim; d++) k[d] += block.grad_k[i * k_row + d];
            for (long e = 0; e < p.value_dim; e++) v[e] += block.grad_v[i * v_row + e];
        }
    }

   public:
    static void copy(const float* from, float* to, long width, long padded) {
        __builtin_memcpy(to, from, width * sizeof(float));
        for (long i = width; i < padded; i++) to[i] = 0;
    }
};

// Part of a visit: the queries from `lane` on, `width` lanes of them, and the keys from `first` on.
struct Piece {
    long lane, width, first, count;
};

// A visit in pieces: whole, or in halves of the queries where a mask says who meets, each with the keys that any of it meets.
struct Pieces {
    Piece each[2];
    int count = 0;

    Pieces(long queries, const KeyBlock& keys, const int64_t* mask) {
        constexpr long HALF = BLOCK / 2;
        const long width = round_up(queries, LANES);
        if (!mask) {
            each[count++] = {0, width, 0, keys.count};
            return;
        }
        for (long lane = 0; lane < width; lane += HALF) {
            const uint64_t lanes = (~uint64_t(0) >> (BLOCK - HALF)) << lane;
            long first = 0, end = keys.count;
            while (first < end && !(uint64_t(mask[first]) & lanes)) first++;
            while (first < end && !(uint64_t(mask[end - 1]) & lanes)) end--;
            if (first < end) each[count++] = {lane, width - lane < HALF ? width - lane : HALF, first, end - first};
        }
    }
};

// A block of queries, scaled and turned, and its scores with a block of keys.
struct QueryBlock {
    const Visits& p;
    long k_row, count;
    const int32_t* tokens;
    int32_t* words;
    float *rows, *turned, *scores, *peaks;

    QueryBlock(const Visits& visits, Scratch& scratch)
        : p(visits), k_row(round_up(p.dim, LANES)), words(scratch.take<int32_t>(BLOCK)),
          rows(scratch.take<float>(BLOCK * k_row)), turned(scratch.take<float>(BLOCK * p.dim)),
          scores(scratch.take<float>(BLOCK * BLOCK)), peaks(scratch.take<float>(BLOCK)) {}

    void enter(const VisitRange& at, const View& view, int64_t which, uint32_t lane) {
        tokens = view.queries + which * BLOCK;
        for (count = 0; count < BLOCK && tokens[count] >= 0;) count++;
        for (long i = 0; i < count; i++) {
            const float* q = row_of<float>(p.q, at.batch, at.head, tokens[i]);
            for (long d = 0; d < p.dim; d++) rows[i * k_row + d] = q[d] * p.scale;
            for (long d = p.dim; d < k_row; d++) rows[i * k_row + d] = 0;
            if (p.rate > 0) words[i] = token_word(lane, tokens[i]);
        }
        turn(rows, k_row, count, p.dim, turned);
    }

    long width() const { return round_up(count, LANES); }

    // Of a piece, how many lanes are queries.
    long rows_of(const Piece& piece) const { return count - piece.lane < piece.width ? count - piece.lane : piece.width; }

    // Scores of pairs that meet; of others minus infinity. mask: of the keys, or none where all meet.
    void meet(Ahead& ahead, const KeyBlock& keys, const int64_t* mask, const Piece& piece) {
        const Left of_keys = {keys.k + piece.first * k_row, k_row, 1};
        multiply(ahead, piece.count, piece.width, p.dim, of_keys, {turned + piece.lane, BLOCK},
                 {scores + piece.first * BLOCK + piece.lane, BLOCK, false});
        const bool all = !mask && keys.real == (~uint64_t(0) >> (BLOCK - keys.count));
        for (long lane = piece.lane; lane < piece.lane + piece.width; lane += LANES)
            store(peaks + lane, all ? peak(keys.count, lane) : bar(keys, mask, piece, lane));
    }

    void drop(const KeyBlock& keys, const Piece& piece, float* tile) const {
        if (p.rate <= 0) return;
        tile += piece.first * BLOCK + piece.lane;
        drop_tile(p.rate, tile, {words + piece.lane, rows_of(piece)}, {keys.words + piece.first, piece.count});
    }

   private:
    Floats peak(long keys, long lane) const {
        Floats even = load<Floats>(peaks + lane), odd = even;
        const float* at = scores + lane;
        for (long i = 0; i + 1 < keys; i += 2) {
            even = larger(load<Floats>(at + i * BLOCK), even);
            odd = larger(load<Floats>(at + (i + 1) * BLOCK), odd);
        }
        if (keys % 2) even = larger(load<Floats>(at + (keys - 1) * BLOCK), even);
        return larger(even, odd);
    }

    // A pair's bit is moved into the sign of its lane, so that the choice costs a shift on every instruction set.
    Floats bar(const KeyBlock& keys, const int64_t* mask, const Piece& piece, long lane) const {
        Floats highest = load<Floats>(peaks + lane);
        const Floats never = fill(-__builtin_inff());
        Bits left;
        for (int i = 0; i < LANES; i++) left[i] = 31 - i;
        for (long i = piece.first; i < piece.first + piece.count; i++) {
            const uint64_t met = keys.real >> i & 1 ? (mask ? uint64_t(mask[i]) : ~uint64_t(0)) : 0;
            float* at = scores + i * BLOCK + lane;
            const Ints seen = (Ints)((Bits{} + uint32_t(met >> lane)) << left);
            const Floats score = seen < 0 ? load<Floats>(at) : never;
            store(at, score);
            highest = larger(score, highest);
        }
        return highest;
    }
};

inline const int64_t* mask_of(const View& view, int64_t visit) {
    return view.mask[visit] < 0 ? nullptr : view.masks + view.mask[visit] * BLOCK;
}

}  // namespace

// Attention dropout: whether a weight is kept is told by a hash, so that no mask is stored and the backward pass drops
// the same weights. The same numbers as ../../attention/sorted/drop.py works out.
#pragma once
#include "softmax.h"

namespace {

constexpr uint32_t SPREAD = 0x9E3779B1u;

// Another word, every bit of which depends on all bits of x: the hash function "lowbias32" of C. Wellons, 2018.
template <class Word>
inline Word scattered(Word x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

// What dropout goes by, for some tokens.
struct Words {
    const int32_t* data;
    long count;
};

// The word of a row and a head, from which those of its tokens are made.
inline uint32_t lane_word(int64_t seed, int64_t lane) { return scattered(uint32_t(seed) + SPREAD * uint32_t(lane)); }

inline int32_t token_word(uint32_t lane, int32_t token) { return int32_t(scattered(lane + uint32_t(token))); }

// Takes the weights that are dropped out of a tile, (BLOCK keys, BLOCK queries); the others grow to make up for them.
inline void drop_tile(double rate, float* tile, Words queries, Words keys) {
    const Floats grown = fill(rate < 1 ? float(1 / (1 - rate)) : 0.0f);
    const Bits kept = Bits{} + uint32_t((1 - rate) * 2147483648.0);
    for (long lane = 0; lane < queries.count; lane += LANES) {
        const Bits query = load<Bits>(queries.data + lane) * SPREAD;
        for (long i = 0; i < keys.count; i++) {
            float* at = tile + i * BLOCK + lane;
            const Bits word = scattered(query + uint32_t(keys.data[i])) >> 1;
            store(at, (Floats)((Bits)(load<Floats>(at) * grown) & (Bits)(word < kept)));
        }
    }
}

}  // namespace

// Attention dropout: whether a weight is kept is told by a hash, so that no mask is stored and the backward pass drops
// the same weights. The same numbers as ../../attention/sorted/drop.py works out.
#pragma once
#include "vector.h"

namespace {

constexpr uint32_t SPREAD = 0x9E3779B1u;

// Another word, every bit of which depends on all bits of x: the hash function "lowbias32" of C. Wellons, 2018.
template <class Word>
inline Word scattered(Word x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

}  // namespace

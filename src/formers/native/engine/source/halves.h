// Halves (bf16): the upper 16 bits of floats.
#pragma once
#include <cstdint>

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

// To nearest, of two as near the even one; what is no number stays none.
static inline uint16_t to_half(float x) {
    const uint32_t bits = bits_of(x);
    return x == x ? uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) : 0x7FC0;
}

static inline void to_halves(uint16_t* to, const float* from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = to_half(from[i]);
}

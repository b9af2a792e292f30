// Random numbers by their place, without a state: Philox4x64 with ten rounds, Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3". As numpy.random.Philox(key=seed) gives them.
#pragma once
#include <cstdint>

// Number `place` of a seed, 64 random bits.
static inline uint64_t philox(uint64_t seed, uint64_t place) {
    constexpr uint64_t MULTIPLY[2] = {0xD2E7470EE14C6C93, 0xCA5A826395121157};
    constexpr uint64_t WEYL[2] = {0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B};
    uint64_t x[4] = {place / 4 + 1, 0, 0, 0}, key[2] = {seed, 0};
    for (int round = 0; round < 10; round++) {
        const auto first = static_cast<unsigned __int128>(MULTIPLY[0]) * x[0];
        const auto second = static_cast<unsigned __int128>(MULTIPLY[1]) * x[2];
        const uint64_t left = uint64_t(second >> 64) ^ x[1] ^ key[0], right = uint64_t(first >> 64) ^ x[3] ^ key[1];
        x[0] = left, x[1] = uint64_t(second), x[2] = right, x[3] = uint64_t(first);
        key[0] += WEYL[0], key[1] += WEYL[1];
    }
    return x[place % 4];
}

// From 0 to below 1, in steps of 2^-24.
static inline float uniform(uint64_t seed, uint64_t place) { return float(philox(seed, place) >> 40) * 0x1p-24f; }

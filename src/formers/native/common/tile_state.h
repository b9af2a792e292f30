// A thread's use of tiles (AMX). Only for sources that are compiled for them.
#pragma once
#include <cstdint>
#include <immintrin.h>

namespace {

// All eight tiles have 16 rows of 64 bytes, but for those that are given 32: tile 0 has rows half as long, and tiles 1
// and 2, which meet it, half as many.
class Configured {
   public:
    explicit Configured(int bytes = 64) {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } config;
        for (int tile = 0; tile < 8; tile++) {
            config.bytes[tile] = uint16_t(tile == 0 ? bytes : 64);
            config.rows[tile] = uint8_t(tile == 1 || tile == 2 ? bytes / 4 : 16);
        }
        // GCC believes that the first 8 bytes alone are read, and would leave the others unset.
        __asm__ volatile("" : : "m"(config));
        _tile_loadconfig(&config);
    }
    ~Configured() { _tile_release(); }
    Configured(const Configured&) = delete;
    Configured& operator=(const Configured&) = delete;
};

// What tiles are loaded from must have been written before; compilers do not know what they read.
inline void settle() { __asm__ volatile("" ::: "memory"); }

}  // namespace

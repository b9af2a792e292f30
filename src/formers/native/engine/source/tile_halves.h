// Products of halves (bf16) by tiles (AMX): rows of weights or keys meet vectors of floats, each number of which is the sum of
// two halves (an error of 2^-16).
#pragma once
#include "asking.h"
#include "lanes.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define HAS_TILES 1
#include "tile_state.h"
#include "transpose.h"

namespace {
namespace packed {

constexpr int64_t SIDE = 16, TILE_BYTES = 1024;
constexpr int64_t PAIR = 2 * SIDE;  // rows, vectors and columns of the products below

// The upper halves of 32 floats and the rest of them, in pairs of one from `a` and one from `b` where `order` says so.
struct Split {
    __m512i upper, lower;

    INLINE Split(__m512 a, __m512 b, __m512i order) {
        const __m512i cut = _mm512_set1_epi32(int32_t(0xFFFF0000));
        const auto rest = [&](__m512 x) INLINE_HERE { return _mm512_sub_ps(x, (__m512)_mm512_and_si512((__m512i)x, cut)); };
        upper = _mm512_permutex2var_epi16((__m512i)a, order, (__m512i)b);
        lower = _mm512_permutex2var_epi16((__m512i)rest(a), order, (__m512i)rest(b));
    }
};

// 32 numbers of `count` vectors, at most 16, to the lanes of two tiles: the upper halves, and the lower ones. read(b, half):
// 16 of vector b.
template <class Read>
INLINE void split_vectors(int64_t count, const Read& read, uint8_t* tiles) {
    const __m512i in_order = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23,
                                              21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __m512i upper[SIDE] = {}, lower[SIDE] = {};
    for (int64_t b = 0; b < count; b++) {
        const Split split(read(b, 0), read(b, 1), in_order);
        upper[b] = split.upper, lower[b] = split.lower;
    }
    transpose(upper), transpose(lower);
    for (int64_t i = 0; i < SIDE; i++) {
        _mm512_store_si512(tiles + i * 64, upper[i]);
        _mm512_store_si512(tiles + TILE_BYTES + i * 64, lower[i]);
    }
}

// Rows of halves, `stride` bytes apart, and 32 of them at a time with two groups of 16 vectors: for each 32 columns two tiles,
// as `split_vectors` fills them.
struct Pairs {
    const uint8_t* rows;
    int64_t stride, columns;
    const uint8_t *left, *right;
};

// Products of 32 rows with 32 vectors, sums[row * sums_stride + vector]; add: to what is there. asked: pairs of lines that are
// asked for with each product.
template <bool add>
inline void multiply_pairs(const Pairs& of, int64_t asked, Asking& asking, float* sums, int64_t sums_stride) {
    const uint8_t* below = of.rows + SIDE * of.stride;
    float* const lower = sums + SIDE * sums_stride;
    const int64_t bytes = sums_stride * int64_t(sizeof(float));
    settle();
    if constexpr (add) {
        _tile_loadd(0, sums, bytes);
        _tile_loadd(1, sums + SIDE, bytes);
        _tile_loadd(2, lower, bytes);
        _tile_loadd(3, lower + SIDE, bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t n = 0; n < up_to(of.columns, PAIR) / PAIR; n++) {
        const uint8_t *left = of.left + n * 2 * TILE_BYTES, *right = of.right + n * 2 * TILE_BYTES;
        _tile_loadd(4, of.rows + n * 64, of.stride);
        _tile_loadd(5, below + n * 64, of.stride);
#define MULTIPLY(part)                             \
    _tile_loadd(6, left + part * TILE_BYTES, 64);  \
    asking.pairs(asked);                           \
    _tile_dpbf16ps(0, 4, 6);                       \
    asking.pairs(asked);                           \
    _tile_dpbf16ps(2, 5, 6);                       \
    _tile_loadd(7, right + part * TILE_BYTES, 64); \
    asking.pairs(asked);                           \
    _tile_dpbf16ps(1, 4, 7);                       \
    asking.pairs(asked);                           \
    _tile_dpbf16ps(3, 5, 7);
        MULTIPLY(0)
        MULTIPLY(1)
#undef MULTIPLY
    }
    _tile_stored(0, sums, bytes);
    _tile_stored(1, sums + SIDE, bytes);
    _tile_stored(2, lower, bytes);
    _tile_stored(3, lower + SIDE, bytes);
}

}  // namespace packed
}  // namespace

#endif

// Matrices cut into tiles of bf16. A number becomes the sum of 2 or 3 in bf16, each what is left of it rounded to 8 bits:
// 3 hold all 24 bits of a float. What is not finite leaves no number (nan), and neither does its sum.
#pragma once
#include <cstdint>
#include <immintrin.h>

#include "product.h"
#include "transpose.h"

namespace {

constexpr int64_t SIDE = 16, DEEP = 32, PANEL = 2 * SIDE;
constexpr int64_t TILE = SIDE * DEEP;          // numbers in a tile
constexpr int64_t PAIR_OF_TILES = 2 * TILE;    // those of a panel in one part of DEEP

// The first `count` of 16 numbers.
inline __mmask16 first_of_16(int64_t count) {
    return __mmask16(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1);
}

// 16 rows of 16 pairs of bf16 for each part.
using Rows = __m512i[SIDE];

inline __m512i bits_of(__m512 x) { return _mm512_castps_si512(x); }

// The upper half of a number, with which it becomes bf16, after rounding it half up: what that adds, the next part takes away.
inline __m512i upper(__m512 x) {
    const __m512i rounded = _mm512_add_epi32(bits_of(x), _mm512_set1_epi32(0x8000));
    return _mm512_and_si512(rounded, _mm512_set1_epi32(int(0xFFFF0000)));
}

// The same in the lower half, to the nearest even number; what is no number stays none.
inline __m512i nearest(__m512 x) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)); }

// Numbers of a beside those of b, as row i of each part.
inline void split(__m512 a, __m512 b, int64_t parts, Rows* rows, int64_t i) {
    for (int64_t part = 0; part + 1 < parts; part++) {
        const __m512i left = upper(a), right = upper(b);
        rows[part][i] = _mm512_or_si512(_mm512_srli_epi32(left, 16), right);
        a = _mm512_sub_ps(a, _mm512_castsi512_ps(left));
        b = _mm512_sub_ps(b, _mm512_castsi512_ps(right));
    }
    rows[parts - 1][i] = _mm512_or_si512(nearest(a), _mm512_slli_epi32(nearest(b), 16));
}

inline void prefetch(const float* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0); }

// A sum runs over 32 numbers in any order that both matrices keep: number n stands beside number 16 + n.

// They lie side by side: row i is the pairs of one of `outer`.
inline void read_along(const float* from, int64_t step, int64_t outer, int64_t inner, int64_t parts, Rows* rows) {
    for (int64_t i = 0; i < SIDE; i++) {
        const bool real = i < outer;
        const float* row = from + (real ? i * step : 0);
        const __mmask16 low = real ? first_of_16(inner) : 0, high = real ? first_of_16(inner - SIDE) : 0;
        prefetch(row + 4 * DEEP);
        prefetch(row + 4 * DEEP + SIDE);
        split(_mm512_maskz_loadu_ps(low, row), _mm512_maskz_loadu_ps(high, row + SIDE), parts, rows, i);
    }
}

// They lie below each other: row i is pair i of each of `outer`.
inline void read_across(const float* from, int64_t step, int64_t outer, int64_t inner, int64_t parts, Rows* rows) {
    const __mmask16 some = first_of_16(outer);
    for (int64_t i = 0; i < SIDE; i++) {
        const float *upper = from + (i < inner ? i * step : 0), *lower = from + (i + SIDE < inner ? (i + SIDE) * step : 0);
        const __mmask16 high = i < inner ? some : 0, low = i + SIDE < inner ? some : 0;
        prefetch(upper + DEEP * step);
        prefetch(lower + DEEP * step);
        split(_mm512_maskz_loadu_ps(high, upper), _mm512_maskz_loadu_ps(low, lower), parts, rows, i);
    }
}

// Panels of 32 rows of the left matrix, or of 32 columns of the right one, `size` numbers apart: two tiles for each part of
// every 32 numbers that the sum runs over. A tile of the left one has rows of 16 pairs of these, a tile of the right one a
// row for each pair, of 16 columns. 0 stands behind the last.
template <bool left>
class Packer {
   public:
    // outer, inner: strides; `count` of the outer numbers are taken, and `depth` of the inner ones.
    Packer(const float* from, int64_t outer, int64_t inner, int64_t count, int64_t depth, int64_t parts)
        : from(from), outer(outer), inner(inner), count(count), depth(depth), parts(parts) {}

    // In the order in which they lie in memory.
    void pack(uint16_t* to, int64_t size) const {
        if (inner == 1)
            for (int64_t n = 0; n < count; n += PANEL, to += size)
                for (int64_t k = 0; k < depth; k += DEEP) pack_tiles(n, k, to + k / DEEP * parts * PAIR_OF_TILES);
        else
            for (int64_t k = 0; k < depth; k += DEEP, to += parts * PAIR_OF_TILES)
                for (int64_t n = 0; n < count; n += PANEL) pack_tiles(n, k, to + n / PANEL * size);
    }

   private:
    void pack_tiles(int64_t n, int64_t k, uint16_t* to) const {
        const bool along = inner == 1;
        Rows rows[3];
        for (int64_t half = 0; half < 2; half++, n += SIDE, to += TILE) {
            const float* first = from + (n < count ? n : 0) * outer + k * inner;
            if (along)
                read_along(first, outer, count - n, depth - k, parts, rows);
            else
                read_across(first, inner, count - n, depth - k, parts, rows);
            for (int64_t part = 0; part < parts; part++) {
                if (along != left) transpose(rows[part]);
                uint16_t* tile = to + part * PAIR_OF_TILES;
                for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(tile + i * DEEP, rows[part][i]);
            }
        }
    }

    const float* from;
    const int64_t outer, inner, count, depth, parts;
};

}  // namespace

// Products of many vectors of floats with each row: weights become floats once, and meet all vectors in the cache.
#pragma once
#include "rows.h"

namespace {
namespace packed {

constexpr int64_t CHUNK = 256;  // columns at a time: so many of 16 vectors stay in the nearest cache
constexpr int TILE = 4;         // rows and vectors whose sums stay in registers

// By row and vector.
struct Sums {
    Floats at[ROWS][MOST_BATCH];
};

// Adds the products of `count` columns, a multiple of WIDTH, for a tile of rows and vectors.
INLINE void add_tile(const float* w, const float* const* x, int64_t count, Sums& sums, int row, int64_t vector) {
    Floats local[TILE][TILE];
    UNROLLED
    for (int k = 0; k < TILE; k++)
        UNROLLED
        for (int b = 0; b < TILE; b++) local[k][b] = sums.at[row + k][vector + b];
    for (int64_t c = 0; c < count; c += WIDTH) {
        Floats left[TILE];
        UNROLLED
        for (int k = 0; k < TILE; k++) left[k] = load<Floats>(w + (row + k) * CHUNK + c);
        UNROLLED
        for (int b = 0; b < TILE; b++) {
            const Floats right = load<Floats>(x[b] + c);
            UNROLLED
            for (int k = 0; k < TILE; k++) local[k][b] += left[k] * right;
        }
    }
    UNROLLED
    for (int k = 0; k < TILE; k++)
        UNROLLED
        for (int b = 0; b < TILE; b++) sums.at[row + k][vector + b] = local[k][b];
}

// The vectors, those beyond the batch repeating the first, and what is left of each behind its last whole WIDTH.
struct Vectors {
    const float *x[MOST_BATCH], *ends[MOST_BATCH];
    float memory[MOST_BATCH][WIDTH];
    Vectors(const Matrix& m, const Input& in) : memory() {
        for (int64_t b = 0; b < MOST_BATCH; b++) {
            x[b] = in.x + (b < in.batch ? b : 0) * in.stride;
            for (int64_t c = m.columns / WIDTH * WIDTH; c < m.columns; c++) memory[b][c % WIDTH] = x[b][c];
            ends[b] = memory[b];
        }
    }
};

template <Type type>
void dot_block(const Matrix& m, const Reading& at, const Vectors& vectors, int64_t batch, Sums& sums) {
    using S = Stretch<type>;
    alignas(64) float w[ROWS * CHUNK];
    for (int64_t first = 0; first < m.columns; first += CHUNK) {
        const int64_t count = m.columns - first < CHUNK ? m.columns - first : CHUNK, whole = count / WIDTH * WIDTH;
        for (int k = 0; k < ROWS; k++) {
            const int64_t from = first / S::SPAN * S::BYTES, to = up_to(first + count, S::SPAN) / S::SPAN * S::BYTES;
            for (int64_t o = from; o < to; o += 64) __builtin_prefetch(at.next[k] + o, 0, 2);
            read_columns<type>(m, at.now[k], first, count, w + k * CHUNK);
        }
        for (int64_t b = 0; b < batch; b += TILE) {
            const float* x[TILE];
            UNROLLED
            for (int i = 0; i < TILE; i++) x[i] = vectors.x[b + i] + first;
            UNROLLED
            for (int k = 0; k < ROWS; k += TILE) {
                add_tile(w, x, whole, sums, k, b);
                if (whole < count) add_tile(w + whole, vectors.ends + b, WIDTH, sums, k, b);
            }
        }
    }
}

template <Type type>
void dot_batch(const Place& place, const Input& in, float* y, int64_t y_stride) {
    const Vectors vectors(place.m, in);
    for (int64_t first = 0; first < place.count; first += ROWS) {
        Sums sums = {};
        dot_block<type>(place.m, place.at(first), vectors, in.batch, sums);
        for (int64_t k = 0; k < ROWS && first + k < place.count; k++)
            for (int64_t b = 0; b < in.batch; b++) y[b * y_stride + first + k] = total(sums.at[k][b]);
    }
}

}  // namespace packed
}  // namespace

// Three products with chosen rows of a matrix, which are a sparse feed-forward, there and back.
#pragma once
#include "units.h"
#include "vector.h"

namespace {

// One vector that is multiplied with `count` others: their products.
template <int count>
inline void dots(const float* x, const float* const* others, float* out, int64_t width) {
    Floats sums[count] = {};
    float rest[count] = {};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        const Floats part = load<Floats>(x + i);
        for (int n = 0; n < count; n++) sums[n] += part * load<Floats>(others[n] + i);
    }
    for (; i < width; i++)
        for (int n = 0; n < count; n++) rest[n] += x[i] * others[n][i];
    for (int n = 0; n < count; n++) out[n] = summed(sums[n])[0] + rest[n];
}

struct Term {
    float weight;
    const float* row;
};

// y += the weighted sum of some rows.
inline void add_terms(float* y, const Term* terms, int count, int64_t width) {
    constexpr int HELD = 4;
    int64_t i = 0;
    for (; i + HELD * LANES <= width; i += HELD * LANES) {
        Floats sums[HELD];
        for (int j = 0; j < HELD; j++) sums[j] = load<Floats>(y + i + j * LANES);
        for (int n = 0; n < count; n++)
            for (int j = 0; j < HELD; j++) sums[j] += fill(terms[n].weight) * load<Floats>(terms[n].row + i + j * LANES);
        for (int j = 0; j < HELD; j++) store(y + i + j * LANES, sums[j]);
    }
    for (; i < width; i++)
        for (int n = 0; n < count; n++) y[i] += terms[n].weight * terms[n].row[i];
}

// values[row][block] = x[row] . matrix[block, picked]
void unit_products(const Units& u, const UnitArrays& a, Rows rows) {
    constexpr int AT_ONCE = 4;
    for (int64_t block = 0; block < u.blocks; block += AT_ONCE) {
        for (int64_t row = rows.first; row < rows.last; row++) {
            const int64_t at = row * u.blocks + block;
            const int64_t count = u.blocks - block < AT_ONCE ? u.blocks - block : AT_ONCE;
            const float* others[AT_ONCE];
            for (int64_t n = 0; n < count; n++) others[n] = a.matrix + ((block + n) * u.size + u.picked[at + n]) * u.width;
            if (count == AT_ONCE) {
                dots<AT_ONCE>(a.x + row * u.width, others, a.values + at, u.width);
            } else {
                for (int64_t n = 0; n < count; n++) dots<1>(a.x + row * u.width, others + n, a.values + at + n, u.width);
            }
        }
    }
}

// x[row] = the sum of values[row][block] * matrix[block, picked] over all blocks, and bias where there is one.
void unit_sums(const Units& u, const UnitArrays& a, Rows rows) {
    constexpr int AT_ONCE = 8;
    for (int64_t row = rows.first; row < rows.last; row++) {
        if (a.bias)
            __builtin_memcpy(a.x + row * u.width, a.bias, u.width * sizeof(float));
        else
            __builtin_memset(a.x + row * u.width, 0, u.width * sizeof(float));
    }
    for (int64_t block = 0; block < u.blocks; block += AT_ONCE) {
        for (int64_t row = rows.first; row < rows.last; row++) {
            Term terms[AT_ONCE];
            int count = 0;
            for (int64_t b = block; b < u.blocks && b < block + AT_ONCE; b++) {
                const int64_t at = row * u.blocks + b;
                if (a.values[at] != 0.0f)
                    terms[count++] = {a.values[at], a.matrix + (b * u.size + u.picked[at]) * u.width};
            }
            add_terms(a.x + row * u.width, terms, count, u.width);
        }
    }
}

// (rows, width) -> (width, rows), `row` numbers from one to the next.
inline void lay_across(const float* from, int64_t rows, int64_t width, float* to, int64_t row) {
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t j = 0; j < width; j += LANES) {
            if (i + LANES > rows || j + LANES > width) {
                for (int64_t m = j; m < j + LANES && m < width; m++)
                    for (int64_t n = i; n < i + LANES && n < rows; n++) to[m * row + n] = from[n * width + m];
                continue;
            }
            Floats square[LANES];
            for (int n = 0; n < LANES; n++) square[n] = load<Floats>(from + (i + n) * width + j);
            transpose(square);
            for (int m = 0; m < LANES; m++) store(to + (j + m) * row + i, square[m]);
        }
}

// matrix[block, picked] = the sum of values[row][block] * x[row] over all rows that picked it, for a few blocks, which stay in
// the cache. Where the matrix is turned, (width, blocks * size), they are made in `scratch` first, which has room for them.
void unit_outers(const Units& u, const UnitArrays& a, Rows blocks, float* scratch) {
    const int64_t each = u.size * u.width;
    float* sums = a.turned ? scratch : a.matrix + blocks.first * each;
    __builtin_memset(sums, 0, (blocks.last - blocks.first) * each * sizeof(float));
    for (int64_t row = 0; row < u.rows; row++)
        for (int64_t block = blocks.first; block < blocks.last; block++) {
            const int64_t at = row * u.blocks + block;
            const Term term = {a.values[at], a.x + row * u.width};
            float* to = sums + (block - blocks.first) * each + u.picked[at] * u.width;
            if (term.weight != 0.0f) add_terms(to, &term, 1, u.width);
        }
    for (int64_t block = blocks.first; a.turned && block < blocks.last; block++)
        lay_across(sums + (block - blocks.first) * each, u.size, u.width, a.matrix + block * u.size, u.blocks * u.size);
}

}  // namespace

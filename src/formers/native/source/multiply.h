// c (+)= a b for small matrices that lie in the cache: the one product that everything here is made of.
#pragma once
#include "ahead.h"
#include "vector.h"

namespace {

// a: element (i, t) at a[i * row + t * step]. Either may be 1: broadcasts do not care.
struct Left {
    const float* data;
    long row, step;
};

// Whole vectors of columns: row i at data + i * row.
struct Right {
    const float* data;
    long row;
};

struct Result {
    float* data;
    long row;
    bool add;  // to what is there
};

// ROWS x COLUMNS vectors of the result stay in registers over the whole depth. Not inlined: with what stands around it,
// compilers run out of registers in the innermost loop.
template <int rows, int columns>
__attribute__((noinline)) void multiply_block(long depth, Left a, Right b, Result c) {
    Floats sums[rows][columns];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            sums[i][j] = c.add ? load<Floats>(c.data + i * c.row + j * LANES) : Floats{};
    for (long t = 0; t < depth; t++) {
        Floats right[columns];
        for (int j = 0; j < columns; j++) right[j] = load<Floats>(b.data + t * b.row + j * LANES);
        for (int i = 0; i < rows; i++) {
            const Floats left = fill(a.data[i * a.row + t * a.step]);
            for (int j = 0; j < columns; j++) sums[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) store(c.data + i * c.row + j * LANES, sums[i][j]);
}

template <int most, int columns>
inline void multiply_rows(Ahead& ahead, long rows, long depth, Left a, Right b, Result c) {
    for (; rows >= most; rows -= most) {
        ahead.fetch();
        multiply_block<most, columns>(depth, a, b, c);
        a.data += most * a.row;
        c.data += most * c.row;
    }
    if constexpr (most > 1) {
        if (rows > 0) multiply_rows<most - 1, columns>(ahead, rows, depth, a, b, c);
    }
}

template <int most>
void multiply_columns(Ahead& ahead, long rows, long columns, long depth, Left a, Right b, Result c) {
    for (; columns >= most; columns -= most) {
        multiply_rows<ROWS, most>(ahead, rows, depth, a, b, c);
        b.data += most * LANES;
        c.data += most * LANES;
    }
    if constexpr (most > 1) {
        if (columns > 0) multiply_columns<most - 1>(ahead, rows, columns, depth, a, b, c);
    }
}

// width: columns, a multiple of LANES. Between blocks, rows that are wanted later are fetched.
inline void multiply(Ahead& ahead, long rows, long width, long depth, Left a, Right b, Result c) {
    multiply_columns<COLUMNS>(ahead, rows, width / LANES, depth, a, b, c);
}

}  // namespace

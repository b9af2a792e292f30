// What a call multiplies.
#pragma once
#include <cstdint>

// A matrix of floats: strides in elements, of which one is 1.
struct Matrix {
    const float* data;
    int64_t row, column;

    const float* at(int64_t r, int64_t c) const { return data + r * row + c * column; }
};

// out (rows, columns) = left (rows, inner) times right (inner, columns), and bias (columns,) where there is one; added
// to what is there where `add` is not 0. The same as `Product` in gemm/library.py, field by field.
struct Product {
    int64_t rows, columns, inner;
    Matrix left, right;
    float* out;
    int64_t out_row;
    const float* bias;
    int64_t add, parts;
};

// The numbers first to behind last of one of its sides.
struct Span {
    int64_t first, last;

    int64_t count() const { return last - first; }
};

// A part of a product, whose sum over `inner` is written or added to `out`.
struct Piece {
    Span rows, columns, inner;
    float* out;  // of its own first row and column
    int64_t out_row;
    const float* bias;  // of its own first column
    bool add;
};

// The kernel for tiles. scratch: bytes for a piece, aligned to 64.
struct Tiled {
    int64_t (*scratch)(const Product&, const Piece&);
    void (*run)(const Product&, const Piece&, void* scratch);
};

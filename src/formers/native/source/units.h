// Choices, one of `size` in each block, and products with the rows of a matrix that were chosen.
// Plain C structs, which Python fills in (see ../units.py); the arrays are contiguous.
#pragma once
#include <cstdint>

// Every row of x has picked one row in each block of a matrix: picked (rows, blocks), from 0 to size - 1.
// width: of x and of the matrix.
struct Units {
    int64_t rows, blocks, size, width;
    const int32_t* picked;
};

// From first to last, without it.
struct Rows {
    int64_t first, last;
};

// values (rows, blocks), x (rows, width), matrix (blocks * size, width), bias (width) or null.
struct UnitArrays {
    float *values, *x, *matrix;
    const float* bias;
    int64_t turned;  // whether the matrix lies as (width, blocks * size)
};

constexpr int64_t MOST_CHOICES = 1024;  // in a block: they are held on the stack

// What is chosen from logits (blocks, size), and everything else (blocks), but slopes; see drawn.h.
struct Draws {
    int64_t blocks, size;
    float sharpness;  // 1 / temperature
    const float *logits, *shares;
    int32_t* picked;
    float *chances, *peaks, *totals, *slopes;
};

// A controller of low rank, whose logits are kept nowhere: inner (rows, rank) times weight (blocks, rank, padded) plus bias
// (blocks, padded), where `size` numbers of a block are real and the bias of the others is minus infinity. All else is (rows,
// blocks), but for the gradients; see controller.h.
struct Controller {
    int64_t rows, blocks, size, padded, rank;
    int64_t at_once;  // blocks that write to one of the gradients by the inner numbers, (blocks / at_once, rows, rank)
    int64_t given;    // whether choices are there already
    float sharpness;  // 1 / temperature
    const float *inner, *weight, *bias, *shares;
    int32_t* picked;
    float *chances, *peaks, *totals;
    const float* upstream;
    float *by_inner, *by_weight, *by_bias;
};

// Rows of so many numbers that are worked on at a time: half a megabyte, which stays in a core's own cache.
static inline int64_t rows_of(int64_t numbers) {
    const int64_t rows = (int64_t(1) << 17) / (numbers > 0 ? numbers : 1);
    return rows < 1 ? 1 : rows > 1024 ? 1024 : rows;
}

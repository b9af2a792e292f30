// Sizes that the operations of sparse layers and their checks must agree on.
#pragma once
#include "op.h"

constexpr int64_t MOST_BLOCK = 16384;    // numbers in a block of weights that is read at once
constexpr int64_t MOST_CHOICES = 1024;   // units of which one is chosen
constexpr int64_t MOST_PANEL = 80;       // outputs in a block of 32 inputs
constexpr int64_t DEPTH = 32;            // inputs in such a block
constexpr int64_t MOST_PIECES = 64;      // that the work of one operation is cut into

constexpr int64_t MOST_MET = 8;  // experts that a token meets

constexpr int64_t MOST_CONVOLVED = 2048;  // blocks of 32 inputs that an output reads of one token

// Floats that one token leaves for convolutions: zeros on both sides, modules up to a multiple of 16, and the end of a block.
static inline int64_t conv_slot(int64_t modules, int64_t inputs, int64_t beside) {
    return up_to((up_to(modules, 16) + 2 * beside) * inputs + 32, 32);
}

// Blocks of an output of a convolution: rows of its matrix for each panel.
static inline int64_t steps_of(const Op& op, int64_t output) {
    return op.ints[2] * (up_to(op.ints[5 + 2 * output] * op.ints[1], 32) / 32);
}

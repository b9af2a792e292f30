// Units of a feed-forward that a token has chosen. Row 2u of the matrix is what unit u multiplies the token by, row 2u + 1
// what it adds. Units are worked on many at a time, for the rows of eight come out of memory faster if all are read side by
// side than if one is read behind the other, however early it is asked for.
#pragma once
#include "dot.h"
#include "wide.h"

namespace {

// A token: where it is read, and where its units add to.
struct Chooser {
    Input x;
    float* y;
};

constexpr int64_t MOST_TOKENS = 16, MOST_UNITS = 32;  // at a time

// Up to MOST_UNITS units, and by what the product of each is multiplied. A unit whose product is not above zero adds
// nothing, and its second row is not read.
inline void add_units(const Matrix& m, const int64_t* units, const float* worth, int64_t count, const Chooser& token) {
    int64_t rows[MOST_UNITS], working = 0;
    float products[MOST_UNITS];
    for (int64_t i = 0; i < count; i++) rows[i] = 2 * units[i];
    dot_listed(m, rows, count, token.x, products);
    for (int64_t i = 0; i < count; i++) {
        if (products[i] <= 0) continue;  // a number that is none goes on
        products[working] = products[i] * worth[i];
        rows[working++] = rows[i] + 1;
    }
    add_listed(m, rows, working, products, token.y);
}

}  // namespace

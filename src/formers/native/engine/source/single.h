// Products of several rows with one vector of floats. Eight rows are read at once, for a core gets a third more out of
// memory from eight places than from one, and the rows that come next are asked for while these are summed.
#pragma once
#include "stretch.h"

namespace {
namespace packed {

constexpr int ROWS = 8;
constexpr int64_t AHEAD = 4096;  // bytes of a row that are asked for before they are used

// What is read now, and what is asked for meanwhile.
struct Reading {
    const uint8_t *now[ROWS], *next[ROWS];
};

// The rows that are multiplied: those of a list, or without one a run from the first on.
struct Place {
    const Matrix& m;
    const int64_t* list;
    int64_t first, count;

    const uint8_t* row(int64_t i) const { return m.data + (list ? list[i] : first + i) * m.stride; }
    // Eight rows from i on, the last of all repeated where there are fewer. Behind a run, the next one is asked for.
    Reading at(int64_t i) const {
        Reading reading;
        for (int64_t k = 0; k < ROWS; k++) {
            const int64_t next = i + ROWS + k;
            reading.now[k] = row(i + k < count ? i + k : count - 1);
            reading.next[k] = row(next < count || !list ? next : count - 1);
        }
        return reading;
    }
};

// Calls step(stretch, where to ask for it in advance) for `count` stretches of BYTES each of eight rows. To the
// pointers that it is given, the offset of the stretch is to be added.
template <int64_t BYTES, class Step>
INLINE void ask_ahead(const Matrix& m, const Reading& at, int64_t count, Step&& step) {
    const uint8_t* ask[ROWS];
    const int64_t bytes = value_bytes(m.type, m.columns), ahead = bytes < AHEAD ? bytes : AHEAD;
    const int64_t turn = (bytes - ahead) / BYTES;
    for (int k = 0; k < ROWS; k++) {
        for (int64_t o = bytes; o < m.stride; o += 64) __builtin_prefetch(at.next[k] + o);  // its scales
        ask[k] = at.now[k] + ahead;
    }
    for (int64_t s = 0; s < count; s++) {
        if (s == turn)
            for (int k = 0; k < ROWS; k++) ask[k] = at.next[k] - turn * BYTES;
        step(s, ask);
    }
}

// Adds one stretch of each row to its sums.
template <Type type>
INLINE void add_stretch(const Matrix& m, const Reading& at, int64_t stretch, const float* x, Floats* sums) {
    using S = Stretch<type>;
    constexpr int COUNT = S::SPAN / WIDTH, HALF = COUNT / 2;
    const int64_t place = has_scales(type) ? scale_place(m, stretch) : 0, other = m.group == 32 ? 2 : 0;
    UNROLLED
    for (int k = 0; k < ROWS; k++) {
        Floats w[COUNT], low{}, high{};
        S::read(at.now[k] + stretch * S::BYTES, w);
        if (!has_scales(type)) {
            UNROLLED
            for (int i = 0; i < COUNT; i++) sums[k] += w[i] * load<Floats>(x + i * WIDTH);
            continue;
        }
        UNROLLED
        for (int i = 0; i < HALF; i++) {
            low += w[i] * load<Floats>(x + i * WIDTH);
            high += w[HALF + i] * load<Floats>(x + (HALF + i) * WIDTH);
        }
        sums[k] += fill(of_bf16(at.now[k] + place)) * low + fill(of_bf16(at.now[k] + place + other)) * high;
    }
}

// The end of x that fills no stretch, and zeros.
template <int64_t SPAN>
struct Tail {
    float x[SPAN];
    Tail(const float* from, int64_t columns) : x() {
        for (int64_t i = columns / SPAN * SPAN; i < columns; i++) x[i % SPAN] = from[i];
    }
};

// The products as they are: the vector is used in floats.
template <Type type>
void dot_floats(const Place& place, const float* x, float* y) {
    using S = Stretch<type>;
    const Matrix& m = place.m;
    const int64_t whole = m.columns / S::SPAN;
    const Tail<S::SPAN> tail(x, m.columns);
    for (int64_t first = 0; first < place.count; first += ROWS) {
        const Reading at = place.at(first);
        Floats sums[ROWS] = {};
        const int64_t stretches = (m.columns + S::SPAN - 1) / S::SPAN;
        ask_ahead<S::BYTES>(m, at, stretches, [&](int64_t s, const uint8_t** ask) INLINE_HERE {
            UNROLLED
            for (int k = 0; k < ROWS; k++) __builtin_prefetch(ask[k] + s * S::BYTES);
            add_stretch<type>(m, at, s, s < whole ? x + s * S::SPAN : tail.x, sums);
        });
        for (int64_t k = 0; k < ROWS && first + k < place.count; k++) y[first + k] = total(sums[k]);
    }
}

}  // namespace packed
}  // namespace

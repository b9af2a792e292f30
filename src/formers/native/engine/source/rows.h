// Rows of packed matrices as floats: one as it is, or several added up.
#pragma once
#include "single.h"

namespace {
namespace packed {

// y += sum of a[k] * row k over one stretch.
template <Type type>
INLINE void add_scaled(const Matrix& m, const Reading& at, int64_t stretch, const float* a, float* y) {
    using S = Stretch<type>;
    constexpr int COUNT = S::SPAN / WIDTH;
    Floats sums[COUNT], w[COUNT];
    const int64_t place = has_scales(type) ? scale_place(m, stretch) : 0, other = m.group == 32 ? 2 : 0;
    UNROLLED
    for (int i = 0; i < COUNT; i++) sums[i] = load<Floats>(y + i * WIDTH);
    UNROLLED
    for (int k = 0; k < ROWS; k++) {
        S::read(at.now[k] + stretch * S::BYTES, w);
        const Floats low = fill(has_scales(type) ? a[k] * of_bf16(at.now[k] + place) : a[k]);
        const Floats high = has_scales(type) ? fill(a[k] * of_bf16(at.now[k] + place + other)) : low;
        UNROLLED
        for (int i = 0; i < COUNT; i++) sums[i] += (2 * i < COUNT ? low : high) * w[i];
    }
    UNROLLED
    for (int i = 0; i < COUNT; i++) store(y + i * WIDTH, sums[i]);
}

template <Type type>
void add_rows(const Place& place, const float* a, float* y) {
    using S = Stretch<type>;
    const Matrix& m = place.m;
    const int64_t whole = m.columns / S::SPAN, rest = m.columns - whole * S::SPAN;
    for (int64_t first = 0; first < place.count; first += ROWS) {
        const Reading at = place.at(first);
        float by[ROWS] = {}, end[S::SPAN] = {};
        for (int64_t k = 0; k < ROWS && first + k < place.count; k++) by[k] = a[first + k];
        ask_ahead<S::BYTES>(m, at, whole + (rest > 0), [&](int64_t s, const uint8_t** ask) INLINE_HERE {
            UNROLLED
            for (int k = 0; k < ROWS; k++) __builtin_prefetch(ask[k] + s * S::BYTES);
            add_scaled<type>(m, at, s, by, s < whole ? y + s * S::SPAN : end);
        });
        for (int64_t i = 0; i < rest; i++) y[whole * S::SPAN + i] += end[i];
    }
}

// Stretches of a row that cover columns first to first + count, as floats; first is where a stretch begins.
template <Type type>
INLINE void read_columns(const Matrix& m, const uint8_t* row, int64_t first, int64_t count, float* y) {
    using S = Stretch<type>;
    constexpr int COUNT = S::SPAN / WIDTH;
    Floats w[COUNT];
    for (int64_t c = 0; c < count; c += S::SPAN) {
        const int64_t stretch = (first + c) / S::SPAN;
        S::read(row + stretch * S::BYTES, w);
        if (has_scales(type)) {
            const uint8_t* scale = row + scale_place(m, stretch);
            const Floats low = fill(of_bf16(scale)), high = m.group == 32 ? fill(of_bf16(scale + 2)) : low;
            UNROLLED
            for (int i = 0; i < COUNT; i++) w[i] *= 2 * i < COUNT ? low : high;
        }
        UNROLLED
        for (int i = 0; i < COUNT; i++) store(y + c + i * WIDTH, w[i]);
    }
}

template <Type type>
void copy_row(const Matrix& m, const uint8_t* row, float* y) {
    constexpr int64_t SPAN = Stretch<type>::SPAN;
    const int64_t whole = m.columns / SPAN * SPAN;
    float end[SPAN];
    read_columns<type>(m, row, 0, whole, y);
    if (whole == m.columns) return;
    read_columns<type>(m, row, whole, SPAN, end);
    for (int64_t i = whole; i < m.columns; i++) y[i] = end[i - whole];
}

}  // namespace packed
}  // namespace

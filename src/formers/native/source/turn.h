// Rows turned on their side, so that vectors run over them.
#pragma once
#include "softmax.h"

namespace {

// (count, width) rows -> (width, BLOCK): from[i * row + j] goes to to[j * BLOCK + i]; lanes behind `count` become zero.
// Rows are padded to whole vectors.
inline void turn(const float* from, long row, long count, long width, float* to) {
    for (long i = 0; i < count; i += LANES)
        for (long j = 0; j < width; j += LANES) {
            Floats square[LANES];
            for (long n = 0; n < LANES; n++)
                square[n] = i + n < count ? load<Floats>(from + (i + n) * row + j) : Floats{};
            transpose(square);
            for (long n = 0; n < LANES && j + n < width; n++) store(to + (j + n) * BLOCK + i, square[n]);
        }
}

}  // namespace

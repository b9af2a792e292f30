// Squares of 16 by 16 floats, turned on their side.
#pragma once
#include "wide.h"
#ifdef __AVX512F__
#include "transpose.h"
#endif

namespace {

// Row i becomes column i.
ALWAYS_INLINE void transpose(Wide* rows) {
#ifdef __AVX512F__
    transpose(reinterpret_cast<__m512i*>(rows));
#else
    for (int i = 0; i < WIDE; i++)
        for (int j = 0; j < i; j++) {
            const float above = rows[j][i];
            rows[j][i] = rows[i][j], rows[i][j] = above;
        }
#endif
}

}  // namespace

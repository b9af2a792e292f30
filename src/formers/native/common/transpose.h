// Squares of 16 by 16 numbers of 32 bits, turned on their side. Only for sources that are compiled for AVX-512.
#pragma once
#include <immintrin.h>

namespace {

// Row i becomes column i.
inline void transpose(__m512i* rows) {
    __m512i a[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    __m512i b[16];
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {
        const __m512i even = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xDD);
        const __m512i up = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
        const __m512i down = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xDD);
        rows[i] = _mm512_shuffle_i32x4(even, up, 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(even, up, 0xDD);
        rows[i + 4] = _mm512_shuffle_i32x4(odd, down, 0x88);
        rows[i + 12] = _mm512_shuffle_i32x4(odd, down, 0xDD);
    }
}

}  // namespace

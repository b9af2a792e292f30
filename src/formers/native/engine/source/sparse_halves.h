// Rows of weights as halves (bf16): those that are stored so as they are, int8 and int4 rounded to them, which is an error
// below their own.
#pragma once
#include "dot.h"
#include "sparse_shapes.h"
#include "wide.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512BF16__

// 32 integers times their scale.
ALWAYS_INLINE void store_halves(uint16_t* to, __m512i first, __m512i second, float scale) {
    const __m512 by = _mm512_set1_ps(scale);
    const __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(first), by), b = _mm512_mul_ps(_mm512_cvtepi32_ps(second), by);
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

ALWAYS_INLINE float scale_at(const uint8_t* scales, int64_t group) {
    uint16_t half;
    __builtin_memcpy(&half, scales + 2 * group, 2);
    return (float)_mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(int32_t(half) << 16)));
}

template <Type type>
inline void integers_to_halves(const Matrix& m, int64_t row, uint16_t* halves) {
    const uint8_t *data = m.data + row * m.stride, *scales = data + value_bytes(type, m.columns);
    int64_t group = 0, left = m.group;
    for (int64_t c = 0; c < m.columns; c += 32) {
        __m512i a, b;
        if constexpr (type == Type::int8) {
            const __m128i* from = reinterpret_cast<const __m128i*>(data + c);
            a = _mm512_cvtepi8_epi32(_mm_loadu_si128(from)), b = _mm512_cvtepi8_epi32(_mm_loadu_si128(from + 1));
        } else {
            const __m128i* from = reinterpret_cast<const __m128i*>(data + c / 64 * 32);
            const __m512i low = _mm512_set1_epi32(15), middle = _mm512_set1_epi32(8);
            const __m128i shift = _mm_cvtsi32_si128(c % 64 ? 4 : 0);
            a = _mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(from)), shift);
            b = _mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(from + 1)), shift);
            a = _mm512_sub_epi32(_mm512_and_si512(a, low), middle), b = _mm512_sub_epi32(_mm512_and_si512(b, low), middle);
        }
        store_halves(halves + c, a, b, scale_at(scales, group));
        left -= 32;
        if (left == 0) group++, left = m.group;
    }
}

// m: int8 or int4. The row after the next is asked for: rows are mostly read in order.
inline void integers_to_halves(const Matrix& m, int64_t row, uint16_t* halves) {
    if (row + 2 < m.rows) prefetch_row(m, row + 2);
    m.type == Type::int8 ? integers_to_halves<Type::int8>(m, row, halves) : integers_to_halves<Type::int4>(m, row, halves);
}

#else

inline void integers_to_halves(const Matrix& m, int64_t row, uint16_t* halves) {
    alignas(64) float numbers[MOST_BLOCK];
    read_row(m, row, numbers);
    to_halves(halves, numbers, m.columns);
}

#endif

// Rows of a matrix, of up to MOST_BLOCK numbers, a multiple of 32; not of fp32.
class HalvesOf {
   public:
    explicit HalvesOf(const Matrix& m) : m_(m) {}

    // Valid until the next is read.
    const uint8_t* read(int64_t row) {
        if (m_.type == Type::bf16) return m_.data + row * m_.stride;
        integers_to_halves(m_, row, made_);
        return reinterpret_cast<const uint8_t*>(made_);
    }

   private:
    const Matrix& m_;
    alignas(64) uint16_t made_[MOST_BLOCK];
};

}  // namespace

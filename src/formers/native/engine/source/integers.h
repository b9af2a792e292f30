// Products in integers, for weights of 8 and 4 bits and one vector, where the machine has instructions for them. In
// every 64 columns (a block) the vector is rounded to integers with a scale: 16 bits for int8 (an error of 2^-16 of the
// largest number in the block), 8 bits for int4, whose weights have errors that are more than ten times as large.
#pragma once
#include "single.h"

namespace {
namespace packed {

constexpr int64_t BLOCK = 64, AT_ONCE = 16;  // columns with one scale; blocks whose scales are worked out together

// A vector in blocks of 128 bytes, behind their scales. int8: 64 numbers of 16 bits. int4: 64 of 8 bits, then what the
// sums of 8 lanes begin with, for each half: -8 times the numbers, for codes of weights are 8 too large.
struct Blocks {
    const float* scales;
    const uint8_t* data;

    Blocks(const void* memory, int64_t columns)
        : scales(static_cast<const float*>(memory)),
          data(static_cast<const uint8_t*>(memory) + up_to(up_to(columns, BLOCK) / BLOCK, AT_ONCE) * 4) {}
    static int64_t bytes(int64_t columns) {
        const int64_t blocks = up_to(columns, BLOCK) / BLOCK;
        return up_to(blocks, AT_ONCE) * 4 + blocks * 128;
    }
};

// Rounds one block to whole numbers of at most `most`. Where a number is not finite, the scale is none either, so that
// no product hides it.
INLINE float round_block(const float* x, float most, int32_t* whole) {
    float largest = 0, probe = 0;
    for (int i = 0; i < BLOCK; i++) {
        const float size = __builtin_fabsf(x[i]);
        largest = size > largest ? size : largest;
        probe += x[i] * 0.0f;
    }
    const float by = largest > 0 ? most / largest : 0, middle = 12582912.0f;  // 1.5 * 2^23: adding it rounds
    for (int i = 0; i < BLOCK; i++) {
        const float shifted = x[i] * by + middle;
        int32_t bits;
        __builtin_memcpy(&bits, &shifted, 4);
        whole[i] = bits - 0x4B400000;
    }
    return largest / most + probe;
}

template <Type type>
void make_blocks(const float* x, int64_t columns, void* memory) {
    const int64_t blocks = up_to(columns, BLOCK) / BLOCK, scales = up_to(blocks, AT_ONCE);
    float* scale = static_cast<float*>(memory);
    for (int64_t n = blocks; n < scales; n++) scale[n] = 0;
    for (int64_t n = 0; n < blocks; n++) {
        uint8_t* to = static_cast<uint8_t*>(memory) + scales * 4 + n * 128;
        const Tail<BLOCK> tail(x, n == columns / BLOCK ? columns : 0);
        int32_t whole[BLOCK];
        scale[n] = round_block(n == columns / BLOCK ? tail.x : x + n * BLOCK, type == Type::int8 ? 32767 : 127, whole);
        if (type == Type::int8) {
            int16_t codes[BLOCK];
            for (int i = 0; i < BLOCK; i++) codes[i] = int16_t(whole[i]);
            __builtin_memcpy(to, codes, sizeof codes);
        } else {
            int8_t codes[BLOCK];
            int32_t starts[16];
            for (int i = 0; i < BLOCK; i++) codes[i] = int8_t(whole[i]);
            for (int i = 0; i < 16; i++) {
                uint32_t sum = 0;  // without a sign, for numbers that are not finite may have become anything
                for (int j = 0; j < 4; j++) sum += uint32_t(whole[4 * i + j]);
                starts[i] = int32_t(0u - 8 * sum);
            }
            __builtin_memcpy(to, codes, sizeof codes);
            __builtin_memcpy(to + 64, starts, sizeof starts);
        }
    }
}

#if defined(__AVX2__)
#define HAS_INTEGERS 1

typedef float Eight __attribute__((vector_size(32)));
typedef uint32_t EightBits __attribute__((vector_size(32)));

// The scales of `count` blocks, at most 16, from the first on, a multiple of 16, times those of the vector: of the
// first and the second half of each block. What is read behind the last block is the padding of the row.
template <bool fine>
INLINE void scales_of(const Matrix& m, const uint8_t* row, int64_t first, int64_t count, const float* by,
                      float (*to)[AT_ONCE]) {
    const uint8_t* scales = row + value_bytes(m.type, m.columns);
    if (!fine && m.group != BLOCK) {
        for (int64_t i = 0; i < count; i++)
            to[0][i] = of_bf16(scales + (first + i) * BLOCK / m.group * 2) * by[first + i];
        return;
    }
    for (int64_t i = 0; i < count; i += 8) {
        const Eight of_vector = load<Eight>(by + first + i);
        if (fine) {
            const EightBits both = load<EightBits>(scales + 4 * (first + i));
            store(to[0] + i, (Eight)(both << 16) * of_vector);
            store(to[1] + i, (Eight)(both & 0xFFFF0000) * of_vector);
        } else {
            const __m256i wide = _mm256_cvtepu16_epi32(load<__m128i>(scales + 2 * (first + i)));
            store(to[0] + i, (Eight)_mm256_slli_epi32(wide, 16) * of_vector);
        }
    }
}

// sum + products of a block's weights with the vector, in lanes. `low`, `high`: of its halves.
template <Type>
struct Integers;

template <>
struct Integers<Type::int8> {
#if defined(__AVX512BW__)
    using Lanes = Floats;
    static INLINE __m512i add(__m512i sum, const uint8_t* w, const uint8_t* x) {
        const __m512i wide = _mm512_cvtepi8_epi16(load<__m256i>(w));
#if defined(__AVX512VNNI__)
        return _mm512_dpwssd_epi32(sum, wide, load<__m512i>(x));
#else
        return _mm512_add_epi32(sum, _mm512_madd_epi16(wide, load<__m512i>(x)));
#endif
    }
    static INLINE __m512i zero() { return _mm512_setzero_si512(); }
    static INLINE Lanes floats(__m512i x) { return (Lanes)_mm512_cvtepi32_ps(x); }
#else
    using Lanes = Eight;
    static INLINE __m256i add(__m256i sum, const uint8_t* w, const uint8_t* x) {
        const __m256i first = _mm256_cvtepi8_epi16(load<__m128i>(w));
        const __m256i second = _mm256_cvtepi8_epi16(load<__m128i>(w + 16));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(first, load<__m256i>(x)));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(second, load<__m256i>(x + 32)));
    }
    static INLINE __m256i zero() { return _mm256_setzero_si256(); }
    static INLINE Lanes floats(__m256i x) { return (Lanes)_mm256_cvtepi32_ps(x); }
#endif
    template <bool fine>
    static INLINE Lanes dot(const uint8_t* w, const uint8_t* x, float low, float high) {
        const auto half = add(zero(), w, x);
        if (!fine) return floats(add(half, w + 32, x + 64)) * (low - Lanes{});
        return floats(half) * (low - Lanes{}) + floats(add(zero(), w + 32, x + 64)) * (high - Lanes{});
    }
};

template <>
struct Integers<Type::int4> {
    using Lanes = Eight;
    static INLINE __m256i add(__m256i sum, __m256i codes, const uint8_t* x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
        return _mm256_dpbusd_epi32(sum, codes, load<__m256i>(x));
#else
        const __m256i pairs = _mm256_maddubs_epi16(codes, load<__m256i>(x));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
    }
    static INLINE Lanes floats(__m256i x) { return (Lanes)_mm256_cvtepi32_ps(x); }

    template <bool fine>
    static INLINE Lanes dot(const uint8_t* w, const uint8_t* x, float low, float high) {
        const __m256i both = load<__m256i>(w), mask = _mm256_set1_epi8(15);
        const __m256i first = _mm256_and_si256(both, mask), second = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        const __m256i half = add(load<__m256i>(x + 64), first, x);
        if (!fine) return floats(add(_mm256_add_epi32(half, load<__m256i>(x + 96)), second, x + 32)) * (low - Lanes{});
        return floats(half) * (low - Lanes{}) + floats(add(load<__m256i>(x + 96), second, x + 32)) * (high - Lanes{});
    }
};

template <Type type, bool fine>
void dot_integers(const Place& place, const Blocks& x, float* y) {
    using S = Stretch<type>;
    const Matrix& m = place.m;
    const int64_t blocks = up_to(m.columns, BLOCK) / BLOCK;
    for (int64_t first = 0; first < place.count; first += ROWS) {
        const Reading at = place.at(first);
        typename Integers<type>::Lanes sums[ROWS] = {};
        alignas(64) float by[ROWS][2][AT_ONCE];
        ask_ahead<S::BYTES>(m, at, blocks, [&](int64_t s, const uint8_t** ask) INLINE_HERE {
            const int64_t one = s % AT_ONCE, left = blocks - s < AT_ONCE ? blocks - s : AT_ONCE;
            if (one == 0)
                for (int k = 0; k < ROWS; k++) scales_of<fine>(m, at.now[k], s, left, x.scales, by[k]);
            UNROLLED
            for (int k = 0; k < ROWS; k++) {
                __builtin_prefetch(ask[k] + s * S::BYTES);
                const uint8_t *w = at.now[k] + s * S::BYTES, *block = x.data + s * 128;
                sums[k] += Integers<type>::template dot<fine>(w, block, by[k][0][one], by[k][fine ? 1 : 0][one]);
            }
        });
        for (int64_t k = 0; k < ROWS && first + k < place.count; k++) y[first + k] = total(sums[k]);
    }
}

template <Type type>
void dot_blocks(const Place& place, const Blocks& x, float* y) {
    (place.m.group == 32 ? dot_integers<type, true> : dot_integers<type, false>)(place, x, y);
}

#endif

}  // namespace packed
}  // namespace

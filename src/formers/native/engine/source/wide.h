// Arithmetic on runs of floats, 16 at a time: the compiler makes of a Wide what the machine has. Runs may begin anywhere.
#pragma once
#include "activation.h"
#include "halves.h"
#include "op.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

typedef float Wide __attribute__((vector_size(64)));
typedef float LooseWide __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t WideInts __attribute__((vector_size(64)));
constexpr int64_t WIDE = 16;

template <class T>
ALWAYS_INLINE T least(T a, T b) {
    return a < b ? a : b;
}

template <class T>
ALWAYS_INLINE T most(T a, T b) {
    return a > b ? a : b;
}

ALWAYS_INLINE Wide load_wide(const float* x) { return *reinterpret_cast<const LooseWide*>(x); }
ALWAYS_INLINE void store_wide(float* x, const Wide& value) { *reinterpret_cast<LooseWide*>(x) = value; }

// One number, or 16, of those that may be halves (bf16).
ALWAYS_INLINE float number_of(float x) { return x; }
ALWAYS_INLINE float number_of(uint16_t half) { return float_of(uint32_t(half) << 16); }

ALWAYS_INLINE Wide load_wide(const uint16_t* halves) {
#ifdef __AVX512F__
    return (Wide)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves))), 16);
#else
    float x[WIDE];
    for (int64_t i = 0; i < WIDE; i++) x[i] = number_of(halves[i]);
    return load_wide(x);
#endif
}

// Quarters are added up, then their lanes.
ALWAYS_INLINE float sum_of(const Wide& x) {
    typedef float Quarter __attribute__((vector_size(16)));
    Quarter parts[4];
    __builtin_memcpy(parts, &x, sizeof parts);
    const Quarter sums = (parts[0] + parts[1]) + (parts[2] + parts[3]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The sums of 16 of them.
ALWAYS_INLINE Wide sums_of_all(const Wide* x) {
    Wide sums[WIDE];
#ifdef __AVX512F__
    // Lane i of two halves is from the first or the second one, as a bit of i says; behind four rounds it is from number i.
    const __m512i first[] = {_mm512_setr_epi32(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                             _mm512_setr_epi32(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                             _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                             _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)};
    for (int i = 0; i < WIDE; i++) sums[i] = x[i];
    for (int round = 0, count = WIDE / 2; round < 4; round++, count /= 2)
        for (int i = 0; i < count; i++) {
            const __m512 a = (__m512)sums[2 * i], b = (__m512)sums[2 * i + 1];
            const __m512i second = _mm512_add_epi32(first[round], _mm512_set1_epi32(1 << round));
            sums[i] = (Wide)_mm512_permutex2var_ps(a, first[round], b) + (Wide)_mm512_permutex2var_ps(a, second, b);
        }
#else
    for (int i = 0; i < WIDE; i++) sums[0][i] = sum_of(x[i]);
#endif
    return sums[0];
}

// Sum of x[i] * y[i].
inline float dot_run(const float* x, const float* y, int64_t count) {
    Wide a = {}, b = {};
    int64_t i = 0;
    for (; i + 2 * WIDE <= count; i += 2 * WIDE) {
        a += load_wide(x + i) * load_wide(y + i);
        b += load_wide(x + i + WIDE) * load_wide(y + i + WIDE);
    }
    for (; i + WIDE <= count; i += WIDE) a += load_wide(x + i) * load_wide(y + i);
    float sum = sum_of(a + b);
    for (; i < count; i++) sum += x[i] * y[i];
    return sum;
}

inline float sum_run(const float* x, int64_t count) {
    Wide a = {};
    int64_t i = 0;
    for (; i + WIDE <= count; i += WIDE) a += load_wide(x + i);
    float sum = sum_of(a);
    for (; i < count; i++) sum += x[i];
    return sum;
}

// y += a * x
inline void add_scaled(float* y, float a, const float* x, int64_t count) {
    int64_t i = 0;
    for (; i + WIDE <= count; i += WIDE) store_wide(y + i, load_wide(y + i) + a * load_wide(x + i));
    for (; i < count; i++) y[i] += a * x[i];
}

inline void scale_run(float* y, float a, int64_t count) {
    int64_t i = 0;
    for (; i + WIDE <= count; i += WIDE) store_wide(y + i, a * load_wide(y + i));
    for (; i < count; i++) y[i] *= a;
}

inline void copy_run(float* y, const float* x, int64_t count) { __builtin_memcpy(y, x, count * sizeof(float)); }

// Where `which` is all ones, yes, and where it is 0, no.
ALWAYS_INLINE Wide pick(const WideInts& which, const Wide& yes, const Wide& no) {
    return Wide((which & WideInts(yes)) | (~which & WideInts(no)));
}

// Lane by lane; b where one is NaN.
ALWAYS_INLINE Wide larger(const Wide& a, const Wide& b) {
#ifdef __AVX512F__
    return (Wide)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return pick(a > b, a, b);
#endif
}

// The largest of `count` numbers and of what fills the last 16 of them up.
ALWAYS_INLINE float largest_of(const float* x, int64_t count) {
    Wide tops = load_wide(x);
    for (int64_t i = WIDE; i < count; i += WIDE) tops = larger(load_wide(x + i), tops);
    float top = tops[0];
    for (int i = 1; i < WIDE; i++) top = most(top, tops[i]);
    return top;
}

// e^x to the last digit or two: x = n log 2 + r, a polynomial for r, and n put into the exponent. NaN stays NaN.
ALWAYS_INLINE Wide exponential(Wide x) {
    x = pick(x > 88.0f, Wide{} + 88.0f, x);
    x = pick(x < -87.0f, Wide{} - 87.0f, x);
    const Wide shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to a whole number
    const Wide n = shifted - 12582912.0f;
    const Wide r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Wide y = r * 1.9875691e-4f + 1.3981999e-3f;
    y = y * r + 8.3334519e-3f;
    y = y * r + 4.1665796e-2f;
    y = y * r + 1.6666665e-1f;
    y = y * r + 5.0000001e-1f;
    y = y * r * r + r + 1.0f;
    const WideInts power = (WideInts(shifted) - 0x4B400000 + 127) << 23;
    return y * Wide(power);
}

ALWAYS_INLINE Wide sigmoid(const Wide& x) { return 1.0f / (1.0f + exponential(-x)); }

// The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
ALWAYS_INLINE Wide error_function(const Wide& x) {
    const Wide size = pick(x < 0.0f, -x, x);
    const Wide t = 1.0f / (1.0f + 0.3275911f * size);
    Wide y = 1.061405429f * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    y = 1.0f - y * t * exponential(-size * size);
    return pick(x < 0.0f, -y, y);
}

template <int64_t activation>
ALWAYS_INLINE Wide activated(const Wide& x) {
    if (activation == relu) return pick(x < 0.0f, Wide{}, x);
    if (activation == silu) return x * sigmoid(x);
    if (activation == gelu) return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
    if (activation == gelu_tanh) return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
    if (activation == gelu_sigmoid) return x * sigmoid(1.702f * x);
    if (activation == logistic) return sigmoid(x);
    return x;
}

template <int64_t activation>
void activate_run(float* y, int64_t count) {
    int64_t i = 0;
    for (; i + WIDE <= count; i += WIDE) store_wide(y + i, activated<activation>(load_wide(y + i)));
    if (i == count) return;
    float rest[WIDE] = {};
    copy_run(rest, y + i, count - i);
    store_wide(rest, activated<activation>(load_wide(rest)));
    copy_run(y + i, rest, count - i);
}

// y = activation(y), one of `Activation`
inline void activate(int64_t activation, float* y, int64_t count) {
    if (activation == relu) activate_run<relu>(y, count);
    if (activation == gelu) activate_run<gelu>(y, count);
    if (activation == gelu_tanh) activate_run<gelu_tanh>(y, count);
    if (activation == gelu_sigmoid) activate_run<gelu_sigmoid>(y, count);
    if (activation == silu) activate_run<silu>(y, count);
    if (activation == logistic) activate_run<logistic>(y, count);
}

}  // namespace

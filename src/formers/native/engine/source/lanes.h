// Vectors of LANES numbers for the products, in the compiler's own notation.
#pragma once
#include <cstdint>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE __attribute__((always_inline)) inline
// Behind the parameters of a lambda.
#define INLINE_HERE __attribute__((always_inline))
// Before loops over vectors that must stay in registers: compilers keep them there only where all places are constants.
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

namespace {
namespace packed {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t Bits __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 2)));

template <class V, class T>
INLINE V load(const T* from) {
    V x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

template <class V, class T>
INLINE void store(T* to, V x) {
    __builtin_memcpy(to, &x, sizeof x);
}

INLINE Floats fill(float x) { return x - Floats{}; }

INLINE float of_bits(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

INLINE float of_bf16(const uint8_t* data) {
    uint16_t half;
    __builtin_memcpy(&half, data, 2);
    return of_bits(uint32_t(half) << 16);
}

// WIDTH bytes as integers, T: int8_t or uint8_t. Compilers widen bytes well in loops only, or when they are told how.
template <class T>
INLINE Ints widen(const uint8_t* bytes) {
    [[maybe_unused]] constexpr bool is_signed = T(-1) < 0;
#if defined(__AVX512F__)
    const __m128i x = load<__m128i>(bytes);
    return is_signed ? (Ints)_mm512_cvtepi8_epi32(x) : (Ints)_mm512_cvtepu8_epi32(x);
#elif defined(__AVX2__)
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    return is_signed ? (Ints)_mm256_cvtepi8_epi32(x) : (Ints)_mm256_cvtepu8_epi32(x);
#else
    int32_t wide[WIDTH];
    for (int i = 0; i < WIDTH; i++) wide[i] = T(bytes[i]);
    return load<Ints>(wide);
#endif
}

// WIDTH numbers in bf16.
INLINE Floats of_halves(const uint8_t* halves) {
#if defined(__AVX512F__)
    return (Floats)((Bits)_mm512_cvtepu16_epi32(load<__m256i>(halves)) << 16);
#elif defined(__AVX2__)
    return (Floats)((Bits)_mm256_cvtepu16_epi32(load<__m128i>(halves)) << 16);
#else
    return (Floats)(__builtin_convertvector(load<Halves>(halves), Bits) << 16);
#endif
}

// Every lane beside the one `step` away. V: floats, as many as one likes.
template <int step, class V, int... lane>
INLINE V crossed(V x, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(x, x, (lane ^ step)...);
#else
    typedef int32_t Places __attribute__((vector_size(sizeof(V))));
    return __builtin_shuffle(x, Places{(lane ^ step)...});
#endif
}

// The sum of all lanes, in as few steps as halving takes.
template <class V, int step = sizeof(V) / 8>
INLINE float total(V x) {
    x += crossed<step>(x, std::make_integer_sequence<int, sizeof(V) / 4>());
    if constexpr (step > 1)
        return total<V, step / 2>(x);
    else
        return x[0];
}

}  // namespace packed
}  // namespace

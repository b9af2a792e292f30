// Stretches of a packed row as vectors of floats, for every type of weights.
#pragma once
#include "lanes.h"
#include "matrix.h"

namespace {
namespace packed {

// The numbers that four bits stand for, in every lane; there may be more bits above them.
INLINE Floats of_nibbles(Ints codes) {
#if defined(__AVX512F__)
    const Floats numbers = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    return (Floats)_mm512_permutexvar_ps((__m512i)codes, (__m512)numbers);
#else
    return __builtin_convertvector((codes & 15) - 8, Floats);
#endif
}

// SPAN columns lie in BYTES bytes. `read` makes SPAN / WIDTH vectors of them, without their scale.
template <Type>
struct Stretch;

template <>
struct Stretch<Type::fp32> {
    static constexpr int64_t SPAN = 16, BYTES = 64;
    static INLINE void read(const uint8_t* at, Floats* to) {
        UNROLLED
        for (int i = 0; i < SPAN / WIDTH; i++) to[i] = load<Floats>(at + 4 * WIDTH * i);
    }
};

template <>
struct Stretch<Type::bf16> {
    static constexpr int64_t SPAN = 32, BYTES = 64;
    static INLINE void read(const uint8_t* at, Floats* to) {
        UNROLLED
        for (int i = 0; i < SPAN / WIDTH; i++) to[i] = of_halves(at + 2 * WIDTH * i);
    }
};

template <>
struct Stretch<Type::int8> {
    static constexpr int64_t SPAN = 64, BYTES = 64;
    static INLINE void read(const uint8_t* at, Floats* to) {
        UNROLLED
        for (int i = 0; i < SPAN / WIDTH; i++) to[i] = __builtin_convertvector(widen<int8_t>(at + WIDTH * i), Floats);
    }
};

template <>
struct Stretch<Type::int4> {
    static constexpr int64_t SPAN = 64, BYTES = 32;
    static INLINE void read(const uint8_t* at, Floats* to) {
        constexpr int HALF = SPAN / WIDTH / 2;
        UNROLLED
        for (int i = 0; i < HALF; i++) {
            const Ints codes = widen<uint8_t>(at + WIDTH * i);
            to[i] = of_nibbles(codes);
            to[HALF + i] = of_nibbles(codes >> 4);
        }
    }
};

// Where in a row the scale of a stretch of 64 columns lies. Where a group has 32 columns it is that of the first half,
// and that of the second one is behind it.
INLINE int64_t scale_place(const Matrix& m, int64_t stretch) {
    const int64_t which = m.group == 64 ? stretch : m.group == 32 ? stretch * 2 : stretch * 64 / m.group;
    return value_bytes(m.type, m.columns) + 2 * which;
}

// Calls work(type) with a constant for the type of a matrix.
template <class Work>
INLINE void for_type(Type type, Work&& work) {
    switch (type) {
        case Type::fp32: return work(std::integral_constant<Type, Type::fp32>());
        case Type::bf16: return work(std::integral_constant<Type, Type::bf16>());
        case Type::int8: return work(std::integral_constant<Type, Type::int8>());
        case Type::int4: return work(std::integral_constant<Type, Type::int4>());
    }
}

}  // namespace packed
}  // namespace

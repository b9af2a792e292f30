// Vectors of LANES numbers in the compiler's own notation, and the exponential.
#pragma once
#include <cstdint>
#include <utility>

namespace {

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));

template <class V, class T>
inline V load(const T* from) {
    V x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

template <class V, class T>
inline void store(T* to, V x) {
    __builtin_memcpy(to, &x, sizeof x);
}

inline Floats fill(float x) { return x - Floats{}; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }  // b where one is no number

inline long round_up(long count, long to) { return (count + to - 1) / to * to; }

// Of two vectors, the lanes whose number lacks the bit `step`, those of b moved up into the gaps of a (low), or those
// that have it, those of a moved down into the gaps of b (high).
template <int step, bool high, int... lane>
inline Floats blend(Floats a, Floats b, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (high ? (lane & step ? LANES + lane : lane + step)
                                               : (lane & step ? LANES + lane - step : lane))...);
#else
    return __builtin_shuffle(a, b, Ints{(high ? (lane & step ? LANES + lane : lane + step)
                                              : (lane & step ? LANES + lane - step : lane))...});
#endif
}

// Transposes a square of vectors in place: swaps ever larger blocks beside its diagonal.
template <int step = 1>
inline void transpose(Floats* rows) {
    constexpr std::make_integer_sequence<int, LANES> lanes;
    for (int i = 0; i < LANES; i++) {
        if (i & step) continue;
        const Floats a = rows[i], b = rows[i + step];
        rows[i] = blend<step, false>(a, b, lanes);
        rows[i + step] = blend<step, true>(a, b, lanes);
    }
    if constexpr (step * 2 < LANES) transpose<step * 2>(rows);
}

// The sum of a vector's numbers, in every lane.
template <int step = LANES / 2>
inline Floats summed(Floats x) {
    constexpr std::make_integer_sequence<int, LANES> lanes;
    x = blend<step, false>(x, x, lanes) + blend<step, true>(x, x, lanes);
    if constexpr (step > 1) return summed<step / 2>(x);
    return x;
}

// The largest of a vector's numbers, in every lane.
template <int step = LANES / 2>
inline Floats largest_of(Floats x) {
    constexpr std::make_integer_sequence<int, LANES> lanes;
    x = larger(blend<step, false>(x, x, lanes), blend<step, true>(x, x, lanes));
    if constexpr (step > 1) return largest_of<step / 2>(x);
    return x;
}

// Lane i: the sum of lanes 0 to i.
template <int step, int... lane>
inline Floats moved_up(Floats x, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(x, Floats{}, (lane < step ? LANES + lane : lane - step)...);
#else
    return __builtin_shuffle(x, Floats{}, Ints{(lane < step ? LANES + lane : lane - step)...});
#endif
}

template <int step = 1>
inline Floats running(Floats x) {
    x += moved_up<step>(x, std::make_integer_sequence<int, LANES>());
    if constexpr (step * 2 < LANES) return running<step * 2>(x);
    return x;
}

// exp(x) for x <= 88, within 1.1 units in the last place; 0 below -87.3, where the result would be subnormal.
// x = n ln 2 + r with n whole and |r| <= ln(2) / 2; exp(r) by a polynomial fitted for the least relative error (3e-9);
// 2^n by adding n to the exponent. A number that is none comes back as none.
inline Floats exponential(Floats x) {
    const float whole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers, which stand in the low bits
    const Floats shifted = x * 1.44269504f + whole;
    const Floats n = shifted - whole;
    const Floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    Floats p = r * 0.00138146f + 0.00836871f;
    p = p * r + 0.04166839f;
    p = p * r + 0.16666521f;
    p = p * r + 0.49999993f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    const Bits scaled = (Bits)p + ((Bits)shifted << 23);
    return x < -87.3f ? Floats{} : (Floats)scaled;
}

}  // namespace

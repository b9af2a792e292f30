// Products of up to 64 vectors with blocks of 32 inputs: by tiles where the machine multiplies those, which is several times
// faster than it can do vector by vector. Tiles take halves (bf16): weights in fp32 stay with vectors, and an input is the
// sum of two halves, which leaves 16 bits of its fraction; with int8 and int4, whose own error is far larger, of one.
#pragma once
#include "asking.h"
#include "sparse_products.h"
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define FORMERS_TILES
#include <immintrin.h>
#endif

namespace {

constexpr int64_t GROUP = 16;  // vectors
constexpr int64_t MOST_GROUPS = 4;
constexpr int64_t MOST_VECTORS_AT_ONCE = GROUP * MOST_GROUPS;
constexpr int64_t MOST_STEPS = 64;

// How inputs are stored for products with this matrix: as floats, or as two runs of halves that take the same room.
ALWAYS_INLINE bool in_halves(const Matrix& m) {
#ifdef FORMERS_TILES
    return m.type != Type::fp32;
#else
    return (void)m, false;
#endif
}

ALWAYS_INLINE int64_t input_size(const Matrix& m) { return in_halves(m) ? 2 : 4; }

// Groups of vectors. stride: bytes from vector to vector; low: bytes from an input's high half to its low one.
// Of halves, all 16 vectors of a group must be readable, whatever its size. folded: there are at most 8, and their low halves
// stand behind their high ones as vectors 8 to 15, whose sums are to be added to those of vectors 0 to 7.
struct Groups {
    int64_t count, sizes[MOST_GROUPS], stride, low;
    bool folded;
};

// A block of weights, by its row, and where the first vector of each group has the inputs that it is multiplied by.
struct BlockStep {
    int64_t row;
    const uint8_t* inputs[MOST_GROUPS];
};

// Where the sums of each group are, `stride` floats from vector to vector.
struct TileSums {
    float* data[MOST_GROUPS];
    int64_t stride;
};

// `count` numbers to where inputs are stored.
inline void store_inputs(const Matrix& m, uint8_t* to, int64_t low, const float* x, int64_t count) {
    if (!in_halves(m)) return copy_run(reinterpret_cast<float*>(to), x, count);
    uint16_t *high_halves = reinterpret_cast<uint16_t*>(to), *low_halves = reinterpret_cast<uint16_t*>(to + low);
    if (m.type == Type::bf16) {
        for (int64_t i = 0; i < count; i++) {
            const uint32_t high = bits_of(x[i]) & 0xFFFF0000;
            high_halves[i] = uint16_t(high >> 16);
            low_halves[i] = uint16_t(bits_of(x[i] - float_of(high)) >> 16);
        }
    } else {
        to_halves(high_halves, x, count);
    }
}

#ifdef FORMERS_TILES

struct alignas(64) TileShapes {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

// A constant, not a local one: GCC believes that its first 8 bytes alone are read, and would leave the others unset.
constexpr TileShapes TILE_SHAPES = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// The machine's tiles, all of 16 rows of 64 bytes, for as long as this lives.
class Tiles {
   public:
    Tiles() { _tile_loadconfig(&TILE_SHAPES); }
    ~Tiles() { _tile_release(); }
};

// Where the weights of each step are, halves [16][width][2].
struct TileSteps {
    const BlockStep* steps;
    const uint8_t* const* weights;
    int64_t count, width;
    bool low;       // inputs have low halves
    int64_t asked;  // pairs of lines with each product
};

constexpr int64_t TILE_PAIRS = 8;  // of lines, in a tile of weights

// Group t by 1 to 5 tiles of outputs from o on. As many sums at a time as there can be, since each product waits for the one
// before it.
template <int tiles>
inline void one_by_five(const TileSteps& s, const Groups& g, int64_t t, int64_t o, Asking& asking, const TileSums& sums) {
    const int64_t row = s.width * 4, stride = sums.stride * 4;
    const bool both = s.low && !g.folded;
    float* to = sums.data[t] + o * GROUP;
    _tile_loadd(0, to, stride);
    if constexpr (tiles > 1) _tile_loadd(1, to + GROUP, stride);
    if constexpr (tiles > 2) _tile_loadd(2, to + 2 * GROUP, stride);
    if constexpr (tiles > 3) _tile_loadd(3, to + 3 * GROUP, stride);
    if constexpr (tiles > 4) _tile_loadd(4, to + 4 * GROUP, stride);
    for (int64_t step = 0; step < s.count; step++) {
        const uint8_t *inputs = s.steps[step].inputs[t], *weights = s.weights[step] + o * 64;
        _tile_loadd(6, inputs, g.stride);
        if (both) _tile_loadd(7, inputs + g.low, g.stride);
#define MULTIPLY(sum)                            \
    if constexpr (tiles > sum) {                 \
        _tile_loadd(5, weights + sum * 64, row); \
        asking.pairs(s.asked);                   \
        _tile_dpbf16ps(sum, 6, 5);               \
        if (both) {                              \
            asking.pairs(s.asked);               \
            _tile_dpbf16ps(sum, 7, 5);           \
        }                                        \
    }
        MULTIPLY(0)
        MULTIPLY(1)
        MULTIPLY(2)
        MULTIPLY(3)
        MULTIPLY(4)
#undef MULTIPLY
    }
    _tile_stored(0, to, stride);
    if constexpr (tiles > 1) _tile_stored(1, to + GROUP, stride);
    if constexpr (tiles > 2) _tile_stored(2, to + 2 * GROUP, stride);
    if constexpr (tiles > 3) _tile_stored(3, to + 3 * GROUP, stride);
    if constexpr (tiles > 4) _tile_stored(4, to + 4 * GROUP, stride);
}

// Groups t and t + 1 by 1 or 2 tiles of outputs.
template <int tiles>
inline void two_by_two(const TileSteps& s, const Groups& g, int64_t t, int64_t o, Asking& asking, const TileSums& sums) {
    const int64_t row = s.width * 4, stride = sums.stride * 4;
    float *upper = sums.data[t] + o * GROUP, *lower = sums.data[t + 1] + o * GROUP;
    _tile_loadd(0, upper, stride);
    _tile_loadd(2, lower, stride);
    if constexpr (tiles > 1) _tile_loadd(1, upper + GROUP, stride);
    if constexpr (tiles > 1) _tile_loadd(3, lower + GROUP, stride);
    for (int64_t step = 0; step < s.count; step++) {
        const uint8_t *a = s.steps[step].inputs[t], *b = s.steps[step].inputs[t + 1], *weights = s.weights[step] + o * 64;
        _tile_loadd(4, weights, row);
        if constexpr (tiles > 1) _tile_loadd(5, weights + 64, row);
#define MULTIPLY(halves)                  \
    _tile_loadd(6, a + halves, g.stride); \
    asking.pairs(s.asked);                \
    _tile_dpbf16ps(0, 6, 4);              \
    if constexpr (tiles > 1) {            \
        asking.pairs(s.asked);            \
        _tile_dpbf16ps(1, 6, 5);          \
    }                                     \
    _tile_loadd(7, b + halves, g.stride); \
    asking.pairs(s.asked);                \
    _tile_dpbf16ps(2, 7, 4);              \
    if constexpr (tiles > 1) {            \
        asking.pairs(s.asked);            \
        _tile_dpbf16ps(3, 7, 5);          \
    }
        MULTIPLY(0)
        if (s.low) {
            MULTIPLY(g.low)
        }
#undef MULTIPLY
    }
    _tile_stored(0, upper, stride);
    _tile_stored(2, lower, stride);
    if constexpr (tiles > 1) _tile_stored(1, upper + GROUP, stride);
    if constexpr (tiles > 1) _tile_stored(3, lower + GROUP, stride);
}

inline void multiply_tiles(const TileSteps& s, const Groups& g, Asking& asking, const TileSums& sums) {
    asm volatile("" ::: "memory");  // the compiler does not know that tiles are read from memory
    const int64_t all = s.width / GROUP;
    int64_t t = 0;
    for (; t + 2 <= g.count; t += 2) {
        int64_t o = 0;
        for (; o + 2 <= all; o += 2) two_by_two<2>(s, g, t, o, asking, sums);
        if (o < all) two_by_two<1>(s, g, t, o, asking, sums);
    }
    if (t == g.count) return;
    switch (all) {
        case 1: return one_by_five<1>(s, g, t, 0, asking, sums);
        case 2: return one_by_five<2>(s, g, t, 0, asking, sums);
        case 3: return one_by_five<3>(s, g, t, 0, asking, sums);
        case 4: return one_by_five<4>(s, g, t, 0, asking, sums);
        case 5: return one_by_five<5>(s, g, t, 0, asking, sums);
    }
}

inline void add_by_tiles(const Matrix& m, const BlockStep* steps, int64_t count, int64_t width, const Groups& g,
                         Asking& asking, const TileSums& sums) {
    const uint8_t* weights[MOST_STEPS];
    if (m.type == Type::bf16) {
        const int64_t products = g.folded ? 1 : 2 * g.count;
        const int64_t asked = asking.is_for_any() ? (TILE_PAIRS + products - 1) / products : 0;
        for (int64_t i = 0; i < count; i++) weights[i] = m.data + steps[i].row * m.stride;
        return multiply_tiles({steps, weights, count, width, true, asked}, g, asking, sums);
    }
    constexpr int64_t AT_ONCE = 8;
    alignas(64) uint16_t halves[AT_ONCE * DEPTH * MOST_PANEL];
    for (int64_t first = 0; first < count; first += AT_ONCE) {
        const int64_t some = least(AT_ONCE, count - first);
        for (int64_t i = 0; i < some; i++) {
            uint16_t* mine = halves + i * DEPTH * width;
            integers_to_halves(m, steps[first + i].row, mine);
            weights[i] = reinterpret_cast<const uint8_t*>(mine);
        }
        multiply_tiles({steps + first, weights, some, width, false, 0}, g, asking, sums);
    }
}

#else

class Tiles {};

#endif

// Adds to the sums of every vector its inputs times their block, at each of up to MOST_STEPS steps. asking: for what will be
// read behind them.
inline void add_products(const Matrix& m, const BlockStep* steps, int64_t count, int64_t width, const Groups& g,
                         [[maybe_unused]] Asking& asking, const TileSums& sums) {
#ifdef FORMERS_TILES
    if (in_halves(m)) return add_by_tiles(m, steps, count, width, g, asking, sums);
#endif
    for (int64_t i = 0; i < count; i++)
        with_block(m, steps[i].row, width, [&](const auto& pairs) {
            for (int64_t t = 0; t < g.count; t++) {
                const Left left = {reinterpret_cast<const float*>(steps[i].inputs[t]), g.stride / int64_t(sizeof(float))};
                multiply_columns<MOST_VECTORS>(pairs, DEPTH, 0, left, g.sizes[t], {sums.data[t], sums.stride});
            }
        });
}

}  // namespace

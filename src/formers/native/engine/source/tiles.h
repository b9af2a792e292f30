// Products of a batch with tiles (AMX): 16 rows of weights meet 16 vectors at once, so a batch costs little more than
// the reading of the weights. bf16 weights: each number of a vector is the sum of two in bf16 (an error of 2^-16).
// int8: 16 bits in two parts of 8, and int4: 8 bits, with a scale for every 64 columns, as in integers.h.
#pragma once
#include "batch.h"
#include "integers.h"
#include "tile_halves.h"
#include "transposed.h"

#ifdef HAS_TILES

namespace {
namespace packed {

constexpr int64_t MOST_PAIRS = MOST_INPUTS / 2, HALF = 2;  // of groups of 16 vectors; bytes of a number

// How the parts of vectors lie in the 16 lanes of tiles: int4 has upper parts only; lower ones of int8 stand beside the
// upper ones where there is room, else in tiles of their own, as they do for bf16.
struct Lanes16 {
    bool beside, apart;

    Lanes16(Type type, int64_t batch)
        : beside(type == Type::int8 && batch <= SIDE / 2),
          apart(type == Type::bf16 || (type == Type::int8 && !beside)) {}
    int64_t tiles() const { return apart ? 2 : 1; }
};

// Vectors as tiles: one or two for every 32 columns (bf16) or 64, behind the scales of all lanes for each. Four bytes
// of a vector lie side by side, then those of the next.
struct Tiles {
    float* scales;
    uint8_t* data;

    Tiles(const void* memory, Type type, int64_t columns)
        : scales(static_cast<float*>(const_cast<void*>(memory))),
          data(reinterpret_cast<uint8_t*>(scales + (has_scales(type) ? up_to(columns, BLOCK) / BLOCK * SIDE : 0))) {}
};

// Puts 64 bytes into a lane.
INLINE void put_lane(const int8_t* from, int64_t lane, uint8_t* tile) {
    for (int r = 0; r < SIDE; r++) __builtin_memcpy(tile + (r * SIDE + lane) * 4, from + 4 * r, 4);
}

inline void split_block(const float* x, int64_t b, Type type, Lanes16 lanes, float* scales, uint8_t* tile) {
    int32_t whole[BLOCK];
    int8_t upper[BLOCK], lower[BLOCK];
    const bool is_whole = type == Type::int4;
    const float scale = round_block(x, is_whole ? 127 : 32512, whole);  // 32512: the upper part fits into 8 bits
    for (int i = 0; i < BLOCK; i++) upper[i] = int8_t(is_whole ? whole[i] : (whole[i] + 128) >> 8);
    for (int i = 0; i < BLOCK; i++) lower[i] = int8_t(whole[i]);
    put_lane(upper, b, tile);
    scales[b] = is_whole ? scale : 256 * scale;
    if (lanes.apart) put_lane(lower, b, tile + TILE_BYTES);
    if (lanes.beside) put_lane(lower, b + SIDE / 2, tile);
    if (lanes.beside) scales[b + SIDE / 2] = scale;
}

inline void make_halves(const float* x, int64_t stride, int64_t batch, int64_t columns, uint8_t* tiles) {
    for (int64_t column = 0; column < columns; column += PAIR, tiles += 2 * TILE_BYTES) {
        const uint32_t there = columns - column < PAIR ? (1u << (columns - column)) - 1 : ~0u;
        const auto read = [&](int64_t b, int64_t half) INLINE_HERE {
            return _mm512_maskz_loadu_ps(__mmask16(there >> half * SIDE), x + b * stride + column + half * SIDE);
        };
        split_vectors(batch, read, tiles);
    }
}

inline void make_tiles(Type type, const float* x, int64_t stride, int64_t batch, int64_t columns, void* memory) {
    const Tiles to(memory, type, columns);
    if (type == Type::bf16) return make_halves(x, stride, batch, columns, to.data);
    const Lanes16 lanes(type, batch);
    const int64_t count = up_to(columns, BLOCK) / BLOCK, bytes = lanes.tiles() * TILE_BYTES;
    __builtin_memset(memory, 0, to.data - static_cast<uint8_t*>(memory) + count * bytes);
    for (int64_t b = 0; b < batch; b++) {
        float end[BLOCK] = {};
        for (int64_t i = columns / BLOCK * BLOCK; i < columns; i++) end[i % BLOCK] = x[b * stride + i];
        for (int64_t n = 0; n < count; n++) {
            const float* from = (n + 1) * BLOCK > columns ? end : x + b * stride + n * BLOCK;
            split_block(from, b, type, lanes, to.scales + n * SIDE, to.data + n * bytes);
        }
    }
}

// sums[row] = the products of a row with all vectors.
inline void multiply_bf16(const Matrix& m, const uint8_t* w, const Tiles& x, Floats* sums) {
    alignas(64) float upper[SIDE * SIDE], lower[SIDE * SIDE];
    _tile_zero(4);
    _tile_zero(5);
    for (int64_t n = 0; n < up_to(m.columns, 32) / 32; n++) {
        for (int64_t k = SIDE; k < 2 * SIDE; k++) __builtin_prefetch(w + k * m.stride + n * 64);
        _tile_loadd(0, w + n * 64, m.stride);
        _tile_loadd(1, x.data + n * 2 * TILE_BYTES, 64);
        _tile_loadd(2, x.data + n * 2 * TILE_BYTES + TILE_BYTES, 64);
        _tile_dpbf16ps(4, 0, 1);
        _tile_dpbf16ps(5, 0, 2);
    }
    _tile_stored(4, upper, 64);
    _tile_stored(5, lower, 64);
    for (int k = 0; k < SIDE; k++) sums[k] = load<Floats>(upper + k * SIDE) + load<Floats>(lower + k * SIDE);
}

// Whole numbers of a unit of columns with one scale: of upper parts, and of lower ones that stand apart.
struct Whole {
    alignas(64) int32_t upper[SIDE * SIDE], lower[SIDE * SIDE];
};

// sums += the numbers of a unit; by[row * AT_ONCE]: its scales.
template <bool apart>
INLINE void add_whole(const Whole& from, const float* by, Floats scales, Floats* sums) {
    UNROLLED
    for (int k = 0; k < SIDE; k++) {
        Floats number = __builtin_convertvector(load<Ints>(from.upper + k * SIDE), Floats);
        if (apart) number += __builtin_convertvector(load<Ints>(from.lower + k * SIDE), Floats) * (1.0f / 256);
        sums[k] += number * scales * fill(by[k * AT_ONCE]);
    }
}

INLINE void open_nibbles(const Matrix& m, const uint8_t* w, uint8_t* to) {
    const __m256i mask = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    for (int k = 0; k < SIDE; k++) {
        const __m256i both = load<__m256i>(w + k * m.stride), upper = _mm256_srli_epi16(both, 4);
        store(to + k * 64, _mm256_sub_epi8(_mm256_and_si256(both, mask), eight));
        store(to + k * 64 + 32, _mm256_sub_epi8(_mm256_and_si256(upper, mask), eight));
    }
}

// Scales of 16 rows for 16 units of columns from one on.
INLINE void scales_of_units(const Matrix& m, const uint8_t* w, int64_t unit, int64_t count, float* to) {
    for (int k = 0; k < SIDE; k++) {
        const uint8_t* scales = w + k * m.stride + value_bytes(m.type, m.columns);
        if (m.group <= BLOCK)
            for (int64_t i = 0; i < AT_ONCE; i++) to[k * AT_ONCE + i] = of_bf16(scales + 2 * (unit + i));
        else
            for (int64_t i = 0; i < count; i++)
                to[k * AT_ONCE + i] = of_bf16(scales + (unit + i) * BLOCK / m.group * 2);
    }
}

// The numbers of one block: of its two units where a group has 32 columns.
template <bool fine, bool apart>
INLINE void multiply_block(const uint8_t* w, int64_t stride, const uint8_t* x, Whole* to) {
    settle();
    _tile_zero(4);
    _tile_loadd(0, w, stride);
    _tile_loadd(1, x, 64);
    _tile_dpbssd(4, 0, 1);
    if (apart) {
        _tile_zero(5);
        _tile_loadd(2, x + TILE_BYTES, 64);
        _tile_dpbssd(5, 0, 2);
    }
    if (fine) {
        _tile_zero(6);
        _tile_loadd(0, w + 32, stride);
        _tile_loadd(1, x + TILE_BYTES / 2, 64);
        _tile_dpbssd(6, 0, 1);
        if (apart) {
            _tile_zero(7);
            _tile_loadd(2, x + TILE_BYTES + TILE_BYTES / 2, 64);
            _tile_dpbssd(7, 0, 2);
            _tile_stored(7, to[1].lower, 64);
        }
        _tile_stored(6, to[1].upper, 64);
    }
    if (apart) _tile_stored(5, to[0].lower, 64);
    _tile_stored(4, to[0].upper, 64);
}

// Sums of blocks are added up one block later, so that nothing waits for the tiles.
template <Type type, bool fine, bool apart>
void multiply_integers(const Matrix& m, const uint8_t* w, const Tiles& x, Floats* sums) {
    constexpr int64_t BYTES = Stretch<type>::BYTES, UNITS = fine ? 2 : 1, TILES = apart ? 2 : 1;
    alignas(64) float by[SIDE * AT_ONCE];
    alignas(64) uint8_t opened[2][TILE_BYTES];
    Whole whole[2][UNITS];
    Floats local[SIDE] = {};
    const int64_t blocks = up_to(m.columns, BLOCK) / BLOCK;
    for (int64_t n = 0; n <= blocks; n++) {
        if (n < blocks) {
            const uint8_t *from = w + n * BYTES, *tiles = x.data + n * TILES * TILE_BYTES;
            UNROLLED
            for (int64_t k = SIDE; k < 2 * SIDE; k++) __builtin_prefetch(from + k * m.stride);
            if (type == Type::int4) open_nibbles(m, from, opened[n % 2]);
            if (type == Type::int4)
                multiply_block<fine, apart>(opened[n % 2], 64, tiles, whole[n % 2]);
            else
                multiply_block<fine, apart>(from, m.stride, tiles, whole[n % 2]);
        }
        if (n == 0) continue;
        const int64_t last = n - 1, unit = last * UNITS, left = blocks - last < AT_ONCE ? blocks - last : AT_ONCE;
        if (unit % AT_ONCE == 0) scales_of_units(m, w, unit, left, by);
        for (int64_t u = 0; u < UNITS; u++)
            add_whole<apart>(whole[last % 2][u], by + unit % AT_ONCE + u, load<Floats>(x.scales + last * SIDE), local);
    }
    for (int k = 0; k < SIDE; k++) sums[k] = local[k];
}

using Multiply = void (*)(const Matrix&, const uint8_t*, const Tiles&, Floats*);

inline Multiply multiply_for(Type type, bool fine, bool apart) {
    if (type == Type::bf16) return multiply_bf16;
    if (type == Type::int4)
        return fine ? multiply_integers<Type::int4, true, false> : multiply_integers<Type::int4, false, false>;
    if (apart) return fine ? multiply_integers<Type::int8, true, true> : multiply_integers<Type::int8, false, true>;
    return fine ? multiply_integers<Type::int8, true, false> : multiply_integers<Type::int8, false, false>;
}

// Of a run of at least 16 rows; the last 16 may overlap those before.
inline void dot_tiles(const Place& place, const Input& in, float* y, int64_t y_stride) {
    const Matrix& m = place.m;
    const Lanes16 lanes(m.type, in.batch);
    const Tiles x(in.ready, m.type, m.columns);
    const Configured tiles(m.group == 32 ? 32 : 64);
    const Multiply multiply = multiply_for(m.type, m.group == 32, lanes.apart);
    for (int64_t i = 0; i < place.count; i += SIDE) {
        const int64_t first = i + SIDE <= place.count ? i : place.count - SIDE;
        Floats sums[SIDE];
        multiply(m, place.row(first), x, sums);
        for (int64_t b = 0; b < in.batch; b++)
            for (int64_t k = 0; k < SIDE; k++)
                y[b * y_stride + first + k] = sums[k][b] + (lanes.beside ? sums[k][b + SIDE / 2] : 0);
    }
}

// Where the tiles of vectors begin that meet a column.
inline const uint8_t* tiles_of(const Input& in, const Matrix& m, int64_t column) {
    return Tiles(in.ready, m.type, m.columns).data + column / PAIR * 2 * TILE_BYTES;
}

// Sums of 32 rows with a group of vectors, to the rows of `y`, one for each vector.
inline void hand_out(const float* sums, int64_t batch, float* y, int64_t y_stride) {
    for (int64_t row = 0; row < PAIR; row += SIDE) {
        Wide square[SIDE];
        for (int64_t k = 0; k < SIDE; k++) square[k] = load_wide(sums + (row + k) * PAIR);
        transpose(square);
        for (int64_t b = 0; b < batch; b++) store_wide(y + b * y_stride + row, square[b]);
    }
}

// What asks for 32 rows from a column on; for nothing where the matrix ends.
inline Asking asking_for(const Place& place, int64_t row, int64_t column) {
    if (place.first + row + PAIR > place.m.rows) return {};
    return {place.row(row) + column * HALF, PAIR * place.m.stride, place.m.stride};
}

// `count` pairs of groups with 32 to MOST_RUN rows; the last 32 may overlap those before. Where vectors are so long that they
// would not stay in the cache from rows to rows, a part of their columns meets all rows before the next part does.
inline void dot_pairs(const Place& place, const Input* in, int64_t count, float* y, int64_t y_stride) {
    const Matrix& m = place.m;
    const Configured tiles;
    alignas(64) float sums[MOST_RUN / PAIR][MOST_PAIRS][PAIR * PAIR];
    const int64_t blocks = up_to(place.count, PAIR) / PAIR, last = place.count - PAIR;
    for (int64_t column = 0, end; column < m.columns; column = end) {
        end = least(m.columns, column + COLUMNS_AT_ONCE);
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = least(block * PAIR, last);
            Asking asking = row < last          ? asking_for(place, least(row + PAIR, last), column)
                            : end < m.columns ? asking_for(place, 0, end)
                                              : asking_for(place, row + PAIR, 0);
            const int64_t asked = asking.is_for_any() ? count > 1 ? 1 : 2 : 0;  // as many lines as are read
            for (int64_t pair = 0; pair < count; pair++) {
                const Input &a = in[2 * pair], &b = in[2 * pair + 1];
                float* const made = sums[block][pair];
                const Pairs met = {place.row(row) + column * HALF, m.stride, end - column, tiles_of(a, m, column),
                                   tiles_of(b, m, column)};
                (column ? multiply_pairs<true> : multiply_pairs<false>)(met, asked, asking, made, PAIR);
                if (end < m.columns) continue;
                hand_out(made, a.batch, y + pair * PAIR * y_stride + row, y_stride);
                hand_out(made + SIDE, b.batch, y + (pair * PAIR + SIDE) * y_stride + row, y_stride);
            }
        }
    }
}

}  // namespace packed
}  // namespace

#endif

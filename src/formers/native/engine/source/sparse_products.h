// Products with small blocks of weights, each read once for several vectors. They go the other way round than those of
// dot.h: a block is one row of a matrix and holds `depth` inputs by `width` outputs, output by output, so that a few
// vectors at a time are multiplied without sums across a vector of the machine.
//   fp32: [depth][width]. All other types, which are multiplied as halves (bf16): [depth / 2][width][2], two inputs side
//   by side for each output.
// depth is even and width a multiple of 16; ../blocks.py packs.
#pragma once
#include "sparse_halves.h"
#include "wide.h"

namespace {

#ifdef __AVX512F__
constexpr int MOST_VECTORS = 4;
#else
constexpr int MOST_VECTORS = 1;
#endif
constexpr int MOST_LEFT = 4;

// The weights of inputs i and i + 1 for outputs o to o + 15. next: the block that will be read behind this one, for which
// `ask` asks, a line or two at a time.
struct PairsOfHalves {
    const uint8_t* data;
    int64_t width;
    const uint8_t* next;
    ALWAYS_INLINE void ask(int64_t i, int64_t o) const { __builtin_prefetch(next + (i / 2 * width + o) * 4); }
    ALWAYS_INLINE void read(int64_t i, int64_t o, Wide& even, Wide& odd) const {
        WideInts both;
        __builtin_memcpy(&both, data + (i / 2 * width + o) * 4, sizeof both);
        even = (Wide)(both << 16), odd = (Wide)(both & int32_t(0xFFFF0000));
    }
};

struct PairsOfFloats {
    const float* data;
    int64_t width;
    const float* next;
    ALWAYS_INLINE void ask(int64_t i, int64_t o) const {
        __builtin_prefetch(next + i * width + o), __builtin_prefetch(next + (i + 1) * width + o);
    }
    ALWAYS_INLINE void read(int64_t i, int64_t o, Wide& even, Wide& odd) const {
        even = load_wide(data + i * width + o), odd = load_wide(data + (i + 1) * width + o);
    }
};

// Vectors `stride` floats apart.
struct Left {
    const float* data;
    int64_t stride;
};

struct Sums {
    float* data;
    int64_t stride;
};

template <int rows, int vectors, class Pairs>
ALWAYS_INLINE void multiply_tile(const Pairs& pairs, int64_t depth, int64_t o, Left left, bool ask, Sums sums) {
    Wide total[rows][vectors];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) total[r][v] = load_wide(sums.data + r * sums.stride + o + v * WIDE);
    for (int64_t i = 0; i < depth; i += 2) {
        Wide even[vectors], odd[vectors];
        for (int v = 0; v < vectors; v++) {
            if (ask) pairs.ask(i, o + v * WIDE);
            pairs.read(i, o + v * WIDE, even[v], odd[v]);
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                total[r][v] += left.data[r * left.stride + i] * even[v] + left.data[r * left.stride + i + 1] * odd[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) store_wide(sums.data + r * sums.stride + o + v * WIDE, total[r][v]);
}

template <int most, int vectors, class Pairs>
ALWAYS_INLINE void multiply_rows(const Pairs& pairs, int64_t depth, int64_t o, Left left, int64_t rows, bool ask, Sums sums) {
    for (; rows >= most; rows -= most, ask = false) {
        multiply_tile<most, vectors>(pairs, depth, o, left, ask, sums);
        left.data += most * left.stride, sums.data += most * sums.stride;
    }
    if constexpr (most > 1) {
        if (rows) multiply_rows<most - 1, vectors>(pairs, depth, o, left, rows, ask, sums);
    }
}

template <int most, class Pairs>
void multiply_columns(const Pairs& pairs, int64_t depth, int64_t o, Left left, int64_t rows, Sums sums) {
    for (; o + most * WIDE <= pairs.width; o += most * WIDE)
        multiply_rows<MOST_LEFT, most>(pairs, depth, o, left, rows, true, sums);
    if constexpr (most > 1) {
        if (o < pairs.width) multiply_columns<most - 1>(pairs, depth, o, left, rows, sums);
    }
}

// work(pairs) with the block in a row of the matrix.
template <class Work>
ALWAYS_INLINE void with_block(const Matrix& m, int64_t row, int64_t width, const Work& work) {
    const uint8_t* next = m.data + (row + 1) * m.stride;
    if (m.type == Type::fp32) {
        const float* data = reinterpret_cast<const float*>(m.data + row * m.stride);
        return work(PairsOfFloats{data, width, reinterpret_cast<const float*>(next)});
    }
    HalvesOf halves(m);
    const uint8_t* data = halves.read(row);
    work(PairsOfHalves{data, width, m.type == Type::bf16 ? next : data});
}

// sums[r][o] += sum_i left[r][i] * W[i][o], W being the block in this row of the matrix.
inline void add_block(const Matrix& m, int64_t row, int64_t depth, int64_t width, Left left, int64_t rows, Sums sums) {
    with_block(m, row, width, [&](const auto& pairs) {
        multiply_columns<MOST_VECTORS>(pairs, depth, 0, left, rows, sums);
    });
}

// y = [y +] [bias +] the sums of all pieces, `width` floats `stride` apart.
inline void join_pieces(float* y, bool add, const Vector& bias, const float* pieces, int64_t count, int64_t stride,
                        int64_t width) {
    int64_t i = 0;
    for (; i + WIDE <= width; i += WIDE) {
        Wide sum = add ? load_wide(y + i) : Wide{};
        if (bias.size) sum += load_wide(bias.data + i);
        for (int64_t p = 0; p < count; p++) sum += load_wide(pieces + p * stride + i);
        store_wide(y + i, sum);
    }
    for (; i < width; i++) {
        float sum = (add ? y[i] : 0.0f) + (bias.size ? bias.data[i] : 0.0f);
        for (int64_t p = 0; p < count; p++) sum += pieces[p * stride + i];
        y[i] = sum;
    }
}

// The first of `count` items in the given one of `pieces` pieces of about equal size; that of piece `pieces` is `count`.
ALWAYS_INLINE int64_t first_of(int64_t piece, int64_t pieces, int64_t count) { return count * piece / pieces; }

}  // namespace

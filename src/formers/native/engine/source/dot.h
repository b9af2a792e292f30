// Products with packed matrices, the bulk of decoding: they run at the speed at which weights can be read.
// Sums are in fp32. Nothing is checked here: whoever makes a Matrix or a list of rows has checked it (matrix.h).
#pragma once
#include "matrix.h"

namespace {

constexpr int64_t MOST_BATCH = 16;
constexpr int64_t MOST_INPUTS = 4, MOST_RUN = 128;  // and rows that meet them together
constexpr int64_t COLUMNS_AT_ONCE = 2048;           // of theirs, where they have more

// `batch` vectors, `stride` floats apart, 1 to 16. ready: made from them by `prepare`, for matrices of one type, width
// and group; nullptr: they are used as they are, which is always right, and slower for some types.
struct Input {
    const float* x;
    int64_t stride, batch;
    const void* ready;
};

// Brings vectors into the form in which the products with matrices like this one read them. memory: `input_bytes`
// bytes from a multiple of 64; it and x must outlive the result.
Input prepare(const Matrix& like, const float* x, int64_t stride, int64_t batch, void* memory);

// y[b * y_stride + i] = dot(W[first + i], x[b]) for i in 0..count and every b. Each weight is read once.
void dot_rows(const Matrix&, int64_t first, int64_t count, const Input&, float* y, int64_t y_stride);

// The same of up to MOST_RUN rows for up to MOST_INPUTS inputs, each of 16 vectors but for the last, whose products stand behind
// one another.
void dot_rows(const Matrix&, int64_t first, int64_t count, const Input* inputs, int64_t many, float* y, int64_t y_stride);

// y[i] = dot(W[rows[i]], x[0]).
void dot_listed(const Matrix&, const int64_t* rows, int64_t count, const Input&, float* y);

// y += sum_i a[i] * W[rows[i]].
void add_listed(const Matrix&, const int64_t* rows, int64_t count, const float* a, float* y);

// One row as floats.
void read_row(const Matrix&, int64_t row, float* y);

// Asks for a row that will be wanted soon, and does not wait for it.
inline void prefetch_row(const Matrix& m, int64_t row) {
    const uint8_t* data = m.data + row * m.stride;
    for (int64_t byte = 0; byte < m.stride; byte += 64) __builtin_prefetch(data + byte, 0, 2);
}

inline void dot_rows(const Matrix& m, int64_t first, int64_t count, const float* x, int64_t x_stride, int64_t batch,
                     float* y, int64_t y_stride) {
    dot_rows(m, first, count, {x, x_stride, batch, nullptr}, y, y_stride);
}

inline void dot_listed(const Matrix& m, const int64_t* rows, int64_t count, const float* x, float* y) {
    dot_listed(m, rows, count, {x, 0, 1, nullptr}, y);
}

}  // namespace

#include "batch.h"
#include "integers.h"
#include "tiles.h"

namespace {
namespace packed {

// In which form vectors are read: as they are, in blocks of integers each on its own, or in tiles.
enum class Form { floats, blocks, tiles };

constexpr int64_t FEW = 3;  // up to so many vectors are faster one by one in integers than together in floats

inline Form form_of([[maybe_unused]] Type type, [[maybe_unused]] int64_t batch) {
#ifdef HAS_TILES
    if (type != Type::fp32 && batch > 1) return Form::tiles;
#endif
#ifdef HAS_INTEGERS
    if (has_scales(type) && batch <= FEW) return Form::blocks;
#endif
    return Form::floats;
}

#ifdef HAS_INTEGERS
inline void dot_one(const Place& place, const Input& in, int64_t b, float* y) {
    const Blocks x(static_cast<const uint8_t*>(in.ready) + b * Blocks::bytes(place.m.columns), place.m.columns);
    (place.m.type == Type::int8 ? dot_blocks<Type::int8> : dot_blocks<Type::int4>)(place, x, y);
}
#endif

// Where vectors were made ready for these products: does them.
inline bool dot_ready(const Place& place, const Input& in, [[maybe_unused]] float* y, [[maybe_unused]] int64_t y_stride) {
    [[maybe_unused]] const Form form = in.ready ? form_of(place.m.type, in.batch) : Form::floats;
#ifdef HAS_TILES
    if (form == Form::tiles && !place.list && place.count >= SIDE) {
        dot_tiles(place, in, y, y_stride);
        return true;
    }
#endif
#ifdef HAS_INTEGERS
    if (form == Form::blocks) {
        for (int64_t b = 0; b < in.batch; b++) dot_one(place, in, b, y + b * y_stride);
        return true;
    }
#endif
    return false;
}

inline void dot_any(const Place& place, const Input& in, float* y, int64_t y_stride) {
    if (place.count < 1 || dot_ready(place, in, y, y_stride)) return;
    for_type(place.m.type, [&](auto type) {
        if (in.batch == 1)
            dot_floats<type()>(place, in.x, y);
        else
            dot_batch<type()>(place, in, y, y_stride);
    });
}

}  // namespace packed

Input prepare(const Matrix& like, const float* x, int64_t stride, int64_t batch, void* memory) {
    const packed::Form form = packed::form_of(like.type, batch);
#ifdef HAS_TILES
    if (form == packed::Form::tiles) packed::make_tiles(like.type, x, stride, batch, like.columns, memory);
#endif
    for (int64_t b = 0; form == packed::Form::blocks && b < batch; b++) {
        void* to = static_cast<uint8_t*>(memory) + b * packed::Blocks::bytes(like.columns);
        const auto make = like.type == Type::int8 ? packed::make_blocks<Type::int8> : packed::make_blocks<Type::int4>;
        make(x + b * stride, like.columns, to);
    }
    return {x, stride, batch, form == packed::Form::floats ? nullptr : memory};
}

void dot_rows(const Matrix& m, int64_t first, int64_t count, const Input& in, float* y, int64_t y_stride) {
    packed::dot_any({m, nullptr, first, count}, in, y, y_stride);
}

void dot_rows(const Matrix& m, int64_t first, int64_t count, const Input* inputs, int64_t many, float* y,
              int64_t y_stride) {
    int64_t i = 0;
#ifdef HAS_TILES
    if (m.type == Type::bf16 && many > 1 && count >= 2 * packed::SIDE) {
        i = (many - (inputs[many - 1].batch == 1)) / 2 * 2;  // a vector by itself is not made ready for tiles
        packed::dot_pairs({m, nullptr, first, count}, inputs, i / 2, y, y_stride);
    }
#endif
    for (; i < many; i++) dot_rows(m, first, count, inputs[i], y + i * MOST_BATCH * y_stride, y_stride);
}

void dot_listed(const Matrix& m, const int64_t* rows, int64_t count, const Input& in, float* y) {
    packed::dot_any({m, rows, 0, count}, {in.x, in.stride, 1, in.batch == 1 ? in.ready : nullptr}, y, 0);
}

void add_listed(const Matrix& m, const int64_t* rows, int64_t count, const float* a, float* y) {
    packed::for_type(m.type, [&](auto type) { packed::add_rows<type()>({m, rows, 0, count}, a, y); });
}

void read_row(const Matrix& m, int64_t row, float* y) {
    packed::for_type(m.type, [&](auto type) { packed::copy_row<type()>(m, m.data + row * m.stride, y); });
}

}  // namespace

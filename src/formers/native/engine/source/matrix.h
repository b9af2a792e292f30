// A packed matrix of weights: row-major, each row one run of bytes, so that a row gathered on its own is one read.
// A row holds its values, then its scales, and is padded so that rows start 64 bytes apart or a multiple of it.
//   fp32, bf16: the numbers themselves; no group, no scales.
//   int8: a signed byte q for each column. int4: q + 8 in half a byte; in every 32 bytes the low halves are columns 0 to
//   31 and the high ones columns 32 to 63. A weight is q * scale.
//   scales: bf16, one for every `group` columns, the last group may be shorter.
// Values are padded with zeros to a multiple of 64 bytes (int4: 32), so whole vectors can be read.
// ../weights.py packs: the two must agree.
#pragma once
#include <cstdint>

enum class Type : int32_t { fp32, bf16, int8, int4 };

struct Matrix {
    const uint8_t* data;
    int64_t rows, columns, stride;  // stride: bytes from row to row
    Type type;
    int64_t group;  // columns that share a scale: 32 or a multiple of 64; 0 for fp32 and bf16
};

static constexpr bool has_scales(Type type) { return type == Type::int8 || type == Type::int4; }

static constexpr int64_t up_to(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Bytes of the values in a row, with their padding; the scales follow.
static constexpr int64_t value_bytes(Type type, int64_t columns) {
    switch (type) {
        case Type::fp32: return up_to(columns * 4, 64);
        case Type::bf16: return up_to(columns * 2, 64);
        case Type::int8: return up_to(columns, 64);
        case Type::int4: return up_to(columns, 64) / 2;
    }
    return 0;
}

// Bytes from one row to the next.
static constexpr int64_t row_bytes(Type type, int64_t columns, int64_t group) {
    const int64_t scales = has_scales(type) ? (columns + group - 1) / group * 2 : 0;
    return up_to(value_bytes(type, columns) + scales, 64);
}

// Memory that `prepare` (dot.h) needs for a batch of inputs, whatever the type of the matrix and the kernel.
static constexpr int64_t input_bytes(int64_t columns, int64_t batch) {
    return up_to(columns, 64) * 4 * (batch > 1 ? 16 : 1) + up_to(columns, 64) / 4 * (batch > 1 ? 16 : 1) + 256;
}

// What is wrong with a matrix in `bytes` bytes of memory; nullptr where nothing is.
static inline const char* problem_of(const Matrix& m, int64_t bytes) {
    constexpr int64_t MOST = int64_t(1) << 40;
    if (int32_t(m.type) < 0 || int32_t(m.type) > int32_t(Type::int4)) return "the type of the weights is unknown";
    if (m.rows < 1 || m.columns < 1 || m.rows > MOST || m.columns > MOST) return "a matrix must have rows and columns";
    if (has_scales(m.type) ? m.group != 32 && (m.group < 64 || m.group % 64 || m.group > MOST) : m.group != 0)
        return "a group must be 32 or a multiple of 64 columns for int8 and int4, and 0 for fp32 and bf16";
    if (m.stride % 64 || m.stride < row_bytes(m.type, m.columns, m.group)) return "rows of the matrix are too short";
    if (!m.data || m.rows > bytes / m.stride) return "the memory of the matrix is too short for its rows";
    return nullptr;
}

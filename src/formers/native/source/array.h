// Tensors as Python hands them over.
#pragma once
#include <cstdint>

// A tensor whose last dimension is contiguous; strides are counted in elements, 0 where a dimension is expanded.
// `row` steps over tokens where the last dimension is a head's width, over rounds where it is the sequence.
struct Array {
    void* data;
    int64_t batch, head, row;
};

template <class T>
static inline T* row_of(const Array& array, int64_t batch, int64_t head, int64_t row) {
    return static_cast<T*>(array.data) + batch * array.batch + head * array.head + row * array.row;
}

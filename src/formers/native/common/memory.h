// Memory that gives itself back.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

inline Memory aligned(int64_t bytes) {
    void* memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!memory) throw std::bad_alloc();
    return Memory(memory);
}

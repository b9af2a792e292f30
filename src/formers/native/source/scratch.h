// Memory that a thread works in.
#pragma once
#include "vector.h"

namespace {

// Hands out pieces of a thread's scratch memory, or only counts how much is wanted.
struct Scratch {
    char* next;
    bool counting = false;
    template <class T>
    T* take(long count) {
        char* piece = next;
        next += round_up(count * sizeof(T), 64);
        return reinterpret_cast<T*>(piece);
    }
};

}  // namespace

// How fast this machine reads memory, for decoding to be measured by.
#pragma once
#include <cstdint>

// Bytes a second: the best of some passes over `bytes` bytes, shared among threads as products share their rows. Throws
// std::bad_alloc where there is not as much memory.
double bandwidth(int64_t bytes, int64_t threads);

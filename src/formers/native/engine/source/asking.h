// Memory that will be read soon, asked for while something else is computed.
#pragma once
#include "wide.h"

namespace {

// Two lines of each page in turn. A core that asks line after line waits for a free place at each sixteenth; asked for from
// several pages at once, the processor's own prefetching runs ahead in all of them, and memory comes nearly as fast as if
// nothing else were going on. Nine pages are best, or a few more.
class Asking {
   public:
    static constexpr int64_t PAIR = 128, PAGE = 4096;
    static constexpr int64_t pairs_in(int64_t bytes) { return (bytes + PAIR - 1) / PAIR; }

    // For nothing, or for these bytes, or for the first columns of rows that are `leap` bytes apart. Who asks for more than there
    // is asks for some of it again.
    Asking() = default;
    Asking(const void* data, int64_t bytes, int64_t leap = PAGE)
        : first_(static_cast<const uint8_t*>(data)), next_(first_), end_(first_ + bytes), leap_(leap) {}

    bool is_for_any() const { return next_ < end_; }

    ALWAYS_INLINE void pair() {
        __builtin_prefetch(next_, 0, 2), __builtin_prefetch(next_ + PAIR / 2, 0, 2);
        next_ += leap_;
        if (next_ >= end_) next_ = first_ += PAIR;
    }

    ALWAYS_INLINE void pairs(int64_t count) {
        for (int64_t i = 0; i < count; i++) pair();
    }

   private:
    const uint8_t *first_ = nullptr, *next_ = nullptr, *end_ = nullptr;
    int64_t leap_ = PAGE;
};

// Asks for all of it at once.
inline void ask_for_all(const uint8_t* data, int64_t bytes) {
    constexpr int64_t PAGES = 9 * Asking::PAGE;
    for (int64_t first = 0; first < bytes; first += PAGES) {
        const int64_t some = least(PAGES, bytes - first);
        Asking(data + first, some).pairs(Asking::pairs_in(some));
    }
}

}  // namespace

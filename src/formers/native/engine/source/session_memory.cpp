// The memory of streams, which grows with their tokens.
#include "session.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace {

constexpr int64_t FIRST_ROOM = 64;  // slots that a growing cache begins with

}  // namespace

Memory::Memory(int64_t bytes) {
    constexpr uintptr_t LINE = 64;
    if (bytes > (int64_t(1) << 44)) throw std::bad_alloc();
    memory_.reset(std::calloc(size_t(bytes) + LINE, 1));
    if (!memory_) throw std::bad_alloc();
    data_ = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory_.get()) + LINE - 1) / LINE * LINE);
}

// Memory for `more` tokens, at most MOST_ROWS, in everything that the stream keeps.
void Session::make_room(int64_t stream, int64_t more) {
    const auto& caches = program_->shapes().caches;
    for (size_t cache = 0; cache < caches.size(); cache++) {
        Slots& slots = slots_[cache * lengths_.size() + stream];
        const Keep keep = caches[cache].keep;
        if (keep == Keep::growing && lengths_[stream] + more > slots.capacity)
            grow(int64_t(cache), stream, lengths_[stream] + more);
        else if (keep == Keep::rolling && !slots.data)
            grow(int64_t(cache), stream, caches[cache].capacity + MOST_ROWS);
        else if (keep == Keep::fixed && !slots.data)
            grow(int64_t(cache), stream, caches[cache].capacity);
    }
}

void Session::grow(int64_t cache, int64_t stream, int64_t needed) {
    const CacheShape& shape = program_->shapes().caches[cache];
    const Slots old = slots_[cache * lengths_.size() + stream];
    int64_t capacity = needed;
    if (shape.keep == Keep::growing) {
        capacity = std::max({needed, 2 * old.capacity, FIRST_ROOM});
        const int64_t length = program_->shapes().length;
        if (room_) capacity = std::min(capacity, room_);
        if (length && program_->entry() < 0) capacity = std::min(capacity, length);
    }
    const int64_t slot = shape.slot_bytes();
    Memory memory(shape.heads * capacity * slot);
    for (int64_t h = 0; old.data && h < shape.heads; h++)
        std::memcpy(memory.data() + h * capacity * slot, old.data + h * old.capacity * slot, size_t(lengths_[stream] * slot));
    hold(cache, stream, std::move(memory), capacity, 0);
}

void Session::hold(int64_t cache, int64_t stream, Memory memory, int64_t capacity, int64_t length) {
    const CacheShape& shape = program_->shapes().caches[cache];
    const size_t i = cache * lengths_.size() + stream;
    memory_[i] = std::move(memory), slots_[i] = {memory_[i].data(), capacity, length, shape.type};
    bytes_[i] = shape.heads * capacity * shape.slot_bytes();
}

// Fetches the rows that the next chunk will ask for into the cache, a few at a time, while this one is computed.
// They are gathered in the order of buckets, so hardware cannot foresee them: waiting cost a sixth of the time.
#pragma once
#include "problem.h"

namespace {

class Ahead {
   public:
    void clear() { used = current = 0; }

    void expect(const Array& array, int64_t batch, int64_t head, const int32_t* tokens, int64_t count, int64_t width) {
        const char* data = reinterpret_cast<const char*>(row_of<float>(array, batch, head, 0));
        items[used++] = {data, array.row * 4, tokens, count, width * 4};
    }

    // The next few rows.
    void fetch() {
        for (int left = ROWS_AT_ONCE; left > 0 && current < used; left--) {
            Item& item = items[current];
            if (item.count == 0) {
                current++;
                continue;
            }
            const char* row = item.data + int64_t(*item.tokens++) * item.stride;
            for (int64_t byte = 0; byte < item.bytes; byte += 64) __builtin_prefetch(row + byte, 0, 2);
            item.count--;
        }
    }

   private:
    static constexpr int ROWS_AT_ONCE = 3, MOST = 8;
    struct Item {
        const char* data;
        int64_t stride;
        const int32_t* tokens;
        int64_t count, bytes;
    };
    Item items[MOST];
    int used = 0, current = 0;
};

}  // namespace

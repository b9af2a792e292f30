// The face of hashing: buckets of tokens, and tokens in the order of their buckets.
#include <new>
#include <vector>

#include "machine.h"

namespace {

constexpr int64_t AT_ONCE = 512;     // tokens whose buckets are found at a time
constexpr int64_t DIGIT = 11;        // bits of a bucket that tokens are put in order by at a time
constexpr int64_t DIGITS = 1 << DIGIT;

// Tokens 0 to `count` in the order of their buckets, none negative, and within one in their own; and the place of each.
void put_in_order(const int32_t* bucket, int64_t count, int32_t* order, int32_t* slot) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) most = uint32_t(bucket[i]) > most ? uint32_t(bucket[i]) : most;
    int32_t *from = slot, *to = order;
    for (int64_t i = 0; i < count; i++) from[i] = int32_t(i);
    for (int shift = 0; shift < 32 && most >> shift; shift += DIGIT) {
        const auto digit = [&](int32_t token) { return uint32_t(bucket[token]) >> shift & (DIGITS - 1); };
        int64_t first[DIGITS + 1] = {};
        for (int64_t i = 0; i < count; i++) first[digit(int32_t(i)) + 1]++;
        for (int64_t i = 0; i < DIGITS; i++) first[i + 1] += first[i];
        for (int64_t i = 0; i < count; i++) to[first[digit(from[i])]++] = from[i];
        int32_t* const next = from;
        from = to;
        to = next;
    }
    if (from != order) __builtin_memcpy(order, from, count * sizeof(int32_t));
    for (int64_t i = 0; i < count; i++) slot[order[i]] = int32_t(i);
}

}  // namespace

// turned: (heads, tokens, rounds, axes). Adds, for every token and round, stride times the nearest axis to
// bucket + head * head_step + round * round_step + token.
FACE int formers_nearest(const float* turned, int32_t* bucket, int64_t heads, int64_t tokens, int64_t rounds, int64_t axes,
                         int64_t head_step, int64_t round_step, int64_t stride, const char* name, int64_t threads) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    const int64_t pieces = (tokens + AT_ONCE - 1) / AT_ONCE;
    try {
        std::vector<std::vector<int32_t>> found(threads, std::vector<int32_t>(AT_ONCE * rounds));
        share(heads * pieces, threads, [&](int64_t item, int64_t thread) {
            const int64_t head = item / pieces, first = item % pieces * AT_ONCE;
            const int64_t some = first + AT_ONCE < tokens ? AT_ONCE : tokens - first;
            int32_t* const axis = found[thread].data();
            kernel->nearest(turned + (head * tokens + first) * rounds * axes, some * rounds, axes, axis);
            for (int64_t round = 0; round < rounds; round++)
                for (int64_t i = 0; i < some; i++)
                    bucket[head * head_step + round * round_step + first + i] += int32_t(stride * axis[i * rounds + round]);
        });
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

// bucket, order, slot: (rows, tokens) each.
FACE void formers_put_in_order(const int32_t* bucket, int32_t* order, int32_t* slot, int64_t rows, int64_t tokens,
                               int64_t threads) {
    share(rows, threads, [&](int64_t row, int64_t) {
        put_in_order(bucket + row * tokens, tokens, order + row * tokens, slot + row * tokens);
    });
}

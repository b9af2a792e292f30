// A causal pattern whose keys have no gap: from some first key to the query's own. Windows, blocks, and what they give
// together are all of this kind.
#pragma once
#include "op.h"

// The pattern stands in the ints of `attend`, behind its numbers, in postfix order: a rule, or what joins two.
//   WINDOW size          the last `size` keys
//   BLOCKS size before   the query's own block of `size` positions, and `before` blocks before it
//   BOTH, EITHER         of the two patterns that stand before it
// Nothing: all keys.
enum PatternWord : int64_t { WINDOW, BLOCKS, BOTH, EITHER };

constexpr int64_t PATTERN_AT = 7, PATTERN_DEPTH = 16;

static inline int64_t from_zero(int64_t position) { return position > 0 ? position : 0; }

// The position of the first key that a query at `position` sees. check_attend has seen that the stack holds.
static inline int64_t first_seen(const List<int64_t>& ints, int64_t position) {
    int64_t stack[PATTERN_DEPTH + 1] = {0}, depth = 0;
    for (int64_t i = PATTERN_AT; i < ints.size;) {
        const int64_t word = ints[i++];
        if (word == WINDOW) {
            stack[depth++] = from_zero(position + 1 - ints[i++]);
        } else if (word == BLOCKS) {
            const int64_t size = ints[i++], before = ints[i++];
            stack[depth++] = from_zero(position / size - before) * size;
        } else {
            const int64_t right = stack[--depth], left = stack[depth - 1];
            stack[depth - 1] = (word == BOTH) == (left > right) ? left : right;
        }
    }
    return stack[0];
}

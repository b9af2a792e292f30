// Which of the keys up to its own a query sees, head by head. A pattern tells of a key whether it is seen, and up to which
// key behind it that stays so: attention goes from run to run, and what is not seen is neither read nor counted.
#pragma once
#include "op.h"

// In the ints of `attend`, behind its numbers: for each query head the place in the ints where its pattern begins. There
// stands how many ints it has, and then its words in postfix order, a rule with its numbers or what joins two. No words:
// all keys.
//   WINDOW size                the last `size` keys
//   BLOCKS size back           the query's own block of `size` positions, and `back` keys before it
//   STRIDED stride             every key at a multiple of `stride` from the query
//   SUMMARY size first count   `count` keys from place `first` of each block of `size` positions
//   GLOBAL count first         `count` keys from `first` on; all of them where the query is one of these
//   SHIFTED size back          the block `back` blocks before the query's own; the first `back` blocks see their own
//   PERMUTED size blocks by    of `blocks` blocks, block i sees block i + `by`, all round
//   LISTED size rows again     `rows` blocks of `size` queries each see runs of keys: where each row's begin among all runs,
//                              and where the last one's end, and then of each run its first key and its end. Behind the
//                              last row: again the first, and keys counted from there, or without `again` nothing
//   BOTH, EITHER               of the two patterns that stand before it
enum PatternWord : int64_t {
    WINDOW, BLOCKS, STRIDED, SUMMARY, GLOBAL, SHIFTED, PERMUTED, LISTED, BOTH, EITHER, PATTERN_WORDS
};

constexpr int64_t PATTERN_NUMBERS[PATTERN_WORDS] = {1, 2, 1, 3, 2, 2, 3, 3, 0, 0};
constexpr int64_t PATTERN_AT = 7, PATTERN_DEPTH = 16, EVER = INT64_MAX;

// Of a key, and of those behind it that come before `until`.
struct Seen {
    bool seen;
    int64_t until;
};

// Keys from `first` on that come before `end`.
struct SeenRun {
    int64_t first, end;
};

static inline List<int64_t> pattern_of(const List<int64_t>& ints, int64_t head) {
    const int64_t at = ints[PATTERN_AT + head];
    return {ints.data + at + 1, ints[at]};
}

static inline Seen seen_from(int64_t first, int64_t key) { return key < first ? Seen{false, first} : Seen{true, EVER}; }

static inline Seen seen_within(int64_t first, int64_t end, int64_t key) {
    return key < first ? Seen{false, first} : key < end ? Seen{true, end} : Seen{false, EVER};
}

// How many ints a rule has. Of lists: their last offset has been checked.
static inline int64_t numbers_of(int64_t word, const int64_t* number) {
    if (word != LISTED) return PATTERN_NUMBERS[word];
    const int64_t offsets = PATTERN_NUMBERS[LISTED] + number[1] + 1;
    return offsets + 2 * number[offsets - 1];
}

static inline Seen seen_by_list(const int64_t* number, int64_t query, int64_t key) {
    const int64_t size = number[0], rows = number[1], row = query / size;
    if (row >= rows && !number[2]) return {false, EVER};
    const int64_t base = (row - row % rows) * size;
    const int64_t* offsets = number + PATTERN_NUMBERS[LISTED] + row % rows;
    const int64_t* runs = number + PATTERN_NUMBERS[LISTED] + rows + 1;
    int64_t low = offsets[0], high = offsets[1];  // the first run that ends behind the key is among these
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (base + runs[2 * middle + 1] > key)
            high = middle;
        else
            low = middle + 1;
    }
    return low == offsets[1] ? Seen{false, EVER} : seen_within(base + runs[2 * low], base + runs[2 * low + 1], key);
}

static inline Seen seen_by_rule(int64_t word, const int64_t* number, int64_t query, int64_t key) {
    if (word == WINDOW) return seen_from(query + 1 - number[0], key);
    if (word == BLOCKS) return seen_from(query / number[0] * number[0] - number[1], key);
    if (word == STRIDED) {
        const int64_t ahead = (query - key) % number[0];
        return ahead ? Seen{false, key + ahead} : Seen{true, key + 1};
    }
    if (word == SUMMARY) {
        const int64_t place = key % number[0], block = key - place, first = block + number[1], end = first + number[2];
        if (key < first) return {false, first};
        return key < end ? Seen{true, end} : Seen{false, first + number[0]};
    }
    if (word == GLOBAL) {
        const int64_t first = number[1], end = first + number[0];
        return query >= first && query < end ? Seen{true, EVER} : seen_within(first, end, key);
    }
    if (word == LISTED) return seen_by_list(number, query, key);
    int64_t block = query / number[0];
    if (word == SHIFTED)
        block -= block >= number[1] ? number[1] : 0;
    else
        block += (block + number[2]) % number[1] - block % number[1];
    return seen_within(block * number[0], (block + 1) * number[0], key);
}

// `a` settles it alone as long as it holds; what it does not settle holds as long as both stay as they are.
static inline Seen joined(const Seen& a, const Seen& b, bool settles) {
    if (a.seen == settles && b.seen == settles) return a.until > b.until ? a : b;
    if (a.seen == settles || b.seen == settles) return a.seen == settles ? a : b;
    return a.until < b.until ? a : b;
}

// check_attend has seen that the stack holds.
static inline Seen seen_at(const List<int64_t>& pattern, int64_t query, int64_t key) {
    Seen stack[PATTERN_DEPTH + 1] = {{true, EVER}};
    for (int64_t i = 0, depth = 0; i < pattern.size;) {
        const int64_t word = pattern[i++];
        if (word < BOTH) {
            stack[depth++] = seen_by_rule(word, pattern.data + i, query, key);
            i += numbers_of(word, pattern.data + i);
        } else {
            depth--;
            stack[depth - 1] = joined(stack[depth - 1], stack[depth], word == EITHER);
        }
    }
    return stack[0];
}

// The first run of seen keys from `key` on; one that begins behind the query is empty.
static inline SeenRun next_run(const List<int64_t>& pattern, int64_t query, int64_t key) {
    while (key <= query) {
        const Seen found = seen_at(pattern, query, key);
        const int64_t until = found.until > query ? query + 1 : found.until;
        if (found.seen) return {key, until};
        key = until;
    }
    return {query + 1, query + 1};
}

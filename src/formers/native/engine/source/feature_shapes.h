// Sizes that the operations of attention by features and their checks must agree on.
#pragma once
#include "op.h"

// What becomes of a product p of a query or key with a direction: e^p; e^p and e^-p; sin p and cos p; max(p, 0).
enum FeatureKind : int64_t { EXPONENTIAL, EXPONENTIALS, WAVES, RECTIFIED, FEATURE_KINDS };

// Places among the ints of both operations.
enum FeatureInt : int64_t {
    HEADS, HEAD_WIDTH, FEATURE_KIND, OF_UNITS, DIRECTIONS, FEATURE_PANEL, QUERIES_AT, KEYS_AT, VALUES_AT
};

constexpr int64_t BEHIND_SUMS = 16;  // floats of a head behind its sums: see `HeadSums`

static inline int64_t padded_directions(const Op& op) { return up_to(op.ints[DIRECTIONS], 16); }

// Features of a query or a key, those of one kind up to a multiple of 16.
static inline int64_t padded_features(const Op& op) {
    return padded_directions(op) * (op.ints[FEATURE_KIND] == EXPONENTIALS || op.ints[FEATURE_KIND] == WAVES ? 2 : 1);
}

// Floats of the sums of a head: a row of features for each number of a value, one for the 1 behind it, and what is behind.
static inline int64_t sums_slot(const Op& op) { return (op.ints[HEAD_WIDTH] + 1) * padded_features(op) + BEHIND_SUMS; }

// The operations, by name. The code of one is its place here.
#pragma once
#include "list_exits.h"
#include "list_sparse.h"

#define DENSE_OPS(X)                                                                                        \
    X(embed) X(place) X(sinusoid) X(digits) X(time_bin) X(pick) X(norm) X(linear) X(gate) X(angles) X(rotate) \
    X(unit) X(attend) X(cross) X(add) X(shift) X(copy) X(mean) X(concatenate) X(enter)

#define FEATURE_OPS(X) X(feature_attend) X(feature_cross)

#define OPS(X) DENSE_OPS(X) SPARSE_OPS(X) EXIT_OPS(X) FEATURE_OPS(X)

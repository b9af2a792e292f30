// What the operations of ops_features.h mean by their ints, floats and matrices, and what must hold of them.
#pragma once
#include "check_sparse.h"
#include "feature_shapes.h"

namespace {

// The features, and where a head keeps its sums. made: features that a head makes for each token, of queries or of both.
void check_feature_map(const Check& c, int64_t made) {
    constexpr int64_t MOST = 1 << 20;
    const auto& ints = c.op.ints;
    const Matrix& m = c.op.matrices[0];
    c.within("the number of heads", ints[HEADS], 1, MOST), c.within("the width of a head", ints[HEAD_WIDTH], 1, MOST);
    c.within("the kind of the features", ints[FEATURE_KIND], 0, FEATURE_KINDS - 1);
    check_flag(c, "whether vectors are brought to length 1", ints[OF_UNITS]);
    c.within("the number of directions", ints[DIRECTIONS], 1, MOST), check_panel(c, ints[FEATURE_PANEL]);
    const int64_t panels = padded_directions(c.op) / ints[FEATURE_PANEL];
    c.same("the width of all panels", panels * ints[FEATURE_PANEL], padded_directions(c.op));
    c.that(m.type == Type::fp32, "directions are fp32");
    c.same("the number of panels", m.rows, ints[HEADS] * panels);
    c.same("the size of a panel", m.columns, ints[HEAD_WIDTH] * ints[FEATURE_PANEL]);
    c.slice("the queries", ints[QUERIES_AT], ints[HEADS] * ints[HEAD_WIDTH], c.in(0));
    c.same("the width of the output", c.out(0), ints[HEADS] * ints[HEAD_WIDTH]);
    c.same("the room for features", c.out(1), ints[HEADS] * made * padded_features(c.op));
    c.that(c.cache(0).type == Type::fp32, "sums are fp32");
    c.same("the number of heads of the sums", c.cache(0).heads, ints[HEADS]);
    c.same("the size of a head's sums", c.cache(0).width, sums_slot(c.op));
}

// in: registers with q, k, v, and [a logit for each head: what its sums keep of themselves]. out: heads side by side; room
// for features. matrices: directions, (heads * panels, width * panel), panel by panel and in each a row for every number of a
// vector. ints: see `FeatureInt`. floats: features are factor * kind + offset, and the peak has square * |x|^2 in it; the
// least that weights are taken to be in the mean, below 0: as they are. caches: sums, see `HeadSums`.
void check_feature_attend(const Check& c) {
    const auto& ints = c.op.ints;
    c.counts(std::max<int64_t>(3, std::min<int64_t>(c.op.in.size, 4)), 2, VALUES_AT + 1, 4, 1, 0, 1), check_apart(c);
    check_feature_map(c, 2);
    c.slice("the keys", ints[KEYS_AT], ints[HEADS] * ints[HEAD_WIDTH], c.in(1));
    c.slice("the values", ints[VALUES_AT], ints[HEADS] * ints[HEAD_WIDTH], c.in(2));
    if (c.op.in.size > 3) c.same("the number of gates", c.in(3), ints[HEADS]);
    c.that(c.cache(0).keep == Keep::fixed, "sums over the keys so far are a fixed cache");
    c.same("the number of sums", c.cache(0).capacity, 1);
}

// Attention to sums that were given. in: a register with q. ints: as above, up to where q begins. All else as above.
void check_feature_cross(const Check& c) {
    c.counts(1, 2, QUERIES_AT + 1, 4, 1, 0, 1), check_apart(c);
    check_feature_map(c, 1);
    c.that(c.cache(0).keep == Keep::given, "sums over an encoder's output are given");
}

}  // namespace

// Which pairs of a tile meet. Conditions are kept in the sign bit of an integer, so that they cost a subtraction and an
// `or` each on every instruction set: a negative word bars the pair.
#pragma once
#include "window.h"

namespace {

// A block of queries, and one of keys: both are parts of chunks. Scores stand at scores[key * BLOCK + query].
struct Part {
    const Chunk* chunk;
    long start, count;
};

struct Span {
    int32_t least, most;
};

inline Span span_of(const int32_t* x, long count) {
    Span span = {x[0], x[0]};
    for (long i = 1; i < count; i++) {
        span.least = x[i] < span.least ? x[i] : span.least;
        span.most = x[i] > span.most ? x[i] : span.most;
    }
    return span;
}

// Can no pair of the two parts meet? Cheap, and not exact: only what ranges of numbers show.
inline bool apart(const Problem& p, Part queries, Part keys) {
    const auto spans = [&](int fact, Span& q, Span& k) {
        q = span_of(queries.chunk->fact(p, fact) + queries.start, queries.count);
        k = span_of(keys.chunk->fact(p, fact) + keys.start, keys.count);
    };
    Span q, k;
    if (p.causal) {
        spans(POSITION, q, k);
        if (k.least > q.most) return true;
    }
    if (p.same) {
        spans(BUCKET, q, k);
        if (k.least > q.most || q.least > k.most) return true;
    }
    if (p.reach) {
        spans(SLOT, q, k);
        if (k.least - q.most >= p.reach || q.least - k.most >= p.reach) return true;
    }
    return false;
}

inline Ints unless_within(Ints distance, int32_t reach) { return (distance + (reach - 1)) | ((reach - 1) - distance); }

inline Ints unless_zero(Ints x) { return x | -x; }

// Bias and bar the scores of one vector of queries with all keys; returns the largest. earlier: rounds in which pairs
// may have met, -1 for p's own count of them.
template <int earlier, bool reach, bool same>
inline Floats mask_lane(const Problem& p, long round, Part queries, Part keys, long lane, Floats bias, float* scores,
                        Floats peak) {
    const auto of_query = [&](int fact) {
        return load<Ints>(queries.chunk->fact(p, fact) + queries.start + lane);
    };
    const auto of_key = [&](int fact) { return keys.chunk->fact(p, fact) + keys.start; };
    const int rounds = earlier < 0 ? int(round) : earlier;
    constexpr int kept = earlier < 0 ? 1 : earlier + 1;  // what fits in registers; beyond, it is loaded for each key
    Ints met_chunks[kept];
    for (int r = 0; r < earlier; r++) met_chunks[r] = of_query(EARLIER + MET_FACTS * r + MET_CHUNK);
    const Ints position = of_query(POSITION), causal = Ints{} - int32_t(p.causal != 0);
    const Ints slot = reach ? of_query(SLOT) : Ints{}, bucket = same ? of_query(BUCKET) : Ints{};
    const Floats never = fill(-__builtin_inff());
    const int32_t *padding = of_key(PADDING), *positions = of_key(POSITION);
    for (long i = 0; i < keys.count; i++) {
        const Ints ahead = position - positions[i];
        Ints barred = (ahead & causal) | padding[i];
        if constexpr (reach) barred |= unless_within(slot - of_key(SLOT)[i], p.reach);
        if constexpr (same) barred |= unless_zero(bucket ^ of_key(BUCKET)[i]);
        for (int r = 0; r < rounds; r++) {
            const int facts = EARLIER + MET_FACTS * r;
            const Ints chunk = earlier < 0 ? of_query(facts + MET_CHUNK) : met_chunks[r];
            const Ints back = chunk - of_key(facts + MET_CHUNK)[i];
            Ints missed = (back + int32_t(p.after)) | (int32_t(p.before) - back);
            if constexpr (reach)
                missed |= unless_within(of_query(facts + MET_SLOT) - of_key(facts + MET_SLOT)[i], p.reach);
            if constexpr (same) missed |= unless_zero(of_query(facts + MET_BUCKET) ^ of_key(facts + MET_BUCKET)[i]);
            barred |= ~missed;
        }
        float* at = scores + i * BLOCK + lane;
        const Floats biased = load<Floats>(at) + (Floats)((Bits)(ahead == 0) & (Bits)bias);
        const Floats score = barred < 0 ? never : biased;
        store(at, score);
        peak = larger(score, peak);
    }
    return peak;
}

template <int earlier, bool reach, bool same>
void mask_part(const Problem& p, long round, Part queries, Part keys, const float* biases, float* scores,
               float* peaks) {
    for (long lane = 0; lane < queries.count; lane += LANES) {
        const Floats peak = load<Floats>(peaks + lane);
        const Floats bias = load<Floats>(biases + lane);
        store(peaks + lane, mask_lane<earlier, reach, same>(p, round, queries, keys, lane, bias, scores, peak));
    }
}

template <int earlier>
void mask_rounds(const Problem& p, long round, Part queries, Part keys, const float* biases, float* scores,
                 float* peaks) {
    const auto mask = p.reach ? (p.same ? mask_part<earlier, true, true> : mask_part<earlier, true, false>)
                              : (p.same ? mask_part<earlier, false, true> : mask_part<earlier, false, false>);
    mask(p, round, queries, keys, biases, scores, peaks);
}

// Bias and bar scores in place, and raise `peaks` to the largest that is left; of both there is one for each query.
inline void mask(const Problem& p, long round, Part queries, Part keys, const float* biases, float* scores,
                 float* peaks) {
    const long earlier = p.once ? round : 0;
    const auto mask = earlier == 0   ? mask_rounds<0>
                      : earlier == 1 ? mask_rounds<1>
                      : earlier == 2 ? mask_rounds<2>
                      : earlier == 3 ? mask_rounds<3>
                                     : mask_rounds<-1>;
    mask(p, round, queries, keys, biases, scores, peaks);
}

}  // namespace

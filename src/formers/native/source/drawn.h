// Choices among the numbers of a block: the largest, or one drawn from their softmax; and a softmax of which only what
// was chosen is asked for.
#pragma once
#include "units.h"
#include "vector.h"

namespace {

// The numbers of one block, padded to whole vectors with what is never chosen.
struct Block {
    float numbers[MOST_CHOICES];
    long size, padded;

    explicit Block(int64_t count) : size(count), padded(round_up(count, LANES)) {}

    Block(const float* from, int64_t count) : Block(count) {
        for (long i = size; i < padded; i++) numbers[i] = -__builtin_inff();
        __builtin_memcpy(numbers, from, size * sizeof(float));
    }

    float largest() const {
        Floats most = load<Floats>(numbers);
        for (long i = LANES; i < padded; i += LANES) most = larger(load<Floats>(numbers + i), most);
        return largest_of(most)[0];
    }

    // Of numbers that never fall: how many come before the first that is larger than this one; all where none is.
    int32_t before(float number) const {
        Ints count = {};
        for (long i = 0; i < padded; i += LANES) count -= load<Floats>(numbers + i) <= number;
        return int32_t(summed(__builtin_convertvector(count, Floats))[0]);
    }

    int32_t place_of(float number) const {
        for (long i = 0; i < padded; i++)
            if (numbers[i] == number) return int32_t(i);
        return 0;  // where all are no numbers
    }
};

// Goes through the weights of logits, of which the largest is 1, to this share of their sum, and says where that is. Without a
// branch, since no two draws end alike. sums: room for as many numbers.
inline int32_t drawn(const Block& logits, float peak, float sharpness, float share, Block& sums) {
    float total = 0.0f;
    for (long i = 0; i < logits.padded; i += LANES) {
        const Floats weights = exponential((load<Floats>(logits.numbers + i) - peak) * sharpness);
        const Floats so_far = running(weights) + total;
        store(sums.numbers + i, so_far);
        total = so_far[LANES - 1];
    }
    const int32_t place = sums.before(share * total);
    return place < logits.size ? place : logits.place_of(peak);  // rounding has led past the end
}

// picked[i]: the choice in block i of logits (blocks, size), by shares (blocks); the largest where there are no shares.
void draw_units(const Draws& d, Rows blocks) {
    Block sums(d.size);
    for (int64_t i = blocks.first; i < blocks.last; i++) {
        const Block logits(d.logits + i * d.size, d.size);
        const float peak = logits.largest();
        d.picked[i] = d.shares ? drawn(logits, peak, d.sharpness, d.shares[i], sums) : logits.place_of(peak);
    }
}

// The largest of a block, and the sum of exponentials above it, which its numbers become.
struct Weighed {
    float peak, total;
};

inline Weighed weigh(Block& block, float peak) {
    Floats total = {};
    for (long j = 0; j < block.padded; j += LANES) {
        const Floats weights = exponential(load<Floats>(block.numbers + j) - peak);
        store(block.numbers + j, weights);
        total += weights;
    }
    return {peak, summed(total)[0]};
}

// chances[i]: the softmax of block i at what was picked there; peaks and totals: for `slope_units`.
void weigh_units(const Draws& d, Rows blocks) {
    for (int64_t i = blocks.first; i < blocks.last; i++) {
        Block block(d.logits + i * d.size, d.size);
        const Weighed found = weigh(block, block.largest());
        d.peaks[i] = found.peak;
        d.totals[i] = found.total;
        d.chances[i] = block.numbers[d.picked[i]] / found.total;
    }
}

// Logits become the gradient by them, of `slope` by the chance of what was picked times that chance.
inline void slope_of(Block& block, Weighed known, float slope, int32_t picked) {
    const float scale = -slope / known.total;
    for (long j = 0; j < block.padded; j += LANES)
        store(block.numbers + j, exponential(load<Floats>(block.numbers + j) - known.peak) * scale);
    block.numbers[picked] += slope;
}

// slopes (blocks, size): the gradient by the logits, of one by the chances that stands in their place in `shares`.
void slope_units(const Draws& d, Rows blocks) {
    for (int64_t i = blocks.first; i < blocks.last; i++) {
        float* to = d.slopes + i * d.size;
        const float slope = d.shares[i] * d.chances[i];
        if (slope == 0.0f) {  // a unit that does not fire tells nothing
            __builtin_memset(to, 0, d.size * sizeof(float));
            continue;
        }
        Block block(d.logits + i * d.size, d.size);
        slope_of(block, {d.peaks[i], d.totals[i]}, slope, d.picked[i]);
        __builtin_memcpy(to, block.numbers, d.size * sizeof(float));
    }
}

}  // namespace

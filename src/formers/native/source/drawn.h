// Choices among the numbers of a block: the largest, or one drawn from their softmax; and a softmax of which only what
// was chosen is asked for.
#pragma once
#include "units.h"
#include "vector.h"

namespace {

// The numbers of one block, padded to whole vectors with what is never chosen.
struct Block {
    float numbers[MOST_CHOICES];
    long padded;

    explicit Block(int64_t size) : padded(round_up(size, LANES)) {}

    Block(const float* from, int64_t size) : padded(round_up(size, LANES)) {
        for (long i = size; i < padded; i++) numbers[i] = -__builtin_inff();
        __builtin_memcpy(numbers, from, size * sizeof(float));
    }

    void copy(const Block& other) { __builtin_memcpy(numbers, other.numbers, padded * sizeof(float)); }

    float largest() const {
        Floats most = load<Floats>(numbers);
        for (long i = LANES; i < padded; i += LANES) most = larger(load<Floats>(numbers + i), most);
        return largest_of(most)[0];
    }

    int32_t place_of(float number) const {
        for (long i = 0; i < padded; i++)
            if (numbers[i] == number) return int32_t(i);
        return 0;  // where all are no numbers
    }
};

// Goes through weights, of which the largest is 1, to this share of their sum, and says where that is.
int32_t drawn(Block& block, float peak, float sharpness, float share) {
    float sums[MOST_CHOICES / LANES];
    float total = 0.0f;
    for (long i = 0; i < block.padded; i += LANES) {
        const Floats weights = exponential((load<Floats>(block.numbers + i) - peak) * sharpness);
        store(block.numbers + i, weights);
        total += sums[i / LANES] = summed(weights)[0];
    }
    float left = share * total;
    long i = 0;
    for (; i + LANES < block.padded && !(left < sums[i / LANES]); i += LANES) left -= sums[i / LANES];
    for (; i < block.padded; i++) {
        left -= block.numbers[i];
        if (left < 0.0f) return int32_t(i);
    }
    return block.place_of(1.0f);  // rounding has led past the end
}

// picked[i]: the choice in block i of logits (blocks, size), by shares (blocks); the largest where there are no shares.
void draw_units(const Draws& d, Rows blocks) {
    for (int64_t i = blocks.first; i < blocks.last; i++) {
        Block block(d.logits + i * d.size, d.size);
        const float peak = block.largest();
        d.picked[i] = d.shares ? drawn(block, peak, d.sharpness, d.shares[i]) : block.place_of(peak);
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

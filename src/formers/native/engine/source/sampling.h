// Choosing a token from its logits, as formers.decode.sampling does.
#pragma once
#include <cstdint>
#include <vector>

#include "op.h"

// How: the penalty acts first, then the others in the order of their fields. What is not wanted has the value that
// changes nothing.
struct Sampling {
    float temperature = 0;  // 0: the likeliest
    int64_t top_k = 0;      // 0: all
    float top_p = 1, min_p = 0, penalty = 1;

    const char* problem() const;  // what cannot be, in words; nullptr where all can
};

// Tokens of a vocabulary, a bit for each.
using Tokens = std::vector<uint64_t>;

// Chooses one token at a time for one stream. Several may work side by side.
class Sampler {
   public:
    Sampler(const Kernel* kernel, const Sampling& how, int64_t vocab);

    // The token that `share` of the probability, from 0 to below 1, leads to; -1 where the logits are not finite. seen:
    // what a penalty falls on.
    int64_t choose(const float* logits, const Tokens& seen, float share);

   private:
    const float* penalised(const float* logits, const Tokens& seen);
    int64_t keep_likeliest(const float* logits);
    float border(const float* weights, int64_t count);
    int64_t draw(const float* weights, int64_t count, float least, float share);

    const Kernel* kernel_;
    Sampling how_;
    int64_t vocab_;
    std::vector<float> scores_, weights_, some_;
    std::vector<int32_t> ids_;
    std::vector<double> sums_;
};

// The place of the largest of the logits, the first of equals; -1 where it is not finite.
int64_t likeliest(const float* logits, int64_t count);

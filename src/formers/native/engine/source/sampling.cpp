#include "sampling.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr int64_t RUN = 64;  // weights that are summed together

bool is_between(float number, float low, float high) { return number >= low && number <= high; }

}  // namespace

const char* Sampling::problem() const {
    if (!(std::isfinite(temperature) && temperature >= 0)) return "a temperature is 0 or a positive number";
    if (temperature > 0 && temperature < 1e-6f) return "a temperature below 1e-6 could overflow the logits: give 0";
    if (top_k < 0) return "as many tokens as top_k says cannot be kept";
    if (!(is_between(top_p, 0, 1) && top_p > 0)) return "top_p is above 0 and at most 1";
    if (!is_between(min_p, 0, 1)) return "min_p is between 0 and 1";
    if (!(std::isfinite(penalty) && penalty > 0)) return "a repetition penalty is a positive number";
    return nullptr;
}

// Sixteen at a time, so that the compiler can use vectors.
int64_t likeliest(const float* logits, int64_t count) {
    constexpr int64_t LANES = 16;
    float top[LANES];
    int32_t at[LANES];
    for (int64_t j = 0; j < LANES; j++) top[j] = -INFINITY, at[j] = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int64_t j = 0; j < LANES; j++) {
            const bool more = logits[i + j] > top[j];
            top[j] = more ? logits[i + j] : top[j];
            at[j] = more ? int32_t(i + j) : at[j];
        }
    for (int64_t j = 0; i + j < count; j++)
        if (logits[i + j] > top[j]) top[j] = logits[i + j], at[j] = int32_t(i + j);
    int64_t best = 0;
    for (int64_t j = 1; j < LANES; j++)
        if (top[j] > top[best] || (top[j] == top[best] && at[j] < at[best])) best = j;
    return std::isfinite(top[best]) ? at[best] : -1;
}

// All memory is had here: choosing is shared among threads, and may not fail.
Sampler::Sampler(const Kernel* kernel, const Sampling& how, int64_t vocab) : kernel_(kernel), how_(how), vocab_(vocab) {
    how_.top_k = how.top_k && how.top_k < vocab ? how.top_k : 0;
    if (how_.penalty != 1) scores_.resize(size_t(vocab));
    if (how_.temperature == 0) return;
    if (how_.top_k) ids_.resize(size_t(vocab));
    const size_t kept = size_t(how_.top_k ? how_.top_k : vocab);
    weights_.resize(kept), sums_.resize(kept / RUN + 1);
    if (how_.top_p < 1) some_.resize(kept);
}

int64_t Sampler::choose(const float* logits, const Tokens& seen, float share) {
    if (how_.penalty != 1) logits = penalised(logits, seen);
    const int64_t best = likeliest(logits, vocab_);
    if (best < 0 || how_.temperature == 0) return best;
    const int64_t count = keep_likeliest(logits);
    kernel_->weigh(weights_.data(), count, logits[best], how_.temperature);
    float least = how_.min_p;  // of the likeliest, which weighs 1
    if (how_.top_p < 1) least = std::max(least, border(weights_.data(), count));
    const int64_t place = draw(weights_.data(), count, least, share);
    return how_.top_k ? ids_[place] : place;
}

const float* Sampler::penalised(const float* logits, const Tokens& seen) {
    std::copy(logits, logits + vocab_, scores_.begin());
    for (size_t word = 0; word < seen.size(); word++)
        for (uint64_t bits = seen[word]; bits; bits &= bits - 1) {
            float& score = scores_[word * 64 + size_t(__builtin_ctzll(bits))];
            score = score < 0 ? score * how_.penalty : score / how_.penalty;
        }
    return scores_.data();
}

// The logits that are weighed, and how many: all in order, or the likeliest first, of equals the first first.
int64_t Sampler::keep_likeliest(const float* logits) {
    if (!how_.top_k) {
        std::copy(logits, logits + vocab_, weights_.begin());
        return vocab_;
    }
    for (int64_t i = 0; i < vocab_; i++) ids_[i] = int32_t(i);
    std::partial_sort(ids_.begin(), ids_.begin() + how_.top_k, ids_.end(), [&](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    });
    for (int64_t i = 0; i < how_.top_k; i++) weights_[i] = logits[ids_[i]];
    return how_.top_k;
}

// The weight of the least likely token of the nucleus: what weighs less sums up to 1 - top_p of all at most. Found as the
// median is, by halving what it may be.
float Sampler::border(const float* weights, int64_t count) {
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += weights[i];
    double left = total * (1 - double(how_.top_p));  // that may still be dropped
    std::copy(weights, weights + count, some_.begin());
    auto low = some_.begin(), high = some_.begin() + count;  // the border is in here
    while (high - low > 1) {
        const float pivot = low[(high - low) / 2];
        const auto equal = std::partition(low, high, [=](float weight) { return weight < pivot; });
        const auto above = std::partition(equal, high, [=](float weight) { return weight == pivot; });
        double less = 0;
        for (auto each = low; each < equal; each++) less += *each;
        if (less > left) {
            high = equal;
            continue;
        }
        left -= less + double(pivot) * double(above - equal);
        if (left < 0 || above == high) return pivot;
        low = above;
    }
    return *low;
}

// Goes through the weights that are kept, to this share of their sum.
int64_t Sampler::draw(const float* weights, int64_t count, float least, float share) {
    double total = 0;
    for (int64_t first = 0; first < count; first += RUN) {
        float sum = 0;
        for (int64_t i = first; i < std::min(first + RUN, count); i++) sum += weights[i] >= least ? weights[i] : 0.0f;
        total += sums_[first / RUN] = sum;
    }
    const auto is_kept = [=](int64_t i) { return weights[i] >= least && weights[i] > 0; };
    double left = double(share) * total;
    int64_t run = 0;
    for (; (run + 1) * RUN < count && left >= sums_[run]; run++) left -= sums_[run];
    for (int64_t i = run * RUN; i < count; i++)
        if (is_kept(i) && (left -= weights[i]) < 0) return i;
    int64_t last = count - 1;  // rounding has led past the end
    while (last > 0 && !is_kept(last)) last--;
    return last;
}

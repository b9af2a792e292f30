// Inputs gated for modules: each token's, 32 at a time, times a gate for every module and input.
#pragma once
#include "sparse_tiles.h"

namespace {

// How gates lie in memory, and how what they make is kept: as floats, as halves, or as the sum of two halves.
enum class Kept { floats, half, halves };

// Two vectors of gates at a time, those of 16 inputs and of the next 16.
struct FloatGates {
    const uint8_t* data;
    ALWAYS_INLINE void of(int64_t module, Wide& first, Wide& second) const {
        const float* from = reinterpret_cast<const float*>(data) + module * DEPTH;
        first = load_wide(from), second = load_wide(from + WIDE);
    }
};

struct HalfGates {  // number 16 + i stands beside number i
    const uint8_t* data;
    ALWAYS_INLINE void of(int64_t module, Wide& first, Wide& second) const {
        PairsOfHalves{data, WIDE, data}.read(2 * module, 0, first, second);
    }
};

template <Kept kept>
ALWAYS_INLINE void keep(uint8_t* to, [[maybe_unused]] int64_t low, const Wide& a, const Wide& b) {
    if constexpr (kept == Kept::floats) {
        store_wide(reinterpret_cast<float*>(to), a), store_wide(reinterpret_cast<float*>(to) + WIDE, b);
        return;
    }
#ifdef FORMERS_TILES
    if constexpr (kept == Kept::half) _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
    if constexpr (kept == Kept::halves) {
        const __m512i cut = _mm512_set1_epi32(int32_t(0xFFFF0000));
        const __m512 high_a = (__m512)_mm512_and_si512((__m512i)a, cut), high_b = (__m512)_mm512_and_si512((__m512i)b, cut);
        _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high_b, high_a));
        _mm512_store_si512(to + low, (__m512i)_mm512_cvtne2ps_pbh((__m512)b - high_b, (__m512)a - high_a));
    }
#endif
}

// Some inputs of up to 64 vectors, each a token gated for a module: [block][vector][32]. While gates are used, those of later
// blocks are asked for.
class Gated {
   public:
    // gate: a row for each block of 32 inputs, with those of every module. vectors: how many there will be at once.
    Gated(const Matrix& gate, const Matrix& mix, int64_t vectors)
        : gate_(gate), mix_(mix), gates_(gate), padded_(up_to(vectors, GROUP)),
          folded_(vectors <= GROUP / 2 && in_halves(mix) && mix.type == Type::bf16) {}

    int64_t most_blocks() const { return least(MOST_STEPS, BYTES / (padded_ * DEPTH * 4)); }

    // The gates of these blocks are asked for while others are used.
    void ask(int64_t block, int64_t count) { asking_ = {gate_.data + block * gate_.stride, count * gate_.stride}; }

    // The gates of this block are the next to be used.
    void open(int64_t block) {
        now_ = gate_.type == Type::fp32 ? gate_.data + block * gate_.stride : gates_.read(block);
    }

    // 32 inputs times the gates of `count` modules from one on, to as many vectors from one on.
    void store(int64_t block, int64_t vector, const float* inputs, int64_t module, int64_t count) {
        uint8_t* to = data_ + (block * padded_ + vector) * DEPTH * input_size(mix_);
        if (gate_.type == Type::fp32) return fill<Kept::floats>(FloatGates{now_}, to, inputs, module, count);
        if (!in_halves(mix_)) return fill<Kept::floats>(HalfGates{now_}, to, inputs, module, count);
        if (mix_.type == Type::bf16) return fill<Kept::halves>(HalfGates{now_}, to, inputs, module, count);
        fill<Kept::half>(HalfGates{now_}, to, inputs, module, count);
    }

    Groups groups(int64_t vectors) const {
        Groups g = {(vectors + GROUP - 1) / GROUP, {}, DEPTH * input_size(mix_), low(), folded_};
        for (int64_t t = 0; t < g.count; t++) g.sizes[t] = least(GROUP, vectors - t * GROUP);
        return g;
    }

    ALWAYS_INLINE const uint8_t* at(int64_t block, int64_t group) const {
        return data_ + (block * padded_ + group * GROUP) * DEPTH * input_size(mix_);
    }

   private:
    static constexpr int64_t BYTES = 32 << 10;  // so that they stay in the first cache

    int64_t low() const { return folded_ ? GROUP / 2 * DEPTH * 2 : BYTES / 2; }

    template <Kept kept, class Of>
    void fill(Of gates, uint8_t* to, const float* inputs, int64_t module, int64_t count) {
        const Wide a = load_wide(inputs), b = load_wide(inputs + WIDE);
        const bool asks = asking_.is_for_any();
        for (int64_t end = module + count; module < end; module++, to += DEPTH * (kept == Kept::floats ? 4 : 2)) {
            Wide first, second;
            gates.of(module, first, second);
            keep<kept>(to, low(), a * first, b * second);
            if (asks && (kept == Kept::floats || module % 2)) asking_.pair();  // as much as has been used
        }
    }

    const Matrix &gate_, &mix_;
    HalvesOf gates_;
    const uint8_t* now_ = nullptr;
    const int64_t padded_;
    const bool folded_;
    Asking asking_;
    alignas(64) uint8_t data_[BYTES];
};

}  // namespace

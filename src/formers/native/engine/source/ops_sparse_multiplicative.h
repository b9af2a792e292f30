// Products with a matrix gate[s, i] * mix[i, m] that is never made: the input gated for every module, times mix.
#pragma once
#include "sparse_tiles.h"

namespace {

// The gates of 32 inputs for every module; in halves, number 16 + i stands beside number i.
class Gates {
   public:
    explicit Gates(const Matrix& m) : m_(m), halves_(m) {}

    void read(int64_t block) {
        if (block + AHEAD < m_.rows) prefetch_row(m_, block + AHEAD);
        data_ = m_.type == Type::fp32 ? m_.data + block * m_.stride : halves_.read(block);
    }

    ALWAYS_INLINE void of(int64_t module, Wide& first, Wide& second) const {
        if (m_.type != Type::fp32) return PairsOfHalves{data_, WIDE, data_}.read(2 * module, 0, first, second);
        const float* from = reinterpret_cast<const float*>(data_) + module * DEPTH;
        first = load_wide(from), second = load_wide(from + WIDE);
    }

   private:
    static constexpr int64_t AHEAD = 2;  // blocks
    const Matrix& m_;
    HalvesOf halves_;
    const uint8_t* data_ = nullptr;
};

// Some inputs of up to 64 vectors, each a token gated for a module: [block][vector][32].
class Gated {
   public:
    static constexpr int64_t BYTES = 32 << 10;  // so that they stay in the first cache

    // vectors: how many there will be at once.
    Gated(const Matrix& mix, int64_t vectors) : mix_(mix), padded_(up_to(vectors, GROUP)) {}

    int64_t most_blocks() const { return least(MOST_STEPS, BYTES / (padded_ * DEPTH * 4)); }

    void store(int64_t block, int64_t vector, const Wide& a, const Wide& b) {
        if (!in_halves(mix_)) {
            float* to = reinterpret_cast<float*>(data_) + (block * padded_ + vector) * DEPTH;
            store_wide(to, a), store_wide(to + WIDE, b);
            return;
        }
#ifdef FORMERS_TILES
        uint8_t* to = data_ + (block * padded_ + vector) * DEPTH * 2;
        if (mix_.type != Type::bf16) {
            _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
            return;
        }
        const __m512i cut = _mm512_set1_epi32(int32_t(0xFFFF0000));
        const __m512 high_a = (__m512)_mm512_and_si512((__m512i)a, cut), high_b = (__m512)_mm512_and_si512((__m512i)b, cut);
        _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high_b, high_a));
        _mm512_store_si512(to + BYTES / 2, (__m512i)_mm512_cvtne2ps_pbh((__m512)b - high_b, (__m512)a - high_a));
#endif
    }

    Groups groups(int64_t vectors) const {
        Groups g = {(vectors + GROUP - 1) / GROUP, {}, DEPTH * input_size(mix_), BYTES / 2};
        for (int64_t t = 0; t < g.count; t++) g.sizes[t] = least(GROUP, vectors - t * GROUP);
        return g;
    }

    ALWAYS_INLINE const uint8_t* at(int64_t block, int64_t group) const {
        return data_ + (block * padded_ + group * GROUP) * DEPTH * input_size(mix_);
    }

   private:
    const Matrix& mix_;
    const int64_t padded_;
    alignas(64) uint8_t data_[BYTES];
};

struct Share {
    int64_t first, last;
};

ALWAYS_INLINE Share share_of(int64_t piece, int64_t pieces, int64_t count) {
    return {first_of(piece, pieces, count), first_of(piece + 1, pieces, count)};
}

// The i-th of `count` blocks, if they are read at four places in turn, which come out of memory faster than one.
ALWAYS_INLINE int64_t spread(int64_t i, int64_t count) {
    return count % 4 ? i : i % 4 * (count / 4) + i / 4;
}

struct Multiplicative {
    const Matrix &gate, &mix;
    int64_t modules, panel, panels;

    explicit Multiplicative(const Op& op)
        : gate(op.matrices[0]), mix(op.matrices[1]), modules(op.ints[0]), panel(op.ints[1]),
          panels(mix.rows / gate.rows) {}

    int64_t width() const { return panel * panels; }  // of a module, with its padding

    // A share of the blocks of inputs and of the panels of outputs, for all rows: adds to sums(row), (modules, width()).
    template <class Sums>
    void run(const Step& step, int64_t x, Share inputs, Share outputs, const Sums& sums) const {
        [[maybe_unused]] const Tiles tiles;
        const int64_t vectors = step.rows * modules, at_once = least(vectors, MOST_VECTORS_AT_ONCE);
        Gates gates(gate);
        Gated gated(mix, at_once);
        BlockStep steps[MOST_STEPS];
        for (int64_t block = inputs.first, blocks; block < inputs.last; block += blocks) {
            blocks = least(gated.most_blocks(), inputs.last - block);
            for (int64_t vector = 0; vector < vectors; vector += at_once) {
                const int64_t some = least(at_once, vectors - vector);
                const Groups g = gated.groups(some);
                for (int64_t i = 0; i < blocks; i++) {
                    store_gated(step, x, block + i, vector, some, gates, gated, i);
                    for (int64_t t = 0; t < g.count; t++) steps[i].inputs[t] = gated.at(spread(i, blocks), t);
                }
                for (int64_t p = outputs.first; p < outputs.last; p++) {
                    for (int64_t i = 0; i < blocks; i++) steps[i].row = p * gate.rows + block + spread(i, blocks);
                    const int64_t behind = (p + 1) * gate.rows + block;
                    add(steps, blocks, behind, g, vector, some, [&](int64_t r) { return sums(r) + p * panel; });
                }
            }
        }
    }

   private:
    // Groups of one row add to their sums where these are; others beside them first.
    template <class Sums>
    void add(const BlockStep* steps, int64_t count, int64_t behind, const Groups& g, int64_t vector, int64_t vectors,
             const Sums& sums) const {
        const auto place = [&](int64_t v) { return sums(v / modules) + v % modules * width(); };
        TileSums where;
        where.stride = width();
        if (modules % GROUP == 0) {
            for (int64_t t = 0; t < g.count; t++) where.data[t] = place(vector + t * GROUP);
            return add_products(mix, steps, count, behind, panel, g, where);
        }
        alignas(64) float made[MOST_VECTORS_AT_ONCE * MOST_PANEL];
        __builtin_memset(made, 0, g.count * GROUP * panel * sizeof(float));
        where.stride = panel;
        for (int64_t t = 0; t < g.count; t++) where.data[t] = made + t * GROUP * panel;
        add_products(mix, steps, count, behind, panel, g, where);
        for (int64_t v = 0; v < vectors; v++) add_scaled(place(vector + v), 1.0f, made + v * panel, panel);
    }

    void store_gated(const Step& step, int64_t x, int64_t block, int64_t vector, int64_t some, Gates& gates, Gated& gated,
                     int64_t i) const {
        gates.read(block);
        int64_t r = vector / modules, module = vector % modules;
        for (int64_t v = 0; v < some; r++, module = 0) {
            float inputs[DEPTH] = {};
            copy_run(inputs, step.row(x, r) + block * DEPTH, least(DEPTH, step.registers[x].width - block * DEPTH));
            const Wide a = load_wide(inputs), b = load_wide(inputs + WIDE);
            for (; module < modules && v < some; module++, v++) {
                Wide first, second;
                gates.of(module, first, second);
                gated.store(i, v, a * first, b * second);
            }
        }
    }
};

// Where there are many panels, pieces are of those; else they are of inputs, and their sums are joined.
inline void run_multiplicative(const Op& op, Step& step) {
    const Multiplicative product(op);
    const int64_t pieces = op.ints[2], blocks = product.gate.rows, bytes = product.mix.rows * product.mix.stride;
    const int64_t parted = product.modules * product.width(), parts = step.registers[op.out[1]].width / parted;
    for (int64_t r = 0; r < step.rows; r++) __builtin_memset(step.row(op.out[1], r), 0, parts * parted * sizeof(float));
    share(*step.pool, pieces, blocks * product.gate.stride + bytes, [&](int64_t piece) {
        const bool of_inputs = parts > 1;
        const Share inputs = of_inputs ? share_of(piece, pieces, blocks) : Share{0, blocks};
        const Share outputs = of_inputs ? Share{0, product.panels} : share_of(piece, pieces, product.panels);
        product.run(step, op.in[0], inputs, outputs,
                    [&](int64_t r) { return step.row(op.out[1], r) + (of_inputs ? piece * parted : 0); });
    });
    const int64_t out = step.registers[op.out[0]].width / product.modules;
    for (int64_t r = 0; r < step.rows; r++)
        for (int64_t s = 0; s < product.modules; s++) {
            const Vector bias = {op.vectors[0].data + (op.vectors[0].size ? s * out : 0), op.vectors[0].size ? out : 0};
            join_pieces(step.row(op.out[0], r) + s * out, op.ints[3], bias, step.row(op.out[1], r) + s * product.width(),
                        parts, parted, out);
        }
}

}  // namespace

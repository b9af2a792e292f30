// A feed-forward of many experts, of which each token meets one or a few: of any activation, gated or not.
#pragma once
#include "ops_sparse_feedforward.h"

namespace {

// The experts of one token, and how loudly each speaks.
struct Routed {
    int64_t expert[MOST_MET];
    float gate[MOST_MET];
};

// The `count` likeliest. One speaks by its chance, several by their chances over the sum of these. Uses the logits up.
inline Routed likeliest(float* logits, int64_t padded, int64_t experts, int64_t count) {
    Routed met;
    float top = 0, sum = 0, chance = 0;
    for (int64_t j = 0; j < count; j++) {
        const Largest found = largest(logits, padded);
        if (!j) top = found.value, chance = chance_of_largest(logits, padded, top);
        met.expert[j] = least(found.place, experts - 1);
        met.gate[j] = __builtin_expf(found.value - top);
        sum += met.gate[j], logits[met.expert[j]] = -__builtin_inff();
    }
    for (int64_t j = 0; j < count; j++) met.gate[j] *= count > 1 ? 1.0f / sum : chance;
    return met;
}

struct SwitchOp {
    const Matrix &router, &in, &down;
    const Vector &in_bias, &down_bias;
    int64_t units, met, activation, rows, width;  // rows: of `in` for an expert, its units or, gated, twice as many
    bool add;

    explicit SwitchOp(const Op& op)
        : router(op.matrices[0]), in(op.matrices[1]), down(op.matrices[2]), in_bias(op.vectors[0]),
          down_bias(op.vectors[1]), units(op.ints[0]), met(op.ints[1]), activation(op.ints[2]),
          rows(in.rows / router.rows), width(down.rows / router.rows), add(op.ints[3] != 0) {}

    // What the tokens' experts make of them, before the activation: made[t][j] has `rows` numbers.
    void read(Step& step, const Chooser* tokens, const Routed* mets, int64_t count, Sums made) const {
        share_rows(*step.pool, count * met * rows, in.stride, [&](int64_t row, int64_t some) {
            for (const int64_t end = row + some; row < end;) {
                const int64_t t = row / rows / met, j = row / rows % met, first = row % rows;
                const int64_t run = least(rows - first, end - row), from = mets[t].expert[j] * rows + first;
                float* to = made.data + t * made.stride + j * rows + first;
                dot_rows(in, from, run, tokens[t].x, to, 0);
                if (in_bias.size) add_scaled(to, 1.0f, in_bias.data + from, run);
                row += run;
            }
        });
    }

    void activate_units(float* made) const {
        activate(activation, made, units);
        for (int64_t i = 0; rows > units && i < units; i++) made[i] *= made[units + i];
    }

    void write(Step& step, const Input* hidden, const Routed* mets, int64_t count, int64_t y, int64_t first_row) const {
        constexpr int64_t RUN = 128;
        share_rows(*step.pool, count * width, down.stride * met, [&](int64_t row, int64_t some) {
            alignas(64) float made[RUN];
            for (const int64_t end = row + some; row < end;) {
                const int64_t t = row / width, first = row % width, run = least(RUN, least(width - first, end - row));
                float* to = step.row(y, first_row + t) + first;
                if (!add) __builtin_memset(to, 0, run * sizeof(float));
                for (int64_t j = 0; j < met; j++) {
                    const int64_t from = mets[t].expert[j] * width + first;
                    dot_rows(down, from, run, hidden[t * met + j], made, 0);
                    if (down_bias.size) add_scaled(made, 1.0f, down_bias.data + from, run);
                    add_scaled(to, mets[t].gate[j], made, run);
                }
                row += run;
            }
        });
    }
};

inline void run_switch_experts(const Op& op, Step& step) {
    const SwitchOp part(op);
    const int64_t padded = step.registers[op.out[1]].width, stride = step.registers[op.out[2]].stride;
    const int64_t together = MOST_TOKENS / part.met, bytes = up_to(input_bytes(part.units, 1), 64);
    for (int64_t first = 0; first < step.rows; first += together) {
        const int64_t count = least(together, step.rows - first);
        const Sums made = {step.row(op.out[2], first), stride};
        Chooser tokens[MOST_TOKENS];
        Input hidden[MOST_TOKENS];
        Routed mets[MOST_TOKENS];
        const Input x =
            prepare(part.router, step.row(op.in[0], first), step.registers[op.in[0]].stride, count, step.scratch);
        share_rows(*step.pool, part.router.rows, part.router.stride, [&](int64_t row, int64_t some) {
            dot_rows(part.router, row, some, x, step.row(op.out[1], first) + row, step.registers[op.out[1]].stride);
        });
        for (int64_t t = 0; t < count; t++) {
            float* logits = step.row(op.out[1], first + t);
            for (int64_t i = part.router.rows; i < padded; i++) logits[i] = -__builtin_inff();
            mets[t] = likeliest(logits, padded, part.router.rows, part.met);
        }
        prepare_rows(part.in, step, op.in[0], first, tokens);
        part.read(step, tokens, mets, count, made);
        for (int64_t i = 0; i < count * part.met; i++) {
            float* units = made.data + i / part.met * stride + i % part.met * part.rows;
            part.activate_units(units);
            hidden[i] = prepare(part.down, units, 0, 1, step.scratch + i * bytes);
        }
        part.write(step, hidden, mets, count, op.out[0], first);
    }
}

}  // namespace

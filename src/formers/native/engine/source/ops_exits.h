// Early exit: the rows of tokens that have left the depth stand behind those that go on, until all are joined again. Those
// that go on are rows like any others; the operations behind `others` are run with those that have left.
#pragma once
#include "ops_attention.h"
#include "wide.h"

namespace {

void run_response(const Op& op, Step& step) {
    const int64_t vocab = step.registers[op.in[0]].width;
    for (int64_t r = 0; r < step.rows; r++) {
        const float* logits = step.row(op.in[0], r);
        float first = -__builtin_inff(), second = first, sum = 0;
        for (int64_t i = 0; i < vocab; i++) {
            second = most(second, least(first, logits[i]));
            first = most(first, logits[i]);
        }
        int64_t i = 0;
        Wide sums = {};
        for (; i + WIDE <= vocab; i += WIDE) sums += exponential(load_wide(logits + i) - first);
        sum = sum_of(sums);
        for (; i < vocab; i++) sum += __builtin_expf(logits[i] - first);
        *step.row(op.out[0], r) = (1.0f - __builtin_expf(second - first)) / sum;
    }
}

void run_alike(const Op& op, Step& step) {
    const int64_t width = step.registers[op.in[0]].width;
    for (int64_t r = 0; r < step.rows; r++) {
        const float *x = step.row(op.in[0], r), *y = step.row(op.in[1], r);
        const float lengths = __builtin_sqrtf(dot_run(x, x, width)) * __builtin_sqrtf(dot_run(y, y, width));
        *step.row(op.out[0], r) = dot_run(x, y, width) / most(lengths, op.floats[0]);
    }
}

inline void swap_rows(const Register& x, int64_t a, int64_t b) {
    float *first = x.data + a * x.stride, *second = x.data + b * x.stride;
    for (int64_t i = 0; i < x.width; i++) {
        const float kept = first[i];
        first[i] = second[i], second[i] = kept;
    }
}

inline void swap_numbers(int64_t* of, int64_t a, int64_t b) {
    const int64_t kept = of[a];
    of[a] = of[b], of[b] = kept;
}

// Brings row from[i] to place i, in these registers and in all that the call knows of its rows. Uses `from` up.
inline void rearrange(Step& step, const List<int64_t>& registers, int64_t* from) {
    for (int64_t i = 0; i < step.rows + step.left; i++) {
        int64_t place = from[i];
        while (place < i) place = from[place];  // it was swapped away from there
        if (place == i) continue;
        for (int64_t k = 0; k < registers.size; k++) swap_rows(step.registers[registers[k]], i, place);
        for (int64_t* numbers : {step.streams, step.positions, step.order}) swap_numbers(numbers, i, place);
    }
}

// Those that go on keep their order, so the rows of a stream still ascend and stand together.
void run_leave(const Op& op, Step& step) {
    int64_t from[MOST_ROWS], going = 0;
    bool leaves[MOST_ROWS];
    for (int64_t r = 0; r < step.rows; r++) {
        const float demanded = op.floats[0] + op.floats[1] * __builtin_expf(-op.floats[2] * float(step.positions[r]));
        leaves[r] = *step.row(op.in[0], r) >= least(1.0f, most(0.0f, demanded));  // never where either is no number
        if (!leaves[r]) from[going++] = r;
    }
    int64_t place = going;
    for (int64_t r = 0; r < step.rows + step.left; r++)
        if (r >= step.rows || leaves[r]) from[place++] = r;
    rearrange(step, op.out, from);
    step.left += step.rows - going, step.rows = going;
}

void run_others(const Op&, Step&) {}  // says whom the operations behind it are run with, which the session sees to

void run_keep(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++)
        for (int64_t i = 0; i < 2; i++)
            remember(step.cache(op.caches[i], r), step.row(op.in[i], r) + op.ints[3 + i], op.ints[0], op.ints[1 + i],
                     step.positions[r]);
}

void run_rejoin(const Op& op, Step& step) {
    int64_t from[MOST_ROWS];
    for (int64_t r = 0; r < step.rows + step.left; r++) from[step.order[r]] = r;
    rearrange(step, op.out, from);
    step.rows += step.left, step.left = 0;
}

}  // namespace

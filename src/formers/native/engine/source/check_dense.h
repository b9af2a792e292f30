// What the operations of ops_dense.h mean by their ints, floats, matrices and vectors, and what must hold of them.
#pragma once
#include "activation.h"
#include "check.h"

namespace {

// out: x. matrices: the table (V, M). floats: what its rows are multiplied by. vectors: [added to all rows].
void check_embed(const Check& c) {
    c.counts(0, 1, 0, 1, 1, 1);
    c.same("the width of the table", c.op.matrices[0].columns, c.out(0));
    c.optional("the length of what is added", c.op.vectors[0], c.out(0));
    c.same("the number of tokens in the table", c.op.matrices[0].rows, c.vocab());
}

// Adds the rows of tables, side by side, that belong to the digits of the position; the last digit is the lowest.
// out: x, scratch as wide as the widest. matrices: (length, width) for each digit.
void check_place(const Check& c) {
    c.counts(0, 2, 0, 0, c.op.matrices.size, 0);
    int64_t width = 0, places = 1;
    for (int64_t i = 0; i < c.op.matrices.size; i++) {
        const Matrix& table = c.op.matrices[i];
        c.within("the width of a table", table.columns, 1, std::min(c.out(1), c.out(0) - width));
        width += table.columns;
        c.within("the number of positions", table.rows, 1, (int64_t(1) << 40) / places);
        places *= table.rows;
    }
    c.same("the width of all tables", width, c.out(0));
    c.within("the length of the program", c.length(), 1, places);
}

// Adds sines and cosines of position * rate. out: x. vectors: rates, half as many as x is wide. ints: 0 they alternate, 1
// all sines come first.
void check_sinusoid(const Check& c) {
    c.counts(0, 1, 1, 0, 0, 1);
    c.same("the number of rates", 2 * c.op.vectors[0].size, c.out(0));
}

// Adds, for each base, the digits of the position, the lowest first, each times its own stretch of a vector; and a start
// at position 0. out: x. ints: digits, then the bases. vectors: [bases][digits][x / digits], the start as wide as x.
void check_digits(const Check& c) {
    const auto& ints = c.op.ints;
    c.counts(0, 1, std::max<int64_t>(ints.size, 2), 0, 0, 2);
    c.within("the number of digits", ints[0], 1, c.out(0));
    c.that(c.out(0) % ints[0] == 0, "digits do not share the width evenly");
    for (int64_t i = 1; i < ints.size; i++) c.within("a base", ints[i], 2, int64_t(1) << 40);
    c.same("the number of scales", c.op.vectors[0].size, (ints.size - 1) * c.out(0));
    c.same("the length of the start", c.op.vectors[1].size, c.out(0));
}

// The last three channels become 1 / (1 + bin), how much of the bin has passed, and whether it is odd. out: x. ints: the
// length of a bin.
void check_time_bin(const Check& c) {
    c.counts(0, 1, 1, 0, 0, 0);
    c.within("the length of a bin", c.op.ints[0], 1, int64_t(1) << 40);
    c.within("the width of the stream", c.out(0), 3, int64_t(1) << 40);
}

// Where the stream begins that has something before its tokens, such as an encoder's output: that is written to out, and
// of a token x as often as there is room. in: x. There is one in a program at most.
void check_enter(const Check& c) {
    c.counts(1, 1, 0, 0, 0, 0);
    c.that(c.out(0) % c.in(0) == 0, "the stream is not so many times as wide as what enters it");
    c.that(c.op.in[0] != c.op.out[0], "a stream cannot enter itself");
}

// Leaves the rows alone whose logits are asked for. out: the registers that are read on.
void check_pick(const Check& c) { c.counts(0, c.op.out.size, 0, 0, 0, 0); }

// in: x. out: y. ints: 0 LayerNorm, 1 RMSNorm. floats: eps. vectors: [gain], [bias].
void check_norm(const Check& c) {
    c.counts(1, 1, 1, 1, 0, 2);
    c.same("the width of what is normed", c.in(0), c.out(0));
    c.optional("the length of the gain", c.op.vectors[0], c.out(0));
    c.optional("the length of the bias", c.op.vectors[1], c.out(0));
}

// in: x. out: y, another. ints: 1 to add to y, an Activation, where x and y begin in their registers. vectors: [bias].
void check_linear(const Check& c) {
    c.counts(1, 1, 4, 0, 1, 1);
    c.within("whether to add", c.op.ints[0], 0, 1);
    c.within("the activation", c.op.ints[1], 0, ACTIVATIONS - 1);
    c.slice("the columns of the matrix", c.op.ints[2], c.op.matrices[0].columns, c.in(0));
    c.slice("the rows of the matrix", c.op.ints[3], c.op.matrices[0].rows, c.out(0));
    c.optional("the length of the bias", c.op.vectors[0], c.op.matrices[0].rows);
    c.that(c.op.in[0] != c.op.out[0], "a product cannot be written over what it reads");
}

// in: gates, then as many numbers to multiply by them; the gates are used up. out: y. ints: an Activation, of the gates.
void check_gate(const Check& c) {
    c.counts(1, 1, 1, 0, 0, 0);
    c.within("the activation", c.op.ints[0], 0, ACTIVATIONS - 1);
    c.same("the width of gates and numbers", c.in(0), 2 * c.out(0));
    c.that(c.op.in[0] != c.op.out[0], "the gated numbers cannot be written over the gates");
}

// out: the cosines of position / period, then the sines. vectors: periods.
void check_angles(const Check& c) {
    c.counts(0, 1, 0, 0, 0, 1);
    c.same("the width of the angles", c.out(0), 2 * c.op.vectors[0].size);
}

// Turns pairs of channels. in: angles. out: x. ints: where in x the first head begins, heads, their width, 0 for adjacent
// pairs and 1 for those half a head apart.
void check_rotate(const Check& c) {
    c.counts(1, 1, 4, 0, 0, 0);
    c.within("the width of a head", c.op.ints[2], 2, c.out(0));
    c.within("the number of heads", c.op.ints[1], 1, c.out(0));
    c.same("the width of the angles", c.in(0), c.op.ints[2]);
    c.that(c.op.ints[2] % 2 == 0, "heads are turned in pairs of channels");
    c.slice("the width of all heads", c.op.ints[0], c.op.ints[1] * c.op.ints[2], c.out(0));
    c.that(c.op.in[0] != c.op.out[0], "the angles cannot be turned");
}

// Vectors at length 1. in: q. out: k. ints: where in q the first head begins, heads, their width. floats: eps.
void check_unit(const Check& c) {
    c.counts(1, 1, 3, 1, 0, 0);
    c.within("the width of a head", c.op.ints[2], 1, c.in(0));
    c.within("the number of heads", c.op.ints[1], 1, c.in(0));
    c.slice("the width of all heads", c.op.ints[0], c.op.ints[1] * c.op.ints[2], c.in(0));
    c.same("the width of the keys", c.out(0), c.op.ints[1] * c.op.ints[2]);
    c.that(c.op.in[0] != c.op.out[0], "keys cannot be written over their queries");
}

void check_joined(const Check& c) {
    c.counts(1, 1, 0, 0, 0, 0);
    c.same("the width of what is read", c.in(0), c.out(0));
    c.that(c.op.in[0] != c.op.out[0], "a register cannot be joined to itself");
}

void check_add(const Check& c) { check_joined(c); }  // out += in
void check_mean(const Check& c) { check_joined(c); }  // out = (out + in) / 2

// Adds the same to all rows. out: x. vectors: what is added.
void check_shift(const Check& c) {
    c.counts(0, 1, 0, 0, 0, 1);
    c.same("the length of what is added", c.op.vectors[0].size, c.out(0));
}

// out: as much of in as fits. ints: where it begins.
void check_copy(const Check& c) {
    c.counts(1, 1, 1, 0, 0, 0);
    c.slice("what is copied", c.op.ints[0], c.out(0), c.in(0));
    c.that(c.op.in[0] != c.op.out[0], "a register cannot be copied to itself");
}

// out: all of in, one behind the other.
void check_concatenate(const Check& c) {
    c.counts(c.op.in.size, 1, 0, 0, 0, 0);
    int64_t width = 0;
    for (int64_t i = 0; i < c.op.in.size; i++) {
        width += c.in(i);
        c.that(c.op.in[i] != c.op.out[0], "a register cannot be put behind itself");
    }
    c.same("the width of all", width, c.out(0));
}

}  // namespace

// What the operations of ops_sparse*.h mean by their ints, floats, matrices and vectors, and what must hold of them.
#pragma once
#include "activation.h"
#include "check.h"
#include "sparse_shapes.h"

namespace {

// Registers that an operation writes while it reads others must be others, and each its own.
void check_apart(const Check& c) {
    for (int64_t i = 0; i < c.op.out.size; i++) {
        for (int64_t j = 0; j < c.op.in.size; j++)
            c.that(c.op.out[i] != c.op.in[j], "what it reads cannot be written over");
        for (int64_t j = 0; j < i; j++) c.that(c.op.out[i] != c.op.out[j], "two results need two registers");
    }
}

void check_flag(const Check& c, const char* what, int64_t flag) { c.within(what, flag, 0, 1); }

// A matrix of units, rows 2u and 2u + 1 for unit u, and the sums of the pieces of its work.
void check_units(const Check& c, const Matrix& units, int64_t count, int64_t pieces) {
    c.same("the number of rows of units", units.rows, 2 * count);
    c.same("the width of the units", units.columns, c.in(0)), c.same("the width of the output", c.out(0), c.in(0));
    c.within("the number of pieces", pieces, 1, MOST_PIECES);
    c.same("the width of the pieces' sums", c.out(2), pieces * up_to(c.out(0), 16));
}

// in: x. out: y; what the controller makes of x; sums of pieces. matrices: the controller's first (rank, M); its second,
// block by block (K, rank * width), see sparse_products.h; units (2 K N, M). vectors: the controller's bias, `width` for
// each block; [bias]. ints: N, units of a block; width, as many with their padding; pieces; 1 to add to y; 1 to weigh
// each unit by its chance.
void check_sparse_feedforward(const Check& c) {
    c.counts(1, 3, 5, 0, 3, 2), check_apart(c);
    const Matrix &inner = c.op.matrices[0], &blocks = c.op.matrices[1];
    const int64_t units = c.op.ints[0], width = c.op.ints[1];
    c.within("the units of a block", units, 1, MOST_CHOICES), c.within("their number with padding", width, units, MOST_CHOICES);
    c.that(width % 16 == 0, "the units of a block are padded to a multiple of 16");
    c.within("the rank of the controller", inner.rows, 1, MOST_BLOCK / width);
    c.that(inner.rows % 2 == 0, "the rank of the controller is padded to an even number");
    c.same("what the controller reads", inner.columns, c.in(0)), c.same("the width within the controller", c.out(1), inner.rows);
    c.same("the width of the controller's blocks", blocks.columns, inner.rows * width);
    check_units(c, c.op.matrices[2], blocks.rows * units, c.op.ints[2]);
    check_flag(c, "whether to add", c.op.ints[3]), check_flag(c, "whether to weigh", c.op.ints[4]);
    c.same("the length of the controller's bias", c.op.vectors[0].size, blocks.rows * width);
    c.optional("the length of the bias", c.op.vectors[1], c.out(0));
}

// in: x. out: y; logits, as many as experts and then up to a multiple of 16; sums of pieces. matrices: the router (E, M);
// units. vectors: [bias]. ints: units of an expert; pieces; 1 to add to y; 1 to weigh the expert by its chance.
void check_experts(const Check& c) {
    c.counts(1, 3, 4, 0, 2, 1), check_apart(c);
    const Matrix& router = c.op.matrices[0];
    c.same("what the router reads", router.columns, c.in(0));
    c.within("the number of experts", router.rows, 1, int64_t(1) << 30);
    c.same("the width of the logits", c.out(1), up_to(router.rows, 16));
    c.within("the units of an expert", c.op.ints[0], 1, int64_t(1) << 30);
    check_units(c, c.op.matrices[1], router.rows * c.op.ints[0], c.op.ints[1]);
    check_flag(c, "whether to add", c.op.ints[2]), check_flag(c, "whether to weigh", c.op.ints[3]);
    c.optional("the length of the bias", c.op.vectors[0], c.out(0));
}

// in: x. out: y; logits, as many as experts and then up to a multiple of 16; what the experts of a token make of it, k times
// the rows of an expert. matrices: the router (E, M); what units read by, (E F, M) or, gated, (E 2 F, M), of each expert first
// the gates; what they write by, (E M, F). vectors: [biases of the second], [of the third]. ints: F, units of an expert; k,
// experts that a token meets; an Activation, of the units or of the gates; 1 to add to y.
void check_switch_experts(const Check& c) {
    c.counts(1, 3, 4, 0, 3, 2), check_apart(c);
    const Matrix &router = c.op.matrices[0], &in = c.op.matrices[1], &down = c.op.matrices[2];
    const int64_t experts = router.rows, units = c.op.ints[0], met = c.op.ints[1];
    c.within("the number of experts", experts, 1, int64_t(1) << 30), c.within("the units of an expert", units, 1, int64_t(1) << 30);
    c.within("the experts that a token meets", met, 1, std::min(experts, MOST_MET));
    c.within("the activation", c.op.ints[2], 0, ACTIVATIONS - 1), check_flag(c, "whether to add", c.op.ints[3]);
    c.same("what the router reads", router.columns, c.in(0)), c.same("what the experts read", in.columns, c.in(0));
    c.same("the width of the logits", c.out(1), up_to(experts, 16));
    c.that(in.rows == experts * units || in.rows == 2 * experts * units, "the experts do not have as many rows as they need");
    c.same("the units that an expert writes by", down.columns, units);
    c.same("what the experts write", down.rows, experts * c.out(0));
    c.same("the width of what they make", c.out(2), met * (in.rows / experts));
    c.optional("the length of the first bias", c.op.vectors[0], in.rows);
    c.optional("the length of the second bias", c.op.vectors[1], down.rows);
}

void check_panel(const Check& c, int64_t panel) {
    c.within("the width of a panel", panel, 16, MOST_PANEL);
    c.that(panel % 16 == 0, "a panel is a multiple of 16 wide");
}

// in: x. out: y; sums of all, or of each piece. matrices: gates (blocks of 32 inputs, modules * 32); mix (panels * blocks,
// 32 * panel), panel by panel, or block by block. vectors: [bias]. ints: modules; panel; pieces; 1 to add to y; 1 if pieces
// are of panels and the matrix goes panel by panel, 0 if they are of blocks and it goes block by block.
void check_multiplicative(const Check& c) {
    c.counts(1, 2, 5, 0, 2, 1), check_apart(c);
    const Matrix &gate = c.op.matrices[0], &mix = c.op.matrices[1];
    const int64_t modules = c.op.ints[0], panel = c.op.ints[1], pieces = c.op.ints[2];
    c.within("the number of modules", modules, 1, MOST_BLOCK / DEPTH), check_panel(c, panel);
    c.same("the number of blocks of inputs", gate.rows, up_to(c.in(0), DEPTH) / DEPTH);
    c.same("the width of the gates", gate.columns, modules * DEPTH);
    c.same("the width of a block", mix.columns, DEPTH * panel);
    c.that(mix.rows % gate.rows == 0, "every panel must have all blocks of inputs");
    c.that(c.out(0) % modules == 0, "the output does not split into the modules");
    const int64_t width = mix.rows / gate.rows * panel;
    c.same("the width of all panels", width, up_to(c.out(0) / modules, 16));
    c.within("the number of pieces", pieces, 1, MOST_PIECES), check_flag(c, "whether to add", c.op.ints[3]);
    check_flag(c, "whether pieces are of panels", c.op.ints[4]);
    c.same("the width of the sums", c.out(1), (c.op.ints[4] ? 1 : pieces) * modules * width);
    c.optional("the length of the bias", c.op.vectors[0], c.out(0));
}

// in: x, or several whose modules stand side by side. out: a register for each convolution. matrices, vectors: for each,
// (panels * length * blocks of 32 inputs, 32 * panel), panel by panel and tap by tap, and its bias, [one number for each
// output of a module]. ints: modules; inputs of each; length, in tokens; modules kept free on either side; 1 to add to
// what is there; then for each the width of its kernel, in modules, and of its panels. caches: slots.
void check_module_convolution(const Check& c) {
    const int64_t outputs = c.op.matrices.size;
    c.counts(c.op.in.size, outputs, 5 + 2 * outputs, 0, outputs, outputs, 1), check_apart(c);
    const int64_t modules = c.op.ints[0], inputs = c.op.ints[1], length = c.op.ints[2], beside = c.op.ints[3];
    c.within("the number of inputs", c.op.in.size, 1, 8), c.within("the number of outputs", outputs, 1, 64);
    c.within("the number of modules", modules, 1, c.in(0));
    for (int64_t i = 0; i < c.op.in.size; i++) {
        c.same("the width of an input", c.in(i), c.in(0));
        c.that(c.in(i) % modules == 0, "an input does not split into the modules");
    }
    c.same("the inputs of a module", inputs, c.in(0) / modules * c.op.in.size);
    c.within("the length of the kernels", length, 1, 1 << 16), c.within("the modules beside", beside, 0, 1 << 16);
    check_flag(c, "whether to add", c.op.ints[4]);
    for (int64_t i = 0; i < outputs; i++) {
        const Matrix& m = c.op.matrices[i];
        const int64_t wide = c.op.ints[5 + 2 * i], panel = c.op.ints[6 + 2 * i];
        c.within("the width of a kernel", wide, 1, 2 * beside + 1), check_panel(c, panel);
        c.that(wide % 2 == 1, "a kernel must have a middle module");
        c.within("the inputs of a kernel", inputs, 1, MOST_CONVOLVED * DEPTH / wide);
        c.that(m.type == c.op.matrices[0].type, "all kernels must be of one type");
        c.same("the width of a block", m.columns, DEPTH * panel);
        c.that(c.out(i) % modules == 0, "an output does not split into the modules");
        const int64_t panels = up_to(c.out(i) / modules, 16) / panel;
        c.same("the width of all panels", panels * panel, up_to(c.out(i) / modules, 16));
        c.same("the number of blocks", m.rows, panels * steps_of(c.op, i));
        c.optional("the length of a bias", c.op.vectors[i], c.out(i) / modules);
    }
    c.own_floats("its slots must be a fixed cache of floats with one head");
    c.same("the number of slots", c.cache(0).capacity, length);
    c.same("the size of a slot", c.cache(0).width, conv_slot(modules, inputs, beside));
}

// in: x. out: y; x with the ends of its circle of modules on either side. matrices: (outputs, kernel's modules * inputs of
// a module). vectors: [bias]. ints: modules.
void check_modular(const Check& c) {
    c.counts(1, 2, 1, 0, 1, 1), check_apart(c);
    const Matrix& m = c.op.matrices[0];
    const int64_t modules = c.op.ints[0];
    c.within("the number of modules", modules, 1, c.in(0));
    c.that(c.in(0) % modules == 0, "the input does not split into the modules");
    c.that(c.out(0) % modules == 0, "the output does not split into the modules");
    const int64_t each = c.in(0) / modules, wide = m.columns / each;
    c.that(m.columns % each == 0 && wide % 2 == 1 && wide <= modules, "a kernel must have a middle module");
    c.same("the number of outputs", m.rows, c.out(0));
    c.same("the length of the circle", c.out(1), c.in(0) + (wide - 1) * each);
    c.optional("the length of the bias", c.op.vectors[0], c.out(0));
}

// in: two gates and an update, side by side. out: x, which becomes the output. caches: what is carried on.
void check_recurrent(const Check& c) {
    c.counts(1, 1, 0, 0, 0, 0, 1), check_apart(c);
    c.same("the width of gates and update", c.in(0), 3 * c.out(0));
    c.own_floats("what is carried must be a fixed cache of floats with one head");
    c.same("the number of slots", c.cache(0).capacity, 1), c.same("the width of what is carried", c.cache(0).width, c.out(0));
}

}  // namespace

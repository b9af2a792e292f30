// Convolutions over time and neighbouring modules. Each token of a stream leaves its modules in a row, with zeros beside
// them, in one of `length` slots; a convolution then reads a run of each slot for every module.
#pragma once
#include "sparse_shapes.h"
#include "sparse_tiles.h"

namespace {

// A panel of one of the outputs: rows `first` to `first` + `steps` of its matrix.
struct Panel {
    const Matrix& m;
    int64_t output, number, steps;

    int64_t first() const { return number * steps; }
    void ask(Asking& asking) const { asking = {m.data + first() * m.stride, steps * m.stride}; }
};

struct Convolution {
    const Op& op;
    Step& step;
    const int64_t modules, inputs, length, beside;  // inputs: of a module
    const int64_t slot;                             // floats of one slot

    Convolution(const Op& op, Step& step)
        : op(op), step(step), modules(op.ints[0]), inputs(op.ints[1]), length(op.ints[2]), beside(op.ints[3]),
          slot(conv_slot(op.ints[0], op.ints[1], op.ints[3])) {}

    // Where the numbers of some token are, in bytes from there on.
    uint8_t* slot_of(int64_t row, int64_t time) const {
        return reinterpret_cast<uint8_t*>(step.cache(op.caches[0], row).floats() + time % length * slot);
    }

    // The given one of all outputs' panels.
    Panel panel(int64_t number) const {
        int64_t output = 0;
        for (int64_t own; number >= (own = op.matrices[output].rows / steps_of(op, output)); output++) number -= own;
        return {op.matrices[output], output, number, steps_of(op, output)};
    }

    void store(int64_t row, int64_t time) const {
        const int64_t each = inputs / op.in.size, number = input_size(op.matrices[0]);
        uint8_t* to = slot_of(row, time) + beside * inputs * number;
        for (int64_t i = 0; i < op.in.size; i++) {
            const float* x = step.row(op.in[i], row);
            if (op.in.size == 1) return store_inputs(op.matrices[0], to, slot * 2, x, modules * inputs);
            for (int64_t s = 0; s < modules; s++)
                store_inputs(op.matrices[0], to + (s * inputs + i * each) * number, slot * 2, x + s * each, each);
        }
    }
};

// A group of modules of a row that is worked on.
struct ModuleGroup {
    int64_t row, time, first, size;
};

// One panel for up to four groups, while `asking` asks for another.
inline void convolve(const Convolution& c, const Panel& panel, const ModuleGroup* groups, int64_t count, Asking& asking) {
    const int64_t wide = c.op.ints[5 + 2 * panel.output], width = c.op.ints[6 + 2 * panel.output];
    const int64_t blocks = panel.steps / c.length, number = input_size(panel.m);
    Groups g = {count, {}, c.inputs * number, c.slot * 2, false};
    alignas(64) float made[MOST_VECTORS_AT_ONCE * MOST_PANEL];
    TileSums sums = {{}, width};
    for (int64_t t = 0; t < count; t++) g.sizes[t] = groups[t].size, sums.data[t] = made + t * GROUP * width;
    __builtin_memset(made, 0, count * GROUP * width * sizeof(float));
    BlockStep some[MOST_STEPS];
    int64_t ready = 0;
    for (int64_t tap = 0, row = panel.first(); tap < c.length; tap++) {
        const uint8_t* inputs[MOST_GROUPS];
        for (int64_t t = 0; t < count; t++)
            inputs[t] = c.slot_of(groups[t].row, groups[t].time + 1 + tap) +
                        (groups[t].first + c.beside - wide / 2) * c.inputs * number;
        for (int64_t i = 0; i < blocks; i++) {
            some[ready].row = row++;
            for (int64_t t = 0; t < count; t++) some[ready].inputs[t] = inputs[t] + i * DEPTH * number;
            if (++ready == MOST_STEPS) add_products(panel.m, some, ready, width, g, asking, sums), ready = 0;
        }
    }
    add_products(panel.m, some, ready, width, g, asking, sums);
    const int64_t out = c.step.registers[c.op.out[panel.output]].width / c.modules, first = panel.number * width;
    const Vector& bias = c.op.vectors[panel.output];
    for (int64_t t = 0; t < count; t++)
        for (int64_t s = 0; s < groups[t].size; s++) {
            float* y = c.step.row(c.op.out[panel.output], groups[t].row) + (groups[t].first + s) * out + first;
            const Vector own = {bias.data + (bias.size ? first : 0), bias.size ? out - first : 0};
            join_pieces(y, c.op.ints[4], own, made + (t * GROUP + s) * width, 1, 0, least(width, out - first));
        }
}

// Rows [first, last), no two of one stream.
inline void run_wave(const Convolution& c, const int64_t* rows, const int64_t* times, int64_t count) {
    const int64_t each = (c.modules + GROUP - 1) / GROUP, all = count * each;
    for (int64_t i = 0; i < count; i++) c.store(rows[i], times[i]);
    int64_t panels = 0, bytes = 0;
    for (int64_t i = 0; i < c.op.matrices.size; i++) {
        panels += c.op.matrices[i].rows / steps_of(c.op, i);
        bytes += c.op.matrices[i].rows * c.op.matrices[i].stride;
    }
    share(*c.step.pool, panels, bytes, [&](int64_t piece) {
        [[maybe_unused]] const Tiles tiles;
        const Panel panel = c.panel(piece);
        Asking asking;
        if (piece + 1 < panels) c.panel(piece + 1).ask(asking);  // whoever takes a piece mostly takes the next one, too
        for (int64_t first = 0; first < all; first += MOST_GROUPS) {
            ModuleGroup groups[MOST_GROUPS];
            const int64_t some = least(MOST_GROUPS, all - first);
            for (int64_t t = 0; t < some; t++) {
                const int64_t i = (first + t) / each, module = (first + t) % each * GROUP;
                groups[t] = {rows[i], times[i], module, least(GROUP, c.modules - module)};
            }
            convolve(c, panel, groups, some, asking);
            asking = {};
        }
    });
}

inline void run_module_convolution(const Op& op, Step& step) {
    const Convolution c(op, step);
    // Each wave takes the next row of every stream: their slots hold `length` tokens and no more.
    for (int64_t nth = 0, left = step.rows; left > 0; nth++) {
        int64_t rows[MOST_ROWS], times[MOST_ROWS], count = 0;
        for (int64_t r = 0, own = 0; r < step.rows; r++) {
            own = r > 0 && step.streams[r] == step.streams[r - 1] ? own + 1 : 0;
            if (own == nth) rows[count] = r, times[count++] = step.cache(op.caches[0], r).length + own;
        }
        run_wave(c, rows, times, count);
        left -= count;
    }
}

}  // namespace

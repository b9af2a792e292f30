// The operations of every Transformer but attention's own: embedding, norms, products, rotary positions, sums.
// What their ints, floats, matrices and vectors mean is said above their checks, in check_dense.h.
#pragma once
#include "dot.h"
#include "wide.h"

namespace {

void run_embed(const Op& op, Step& step) {
    const int64_t x = op.out[0], width = step.registers[x].width;
    for (int64_t r = 0; r < step.rows; r++) {
        float* y = step.row(x, r);
        read_row(op.matrices[0], step.tokens[r], y);
        if (op.floats[0] != 1.0f) scale_run(y, op.floats[0], width);
        if (op.vectors[0].size) add_scaled(y, 1.0f, op.vectors[0].data, width);
    }
}

void run_place(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++) {
        int64_t rest = step.positions[r], first = step.registers[op.out[0]].width;
        float* digit = step.row(op.out[1], r);
        for (int64_t axis = op.matrices.size - 1; axis >= 0; axis--) {
            const Matrix& table = op.matrices[axis];
            first -= table.columns;
            read_row(table, rest % table.rows, digit);
            add_scaled(step.row(op.out[0], r) + first, 1.0f, digit, table.columns);
            rest /= table.rows;
        }
    }
}

void run_sinusoid(const Op& op, Step& step) {
    const Vector& rates = op.vectors[0];
    const bool halves = op.ints[0] != 0;
    for (int64_t r = 0; r < step.rows; r++) {
        float* y = step.row(op.out[0], r);
        for (int64_t i = 0; i < rates.size; i++) {
            const float angle = float(step.positions[r]) * rates.data[i];
            y[halves ? i : 2 * i] += __builtin_sinf(angle);
            y[halves ? rates.size + i : 2 * i + 1] += __builtin_cosf(angle);
        }
    }
}

void run_digits(const Op& op, Step& step) {
    const int64_t digits = op.ints[0], width = step.registers[op.out[0]].width / digits;
    for (int64_t r = 0; r < step.rows; r++) {
        float* x = step.row(op.out[0], r);
        const float* scales = op.vectors[0].data;
        for (int64_t base = 1; base < op.ints.size; base++) {
            int64_t rest = step.positions[r];
            for (int64_t i = 0; i < digits; i++, scales += width, rest /= op.ints[base])
                add_scaled(x + i * width, float(rest % op.ints[base]), scales, width);
        }
        if (step.positions[r] == 0) add_scaled(x, 1.0f, op.vectors[1].data, digits * width);
    }
}

void run_time_bin(const Op& op, Step& step) {
    const int64_t length = op.ints[0], width = step.registers[op.out[0]].width;
    for (int64_t r = 0; r < step.rows; r++) {
        const int64_t bin = step.positions[r] / length, inside = step.positions[r] % length;
        float* x = step.row(op.out[0], r) + width - 3;
        x[0] = 1.0f / float(1 + bin), x[1] = float(inside) / float(length), x[2] = float(bin % 2);
    }
}

void run_enter(const Op& op, Step& step) {
    step.positions = step.in_stream;
    const Register &x = step.registers[op.in[0]], &y = step.registers[op.out[0]];
    for (int64_t r = 0; r < step.rows; r++)
        if (step.vectors)
            copy_run(y.data + r * y.stride, step.vectors + r * y.width, y.width);
        else
            for (int64_t first = 0; first < y.width; first += x.width)
                copy_run(y.data + r * y.stride + first, x.data + r * x.stride, x.width);
}

void run_pick(const Op& op, Step& step) {
    for (int64_t i = 0; i < step.wanted_rows; i++)
        for (int64_t j = 0; j < op.out.size; j++) {
            const Register& x = step.registers[op.out[j]];
            copy_run(x.data + i * x.stride, x.data + step.wanted[i] * x.stride, x.width);
        }
    step.rows = step.wanted_rows;
    // which token, stream and position a row has is not asked for behind the depth
}

void layer_norm(const float* x, float* y, int64_t width, float eps) {
    const float mean = sum_run(x, width) / float(width);
    for (int64_t i = 0; i < width; i++) y[i] = x[i] - mean;
    scale_run(y, 1.0f / __builtin_sqrtf(dot_run(y, y, width) / float(width) + eps), width);
}

void rms_norm(const float* x, float* y, int64_t width, float eps) {
    const float scale = 1.0f / __builtin_sqrtf(dot_run(x, x, width) / float(width) + eps);
    for (int64_t i = 0; i < width; i++) y[i] = x[i] * scale;
}

// Calls work(r) for every row; `floats`: that it reads and writes.
template <class Work>
void for_rows(const Step& step, int64_t floats, const Work& work) {
    share(*step.pool, step.rows, step.rows * floats * int64_t(sizeof(float)), work);
}

void run_norm(const Op& op, Step& step) {
    const int64_t width = step.registers[op.out[0]].width;
    const float *gain = op.vectors[0].data, *bias = op.vectors[1].data;
    for_rows(step, 2 * width, [&](int64_t r) {
        const float* x = step.row(op.in[0], r);
        float* y = step.row(op.out[0], r);
        (op.ints[0] ? rms_norm : layer_norm)(x, y, width, op.floats[0]);
        if (op.vectors[0].size)
            for (int64_t i = 0; i < width; i++) y[i] *= gain[i];
        if (op.vectors[1].size)
            for (int64_t i = 0; i < width; i++) y[i] += bias[i];
    });
}

// The rows of an input, brought into the form that products with one kind of matrix read, MOST_BATCH rows together.
struct Ready {
    static_assert(MOST_BATCH == 16, "scratch_bytes counts on it");
    static_assert(MOST_ROWS <= MOST_INPUTS * MOST_BATCH, "all rows of a call meet the weights together");
    Input inputs[MOST_INPUTS];
    int64_t count;
};

// x: of the first row. Uses up the step's scratch.
Ready ready(const Step& step, const Matrix& like, const float* x, int64_t stride) {
    Ready made = {{}, (step.rows + MOST_BATCH - 1) / MOST_BATCH};
    const int64_t bytes = up_to(input_bytes(like.columns, MOST_BATCH), 64);
    share(*step.pool, made.count, step.rows * like.columns * int64_t(sizeof(float)), [&](int64_t i) {
        const int64_t r = i * MOST_BATCH, batch = least(MOST_BATCH, step.rows - r);
        made.inputs[i] = prepare(like, x + r * stride, stride, batch, step.scratch + i * bytes);
    });
    return made;
}

// What comes behind a product: bias, activation, and joining what stands there.
void finish(const Op& op, float* made, int64_t first, int64_t count, float* y) {
    if (op.vectors[0].size) add_scaled(made, 1.0f, op.vectors[0].data + first, count);
    activate(op.ints[1], made, count);
    if (op.ints[0])
        add_scaled(y, 1.0f, made, count);
    else
        copy_run(y, made, count);
}

void run_linear(const Op& op, Step& step) {
    const Matrix& matrix = op.matrices[0];
    const Register &x = step.registers[op.in[0]], &y = step.registers[op.out[0]];
    const Ready given = ready(step, matrix, x.data + op.ints[2], x.stride);
    share_rows(*step.pool, matrix.rows, matrix.stride, [&](int64_t first, int64_t count) {
        alignas(64) float made[MOST_ROWS * MOST_RUN];
        for (const int64_t end = first + count; first < end; first += MOST_RUN) {
            const int64_t run = least(MOST_RUN, end - first);
            dot_rows(matrix, first, run, given.inputs, given.count, made, MOST_RUN);
            for (int64_t r = 0; r < step.rows; r++)
                finish(op, made + r * MOST_RUN, first, run, y.data + r * y.stride + op.ints[3] + first);
        }
    }, given.count < 2 ? MOST_BATCH : matrix.columns > COLUMNS_AT_ONCE ? MOST_RUN : 2 * MOST_BATCH);
}

void run_gate(const Op& op, Step& step) {
    const int64_t width = step.registers[op.out[0]].width;
    for_rows(step, 3 * width, [&](int64_t r) {
        float *gates = step.row(op.in[0], r), *y = step.row(op.out[0], r);
        activate(op.ints[0], gates, width);
        const float* up = gates + width;
        for (int64_t i = 0; i < width; i++) y[i] = gates[i] * up[i];
    });
}

void run_angles(const Op& op, Step& step) {
    const Vector& periods = op.vectors[0];
    for (int64_t r = 0; r < step.rows; r++) {
        float* y = step.row(op.out[0], r);
        for (int64_t i = 0; i < periods.size; i++) {
            const float angle = float(step.positions[r]) / periods.data[i];
            y[i] = __builtin_cosf(angle);
            y[periods.size + i] = __builtin_sinf(angle);
        }
    }
}

void run_rotate(const Op& op, Step& step) {
    const int64_t first = op.ints[0], heads = op.ints[1], half = op.ints[2] / 2;
    const bool halves = op.ints[3] != 0;
    for (int64_t r = 0; r < step.rows; r++) {
        const float *cosines = step.row(op.in[0], r), *sines = cosines + half;
        for (int64_t h = 0; h < heads; h++) {
            float* head = step.row(op.out[0], r) + first + h * 2 * half;
            for (int64_t i = 0; i < half; i++) {
                float &a = head[halves ? i : 2 * i], &b = head[halves ? half + i : 2 * i + 1];
                const float turned = a * cosines[i] - b * sines[i];
                b = b * cosines[i] + a * sines[i];
                a = turned;
            }
        }
    }
}

void run_unit(const Op& op, Step& step) {
    const int64_t first = op.ints[0], heads = op.ints[1], width = op.ints[2];
    for (int64_t r = 0; r < step.rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            const float* q = step.row(op.in[0], r) + first + h * width;
            float* k = step.row(op.out[0], r) + h * width;
            const float scale = 1.0f / __builtin_sqrtf(dot_run(q, q, width) + float(width) * op.floats[0]);
            for (int64_t i = 0; i < width; i++) k[i] = q[i] * scale;
        }
}

void run_add(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++)
        add_scaled(step.row(op.out[0], r), 1.0f, step.row(op.in[0], r), step.registers[op.out[0]].width);
}

void run_shift(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++)
        add_scaled(step.row(op.out[0], r), 1.0f, op.vectors[0].data, op.vectors[0].size);
}

void run_copy(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++)
        copy_run(step.row(op.out[0], r), step.row(op.in[0], r) + op.ints[0], step.registers[op.out[0]].width);
}

void run_mean(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++) {
        float* y = step.row(op.out[0], r);
        add_scaled(y, 1.0f, step.row(op.in[0], r), step.registers[op.out[0]].width);
        scale_run(y, 0.5f, step.registers[op.out[0]].width);
    }
}

void run_concatenate(const Op& op, Step& step) {
    for (int64_t r = 0; r < step.rows; r++) {
        float* y = step.row(op.out[0], r);
        for (int64_t i = 0; i < op.in.size; i++) {
            const Register& x = step.registers[op.in[i]];
            copy_run(y, x.data + r * x.stride, x.width);
            y += x.width;
        }
    }
}

}  // namespace

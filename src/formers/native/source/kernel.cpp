// Everything that depends on the instruction set. It is compiled once for each: LANES is the number of floats in a
// vector, ROWS x COLUMNS the vectors of a product that stay in registers, KERNEL the name of the table.
// Nothing here may be shared with code for other machines, so all is in an unnamed namespace, without the C++ library.
#include "backward.h"
#include "chosen.h"
#include "controller.h"
#include "forward.h"
#include "nearest.h"
#include "visit_backward.h"
#include "visit_forward.h"

namespace {

int64_t scratch_size(const Problem& p) {
    Scratch forward = {nullptr, true}, backward = {nullptr, true};
    run_forward(p, {}, forward);
    run_backward(p, {}, backward);
    const auto size = [](const Scratch& s) { return int64_t(reinterpret_cast<uintptr_t>(s.next)); };
    return size(forward) > size(backward) ? size(forward) : size(backward);
}

void forward(const Problem& p, const Range& range, void* memory) {
    Scratch scratch = {static_cast<char*>(memory)};
    run_forward(p, range, scratch);
}

void backward(const Problem& p, const Range& range, void* memory) {
    Scratch scratch = {static_cast<char*>(memory)};
    run_backward(p, range, scratch);
}

int64_t visit_scratch(const Visits& p) {
    Scratch forward = {nullptr, true}, backward = {nullptr, true};
    const VisitForward one(p, forward);
    const VisitBackward other(p, backward);
    const auto size = [](const Scratch& s) { return int64_t(reinterpret_cast<uintptr_t>(s.next)); };
    return size(forward) > size(backward) ? size(forward) : size(backward);
}

void visit_forward(const Visits& p, const VisitRange& range, void* memory) {
    Scratch scratch = {static_cast<char*>(memory)};
    VisitForward(p, scratch).run(range);
}

void visit_backward(const Visits& p, const VisitRange& range, void* memory) {
    Scratch scratch = {static_cast<char*>(memory)};
    VisitBackward(p, scratch).run(range);
}

void settle(const Visits& p, int64_t item) { settle_row(p, item / p.heads, item % p.heads); }

void visit_deltas(const Visits& p, int64_t item) { sum_deltas(p, item / p.heads, item % p.heads); }

void nearest(const float* x, int64_t rows, int64_t axes, int32_t* to) { nearest_axes(x, rows, axes, to); }

void exponentials(const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(y + i, exponential(load<Floats>(x + i)));
}

}  // namespace

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

extern "C" const Kernel KERNEL;
extern "C" const Kernel KERNEL = {TEXT(KERNEL),   scratch_size,  forward,      backward,      visit_scratch, visit_forward,
                                  visit_backward, settle,        visit_deltas, nearest,       exponentials,  unit_products,
                                  unit_sums,      unit_outers,   draw_units,   weigh_units,   slope_units,   control,
                                  control_backward};

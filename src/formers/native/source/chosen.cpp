// The face of choices, and of products with chosen rows: shares them among threads, so that no two write to the same
// number, and results do not depend on how many there are.
#include <new>
#include <vector>

#include "machine.h"
#include "memory.h"

namespace {

// Calls work(kernel, some) until all of `count` are done, `at_once` at a time.
template <class Work>
int in_pieces(int64_t count, int64_t at_once, const char* name, int64_t threads, Work&& work) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    try {
        share((count + at_once - 1) / at_once, threads, [&](int64_t item, int64_t) {
            const int64_t first = item * at_once, last = first + at_once;
            work(*kernel, Rows{first, last < count ? last : count});
        });
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

constexpr int64_t BLOCKS = 4096;  // that are chosen in at a time
constexpr int64_t DECIDED = 128;  // rows whose choices a controller makes at a time

using OfBlocks = void (*)(const Draws&, Rows);

int by_blocks(const Draws& draws, const char* kernel, int64_t threads, OfBlocks Kernel::* work) {
    return in_pieces(draws.blocks, BLOCKS, kernel, threads,
                     [&](const Kernel& with, Rows blocks) { (with.*work)(draws, blocks); });
}

using OfRows = void (*)(const Units&, const UnitArrays&, Rows);

int by_units(const Units& units, const UnitArrays& arrays, int64_t count, int64_t at_once, const char* kernel,
             int64_t threads, OfRows Kernel::* work) {
    return in_pieces(count, at_once, kernel, threads,
                     [&](const Kernel& with, Rows some) { (with.*work)(units, arrays, some); });
}

}  // namespace

FACE int formers_draw_units(const Draws* draws, const char* kernel, int64_t threads) {
    return by_blocks(*draws, kernel, threads, &Kernel::draw_units);
}

FACE int formers_weigh_units(const Draws* draws, const char* kernel, int64_t threads) {
    return by_blocks(*draws, kernel, threads, &Kernel::weigh_units);
}

FACE int formers_slope_units(const Draws* draws, const char* kernel, int64_t threads) {
    return by_blocks(*draws, kernel, threads, &Kernel::slope_units);
}

FACE int formers_control(const Controller* controller, const char* kernel, int64_t threads) {
    return in_pieces(controller->rows, DECIDED, kernel, threads,
                     [&](const Kernel& with, Rows rows) { with.control(*controller, rows); });
}

FACE int formers_control_backward(const Controller* controller, const char* kernel, int64_t threads) {
    return in_pieces(controller->blocks, controller->at_once, kernel, threads,
                     [&](const Kernel& with, Rows blocks) { with.control_backward(*controller, blocks); });
}

FACE int formers_unit_products(const Units* units, const UnitArrays* arrays, const char* kernel, int64_t threads) {
    return by_units(*units, *arrays, units->rows, rows_of(units->width), kernel, threads, &Kernel::unit_products);
}

FACE int formers_unit_sums(const Units* units, const UnitArrays* arrays, const char* kernel, int64_t threads) {
    return by_units(*units, *arrays, units->rows, rows_of(units->width), kernel, threads, &Kernel::unit_sums);
}

FACE int formers_unit_outers(const Units* units, const UnitArrays* arrays, const char* name, int64_t threads) {
    const Kernel* kernel = find(name);
    if (!kernel) return NO_KERNEL;
    const int64_t each = units->size * units->width, at_once = rows_of(each);
    try {
        std::vector<Memory> scratch;
        for (int64_t t = 0; arrays->turned && t < (threads < 1 ? 1 : threads); t++)
            scratch.push_back(aligned(at_once * each * int64_t(sizeof(float))));
        share((units->blocks + at_once - 1) / at_once, threads, [&](int64_t item, int64_t thread) {
            const int64_t first = item * at_once, last = first + at_once;
            float* own = arrays->turned ? static_cast<float*>(scratch[thread].get()) : nullptr;
            kernel->unit_outers(*units, *arrays, Rows{first, last < units->blocks ? last : units->blocks}, own);
        });
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

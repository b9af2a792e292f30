// The face of the library: cuts products into pieces and shares them among threads. Sums are cut where the shape says, not
// the number of threads, so results do not depend on it.
#include <new>
#include <utility>
#include <vector>

#include "amx.h"
#include "memory.h"
#include "product.h"
#include "share.h"

extern "C" const Tiled tiled_amx;

#define FACE extern "C" __attribute__((visibility("default")))

namespace {

enum Answer { DONE, NO_MEMORY, NO_KERNEL };

constexpr int64_t NUMBERS = 1 << 18;   // of the right matrix in a piece, at a time
constexpr int64_t DEPTH = 512;         // columns have so many of these
constexpr int64_t SHORTEST = 256;      // rows that a piece has at least, or packing its columns does not pay
constexpr int64_t LONG = 4096;         // sums of so many numbers are cut where there are few of them, into
constexpr int64_t LEAST_OF_SUM = 1024;  // at least so many numbers and at most
constexpr int64_t MOST_SUMS = 8;

int64_t shares(int64_t count, int64_t size) { return (count + size - 1) / size; }

// The i-th of `of` shares of `count`, in whole blocks.
Span share_of(int64_t count, int64_t i, int64_t of, int64_t block) {
    const int64_t blocks = shares(count, block), first = blocks * i / of * block, last = blocks * (i + 1) / of * block;
    return {first, last < count ? last : count};
}

// A product cut into pieces, no two of which write to the same number.
class Cut {
   public:
    // wanted: so many pieces at least, if they are not too small.
    Cut(const Product& product, int64_t wanted)
        : p(product), wide(shares(p.columns, width())), deep(cuts_of_sums()), high(cuts_of_rows(wanted)) {
        if (deep > 1) sums = aligned((deep - 1) * p.rows * p.columns * int64_t(sizeof(float)));
    }

    int64_t pieces() const { return wide * deep * high; }

    int64_t scratch() const {
        int64_t most = 0;
        for (int64_t item = 0; item < pieces(); item++) {
            const int64_t own = tiled_amx.scratch(p, piece(item));
            most = own > most ? own : most;
        }
        return most;
    }

    void run(int64_t item, void* memory) const { tiled_amx.run(p, piece(item), memory); }

    // Sums that were cut, to be added up when all pieces are done, row by row.
    bool is_partial() const { return deep > 1; }
    int64_t rows() const { return p.rows; }
    void add_up(int64_t row) const {
        float* out = p.out + row * p.out_row;
        for (int64_t cut = 1; cut < deep; cut++) {
            const float* from = partial(cut) + row * p.columns;
            for (int64_t c = 0; c < p.columns; c++) out[c] += from[c];
        }
    }

   private:
    int64_t width() const { return NUMBERS / (p.inner < SHORTEST ? SHORTEST : p.inner < DEPTH ? p.inner : DEPTH); }

    int64_t cuts_of_sums() const {
        if (p.inner < LONG || shares(p.rows, DEPTH) * wide > 2) return 1;
        const int64_t most = shares(p.inner, LEAST_OF_SUM);
        return most < MOST_SUMS ? most : MOST_SUMS;
    }

    int64_t cuts_of_rows(int64_t wanted) const {
        const int64_t most = shares(p.rows, SHORTEST), least = shares(p.rows, 8 * SHORTEST);
        const int64_t cuts = shares(wanted, wide * deep) > least ? shares(wanted, wide * deep) : least;
        return cuts < most ? cuts : most;
    }

    float* partial(int64_t cut) const { return static_cast<float*>(sums.get()) + (cut - 1) * p.rows * p.columns; }

    Piece piece(int64_t item) const {
        const int64_t cut = item / (wide * high), i = item / wide % high, j = item % wide;
        const Span rows = share_of(p.rows, i, high, 32), columns = share_of(p.columns, j, wide, 32);
        const Span inner = share_of(p.inner, cut, deep, 32);
        if (cut == 0)
            return {rows, columns, inner, p.out + rows.first * p.out_row + columns.first, p.out_row,
                    p.bias ? p.bias + columns.first : nullptr, p.add != 0};
        return {rows, columns, inner, partial(cut) + rows.first * p.columns + columns.first, p.columns, nullptr, false};
    }

    const Product& p;
    const int64_t wide, deep, high;
    Memory sums;
};

void multiply(const Product* products, int64_t count, int64_t threads) {
    std::vector<Cut> cuts;
    std::vector<std::pair<const Cut*, int64_t>> pieces;
    int64_t bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        cuts.emplace_back(products[i], shares(threads > 1 ? 2 * threads : 1, count));
        const int64_t own = cuts.back().scratch();
        bytes = own > bytes ? own : bytes;
    }
    for (const Cut& cut : cuts)
        for (int64_t item = 0; item < cut.pieces(); item++) pieces.emplace_back(&cut, item);
    std::vector<Memory> scratch;
    for (int64_t t = 0; t < threads && t < int64_t(pieces.size()); t++) scratch.push_back(aligned(bytes));
    share(int64_t(pieces.size()), threads, [&](int64_t i, int64_t thread) {
        pieces[i].first->run(pieces[i].second, scratch[thread].get());
    });
    for (const Cut& cut : cuts)
        if (cut.is_partial()) share(cut.rows(), threads, [&](int64_t row, int64_t) { cut.add_up(row); });
}

}  // namespace

FACE void formers_use_threads(Fork fork) { fork_of_process() = fork; }

FACE int64_t formers_product_size() { return sizeof(Product); }

FACE int formers_runs_here() { return has_amx(); }

// Products of which none reads what another writes.
FACE int formers_multiply(const Product* products, int64_t count, int64_t threads) {
    if (!has_amx()) return NO_KERNEL;
    try {
        multiply(products, count, threads < 1 ? 1 : threads);
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

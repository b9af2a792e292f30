// Products of floats by tiles (AMX), which multiply bf16 and add up in floats. With a = a1 + a2 + a3 and b alike, the sum is
// a1 b1 + a1 b2 + a2 b1 + a1 b3 + a2 b2 + a3 b1, and what is left out is below the rounding of a float; with two parts,
// the first three. Tiles multiply bf16 more than ten times as fast as vectors multiply floats, so that six products still
// take less time than one.
#include "pack.h"
#include "tile_state.h"

namespace {

constexpr int64_t DEPTH = 512;   // numbers of a sum that are packed at a time
constexpr int64_t HEIGHT = 256;  // rows of the left matrix that stay in the cache of a core with them

inline int64_t up_to(int64_t n, int64_t whole) { return (n + whole - 1) / whole * whole; }

// Tiles 0 to 3 are sums of 2 x 2, tiles 4 and 5 of the left matrix and 6 and 7 of the right one.
#define LEFT(part)                                                 \
    _tile_loadd(4, left + (part) * PAIR_OF_TILES, 64);             \
    _tile_loadd(5, left + (part) * PAIR_OF_TILES + TILE, 64);
#define RIGHT(part)                                                \
    _tile_loadd(6, right + (part) * PAIR_OF_TILES, 64);            \
    _tile_loadd(7, right + (part) * PAIR_OF_TILES + TILE, 64);
#define MULTIPLY()                                                 \
    _tile_dpbf16ps(0, 4, 6);                                       \
    _tile_dpbf16ps(1, 4, 7);                                       \
    _tile_dpbf16ps(2, 5, 6);                                       \
    _tile_dpbf16ps(3, 5, 7);

// A part of a panel, which is asked for a step ahead: panels stand in the second cache, from where a tile comes too late.
inline void soon(const uint16_t* part) {
    for (int64_t i = 0; i < PAIR_OF_TILES; i += DEEP) _mm_prefetch(reinterpret_cast<const char*>(part + i), _MM_HINT_T0);
}

// Where the sums of two panels go: `rows` x `columns` of them, with what is added to them first.
struct Goal {
    float* out;
    int64_t row, rows, columns;
    const float* bias;
    bool add;

    void fetch(int64_t first, int64_t last) const {
        for (int64_t r = first; r < last && r < rows; r++) {
            prefetch(out + r * row);
            prefetch(out + r * row + columns - 1);
        }
    }

    void take(const float* sums, int64_t first, int64_t last) const {
        for (int64_t c = 0; c < columns; c += 16) {
            const __mmask16 some = first_of_16(columns - c);
            const __m512 begin = bias ? _mm512_maskz_loadu_ps(some, bias + c) : _mm512_setzero_ps();
            for (int64_t r = first; r < last && r < rows; r++) {
                float* to = out + r * row + c;
                __m512 sum = _mm512_add_ps(begin, _mm512_load_ps(sums + r * PANEL + c));
                if (add) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(some, to));
                _mm512_mask_storeu_ps(to, some, sum);
            }
        }
    }
};

// Sums (32, 32) of two panels after two panels. While some are made, those before are taken to where they go.
class Sums {
   public:
    // Each line of products changes one of the two parts that meet.
    template <int parts>
    void make(const uint16_t* left, const uint16_t* right, int64_t depth, const Goal& goal) {
        const int64_t rows = (PANEL * DEEP + depth - 1) / depth;  // that are fetched, and taken, in a step
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0, row = 0; k < depth; k += DEEP, row += rows) {
            const uint16_t *next = left + parts * PAIR_OF_TILES, *beside = right + parts * PAIR_OF_TILES;
            goal.fetch(row, row + rows);
            if (parts == 3) {
                LEFT(0) RIGHT(2) MULTIPLY()
                last.take(made, row, row + rows);
                soon(next);
                RIGHT(1) MULTIPLY()
                soon(beside + 2 * PAIR_OF_TILES);
                LEFT(1) MULTIPLY()
                soon(beside + PAIR_OF_TILES);
                RIGHT(0) MULTIPLY()
                soon(next + PAIR_OF_TILES);
                LEFT(2) MULTIPLY()
                soon(beside);
                LEFT(0) MULTIPLY()
                soon(next + 2 * PAIR_OF_TILES);
            } else {
                LEFT(0) RIGHT(1) MULTIPLY()
                last.take(made, row, row + rows);
                soon(next);
                soon(beside + PAIR_OF_TILES);
                RIGHT(0) MULTIPLY()
                soon(beside);
                LEFT(1) MULTIPLY()
                soon(next + PAIR_OF_TILES);
            }
            left = next;
            right = beside;
        }
        _tile_stored(0, made, PANEL * 4);
        _tile_stored(1, made + SIDE, PANEL * 4);
        _tile_stored(2, made + SIDE * PANEL, PANEL * 4);
        _tile_stored(3, made + SIDE * PANEL + SIDE, PANEL * 4);
        last = goal;
    }

    void finish() { last.take(made, 0, PANEL); }

   private:
    alignas(64) float made[PANEL * PANEL];
    Goal last = {nullptr, 0, 0, 0, nullptr, false};
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline int64_t panels(int64_t count) { return up_to(count, PANEL) / PANEL; }

inline int64_t deepest(const Piece& piece) { return up_to(smaller(DEPTH, piece.inner.count()), DEEP); }

// Numbers of a panel.
inline int64_t panel_size(const Product& p, const Piece& piece) { return PANEL * deepest(piece) * p.parts; }

int64_t scratch(const Product& p, const Piece& piece) {
    const int64_t held = panels(piece.columns.count()) + panels(smaller(HEIGHT, piece.rows.count()));
    return held * panel_size(p, piece) * int64_t(sizeof(uint16_t));
}

void run(const Product& p, const Piece& piece, void* memory) {
    const Configured tiles;
    const int64_t panel = panel_size(p, piece), width = piece.columns.count(), height = piece.rows.count();
    uint16_t* const right = static_cast<uint16_t*>(memory);
    uint16_t* const left = right + panels(width) * panel;
    Sums sums;
    for (int64_t k = 0; k < piece.inner.count(); k += DEPTH) {
        const int64_t at = piece.inner.first + k, depth = smaller(DEPTH, piece.inner.count() - k);
        const Matrix &a = p.left, &b = p.right;
        Packer<false>(b.at(at, piece.columns.first), b.column, b.row, width, depth, p.parts).pack(right, panel);
        for (int64_t top = 0; top < height; top += HEIGHT) {
            const int64_t bottom = smaller(top + HEIGHT, height);
            Packer<true>(a.at(piece.rows.first + top, at), a.row, a.column, bottom - top, depth, p.parts).pack(left, panel);
            settle();
            for (int64_t c = 0; c < width; c += PANEL)
                for (int64_t r = top; r < bottom; r += PANEL) {
                    const Goal goal = {piece.out + r * piece.out_row + c, piece.out_row, smaller(PANEL, bottom - r),
                                       smaller(PANEL, width - c), k || !piece.bias ? nullptr : piece.bias + c,
                                       k || piece.add};
                    const uint16_t *rows = left + (r - top) / PANEL * panel, *columns = right + c / PANEL * panel;
                    p.parts == 3 ? sums.make<3>(rows, columns, depth, goal) : sums.make<2>(rows, columns, depth, goal);
                }
        }
    }
    sums.finish();
}

}  // namespace

extern "C" const Tiled tiled_amx;
extern "C" const Tiled tiled_amx = {scratch, run};

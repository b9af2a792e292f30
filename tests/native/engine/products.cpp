// Runs cases that a test wrote down, so that the test can compare the answers, and sanitizers the ways to them.
// A case: 9 numbers (int64: type, rows, columns, stride, group, batch, prepared, first, count), then the matrix, `batch`
// vectors, `count` numbers of rows (int64), and as many factors. Its answers: the products with rows first to first +
// count for each vector, the products of the first vector with the listed rows, one listed row, and the sum of all.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu.h"
#include "dot.h"

namespace {

// Exactly as many bytes as wanted, so that a sanitizer sees the first one beyond.
template <class T>
struct Block {
    T* data;
    explicit Block(int64_t count) : data(static_cast<T*>(std::malloc(count * sizeof(T)))), size(count) {}
    ~Block() { std::free(data); }
    Block(const Block&) = delete;
    int64_t size;

    bool read(FILE* from) { return std::fread(data, sizeof(T), size, from) == size_t(size); }
    void write(FILE* to) const { std::fwrite(data, sizeof(T), size, to); }
};

bool run_case(FILE* from, FILE* to) {
    Block<int64_t> head(9);
    if (!head.read(from)) return false;
    const int64_t *h = head.data, batch = h[5], first = h[7], count = h[8];
    Matrix m = {nullptr, h[1], h[2], h[3], Type(h[0]), h[4]};
    Block<uint8_t> data(m.rows * m.stride), unaligned(input_bytes(m.columns, batch) + 64);
    Block<float> x(batch * m.columns), factors(count), y(batch * count), listed(count), row(m.columns), sum(m.columns);
    Block<int64_t> rows(count);
    if (!data.read(from) || !x.read(from) || !rows.read(from) || !factors.read(from)) std::abort();
    m.data = data.data;
    if (problem_of(m, data.size)) std::abort();
    uint8_t* const memory = unaligned.data + 63 - (reinterpret_cast<uintptr_t>(unaligned.data) + 63) % 64;
    Input all = {x.data, m.columns, batch, nullptr}, one = {x.data, m.columns, 1, nullptr};
    if (h[6]) all = prepare(m, x.data, m.columns, batch, memory);
    dot_rows(m, first, count, all, y.data, count);
    if (h[6]) one = prepare(m, x.data, m.columns, 1, memory);
    prefetch_row(m, rows.data[0]);
    dot_listed(m, rows.data, count, one, listed.data);
    read_row(m, rows.data[0], row.data);
    std::memset(sum.data, 0, m.columns * sizeof(float));
    add_listed(m, rows.data, count, factors.data, sum.data);
    for (const Block<float>* answer : {&y, &listed, &row, &sum}) answer->write(to);
    return true;
}

}  // namespace

// The kernel that this was compiled for, the file of cases, and that of answers. 3: this machine does not run it.
int main(int, char** arguments) {
    if (!runs_here(arguments[1])) return 3;
    FILE *from = std::fopen(arguments[2], "rb"), *to = std::fopen(arguments[3], "wb");
    if (!from || !to) return 1;
    while (run_case(from, to)) continue;
    return std::fclose(to);
}

// What a check asks of an operation, in words where it is not so. Compiled once.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "op.h"

struct CacheShape {
    Keep keep;
    int64_t heads, capacity, width;  // capacity: of a fixed or rolling one
    Type type;                       // fp32 or bf16

    int64_t slot_bytes() const { return width * (type == Type::fp32 ? 4 : 2); }  // of one head
};

// What a program has for all of its operations.
struct Shapes {
    std::vector<int64_t> widths;  // of the registers
    std::vector<CacheShape> caches;
    int64_t vocab, length;  // of the program; every position is below its length
};

class Check {
   public:
    Check(const Op& op, const Shapes& shapes, const std::string& name) : op(op), shapes_(shapes), name_(name) {}

    const Op& op;

    [[noreturn]] void fail(const std::string& what) const { throw std::invalid_argument(name_ + ": " + what); }

    void that(bool good, const char* what) const {
        if (!good) fail(what);
    }

    // How many of each it has. Register and cache numbers are checked here too, so this comes first.
    void counts(int64_t in, int64_t out, int64_t ints, int64_t floats, int64_t matrices, int64_t vectors,
                int64_t caches = 0) const {
        count("inputs", op.in.size, in), count("outputs", op.out.size, out), count("ints", op.ints.size, ints);
        count("floats", op.floats.size, floats), count("matrices", op.matrices.size, matrices);
        count("vectors", op.vectors.size, vectors), count("caches", op.caches.size, caches);
        for (const auto* registers : {&op.in, &op.out})
            for (int64_t i = 0; i < registers->size; i++) below("register", (*registers)[i], shapes_.widths.size());
        for (int64_t i = 0; i < caches; i++) below("cache", op.caches[i], shapes_.caches.size());
    }

    int64_t in(int64_t i) const { return shapes_.widths[op.in[i]]; }
    int64_t out(int64_t i) const { return shapes_.widths[op.out[i]]; }
    int64_t vocab() const { return shapes_.vocab; }
    int64_t length() const { return shapes_.length; }
    const CacheShape& cache(int64_t i) const { return shapes_.caches[op.caches[i]]; }

    // The cache is one that only this operation makes sense of.
    void own_floats(const char* otherwise) const {
        that(cache(0).keep == Keep::fixed && cache(0).heads == 1 && cache(0).type == Type::fp32, otherwise);
    }

    // `what` is `found` and must be `wanted`.
    void same(const char* what, int64_t found, int64_t wanted) const {
        if (found != wanted) fail(text(what, found) + ", and must be " + std::to_string(wanted));
    }

    // low <= found <= high
    void within(const char* what, int64_t found, int64_t low, int64_t high) const {
        if (found < low || found > high)
            fail(text(what, found) + ", and must be " + std::to_string(low) + " to " + std::to_string(high));
    }

    // A slice of a register `width` wide. Written so that no sum can overflow.
    void slice(const char* what, int64_t first, int64_t length, int64_t width) const {
        within(what, length, 0, width), within(what, first, 0, width - length);
    }

    // A vector that may be left out, with size 0.
    void optional(const char* what, const Vector& vector, int64_t wanted) const {
        if (vector.size) same(what, vector.size, wanted);
    }

   private:
    static std::string text(const char* what, int64_t found) {
        return std::string(what) + " is " + std::to_string(found);
    }
    void count(const char* what, int64_t found, int64_t wanted) const {
        same((std::string("the number of ") + what).c_str(), found, wanted);
    }
    void below(const char* what, int64_t found, int64_t end) const { within(what, found, 0, end - 1); }

    const Shapes& shapes_;
    const std::string name_;
};

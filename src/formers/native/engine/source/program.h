// A program: operations whose every size and index has been checked. It never changes, and several sessions may run it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "check.h"

// An operation as it is given, by names and numbers of things.
struct OpGiven {
    std::string name;
    std::vector<int64_t> in, out, ints;
    std::vector<float> floats;
    std::vector<int64_t> matrices, vectors, caches;
};

// The rows that an operation is run with: those that go on, those whose tokens have left the depth, or all.
enum class Whom { going, left, all };

class Program {
   public:
    // Weights stay where they are: whoever makes a program keeps them alive as long as it. Throws std::invalid_argument.
    // logits: the register that the last operation leaves them in. length: 0 for any number of positions.
    Program(Shapes shapes, std::vector<OpGiven> given, std::vector<Matrix> matrices, std::vector<Vector> vectors,
            int64_t logits);
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    const Shapes& shapes() const { return shapes_; }
    const std::vector<Op>& ops() const { return ops_; }
    const std::string& name(size_t op) const { return given_[op].name; }
    Whom whom(size_t op) const { return whom_[op]; }
    int64_t entry() const { return entry_; }  // the place of `enter` among the operations; -1: there is none
    int64_t logits() const { return logits_; }
    int64_t scratch_bytes() const { return scratch_bytes_; }  // for MOST_ROWS rows

   private:
    void check_shapes() const;
    void add(size_t number);
    void place(const Check& check, size_t number);

    Shapes shapes_;
    std::vector<OpGiven> given_;
    std::vector<std::vector<Matrix>> matrices_;  // of each operation, which its lists point into
    std::vector<std::vector<Vector>> vectors_;
    std::vector<Matrix> all_matrices_;
    std::vector<Vector> all_vectors_;
    std::vector<Op> ops_;
    std::vector<Whom> whom_;  // of each operation
    bool parted_ = false;     // some tokens may have left the depth where the operations so far end
    size_t others_ = 0;       // where those end that are for these
    int64_t logits_, entry_ = -1, scratch_bytes_ = 0;
};

// What an operation is, and what it is given when it runs. Plain data: it is shared by code for all instruction sets.
//
// An operation NAME has two functions:
//   check_NAME(const Check&)            compiled once (check_*.h). Throws std::invalid_argument, in words, unless every
//                                       size and index that the run will use is sound.
//   run_NAME(const Op&, Step&)          compiled for each instruction set (ops_*.h). It trusts the check: it cannot fail,
//                                       does not throw and does not allocate. No C++ library: an inline function of it,
//                                       compiled for a wide machine, could be linked into code for a narrow one.
#pragma once
#include <cstdint>

#include "matrix.h"
#include "pool.h"

#define ALWAYS_INLINE __attribute__((always_inline)) inline

template <class T>
struct List {
    const T* data;
    int64_t size;
    ALWAYS_INLINE const T& operator[](int64_t i) const { return data[i]; }
};

// fp32 numbers; a bias that a part does not have is a vector of size 0.
struct Vector {
    const float* data;
    int64_t size;
};

// in, out: the registers that it reads and writes, which may be the same. caches: those that it keeps.
// What the ints, floats, matrices and vectors of an operation mean is said above its check.
struct Op {
    int64_t code;
    List<int64_t> in, out, ints;
    List<float> floats;
    List<Matrix> matrices;
    List<Vector> vectors;
    List<int64_t> caches;
};

constexpr int64_t MOST_ROWS = 64;  // of one call; longer ones are made in several

// Memory for MOST_ROWS prepared rows (dot.h), 16 of them together.
static inline int64_t scratch_bytes(int64_t columns) { return MOST_ROWS / 16 * up_to(input_bytes(columns, 16), 64); }

// [rows][width] floats; rows are `stride` floats apart (a multiple of 16) and start at multiples of 64 bytes.
struct Register {
    float* data;
    int64_t width, stride;
};

// What one stream keeps for one cache: [heads][capacity][width] numbers, floats or halves (bf16).
//   fixed: capacity is the declared one. All zero when the stream begins; an operation may do with it what it wants.
//   growing: slot p belongs to position p. Room for every position of the call is made before the call.
//   rolling: slot p % capacity belongs to position p; declared with the pattern's horizon, it has room for the rows of a
//            call beside it, so that all of them may be written before the first of them is read.
//   given: filled from outside before the first call, `length` slots long, and only read.
enum class Keep : int64_t { fixed, growing, rolling, given };

struct Slots {
    uint8_t* data;
    int64_t capacity, length;  // length: how many tokens the stream has had before this call; of a given one: its slots
    Type type;

    ALWAYS_INLINE float* floats() const { return reinterpret_cast<float*>(data); }
};

// A call: `rows` tokens, which belong to streams and stand at positions. The rows of one stream ascend, and are not
// broken by others. An operation that has a state goes through them in order.
struct Step {
    int64_t rows;
    int64_t left;            // rows that stand behind these, of tokens that have left the depth; see `leave`
    const int64_t* tokens;   // [rows]
    int64_t* streams;        // [rows]
    int64_t* positions;      // [rows]; behind `enter` they count what the stream began with too
    int64_t* order;          // [rows], the places that the rows had at first
    const Register* registers;
    const Slots* slots;  // [caches][all streams]
    int64_t all_streams;
    Pool* pool;
    uint8_t* scratch;  // from a multiple of 64: room for the rows of any input of the program, prepared for any matrix
    const float* vectors;      // in place of tokens, [rows][width of what `enter` writes], where the call begins with it
    int64_t* in_stream;        // [rows], the positions behind `enter`
    const int64_t* wanted;     // the rows, ascending, whose logits are asked for; `pick` leaves those alone
    int64_t wanted_rows;

    ALWAYS_INLINE float* row(int64_t reg, int64_t r) const { return registers[reg].data + r * registers[reg].stride; }
    ALWAYS_INLINE const Slots& cache(int64_t id, int64_t r) const { return slots[id * all_streams + streams[r]]; }
};

using Run = void (*)(const Op&, Step&);

// All of one instruction set.
struct Kernel {
    const char* name;
    const Run* runs;  // by code, in the order of list.h
    void (*weigh)(float* logits, int64_t count, float top, float temperature);  // see weigh.h
};

// Streams that are being written: what each keeps, and the registers that calls share.
#pragma once
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "pool.h"
#include "program.h"
#include "sampling.h"

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

// Bytes, zero at first, from a multiple of 64 bytes. Pages that nobody writes to take no memory.
class Memory {
   public:
    Memory() = default;
    explicit Memory(int64_t bytes);
    uint8_t* data() const { return data_; }
    float* floats() const { return reinterpret_cast<float*>(data_); }

   private:
    std::unique_ptr<void, Free> memory_;
    uint8_t* data_ = nullptr;
};

// Where what is random comes from: token n that a call writes behind its stream i is drawn by number `drawn` + n of
// seeds[i].
struct Chances {
    std::vector<uint64_t> seeds;
    int64_t drawn = 0;
};

class Session {
   public:
    // room: how many tokens a stream may have, where something grows with them; 0 for any number.
    // All methods throw std::invalid_argument, in words, for what cannot be, and change nothing then.
    Session(std::shared_ptr<const Program> program, const Kernel* kernel, int64_t threads, int64_t streams, int64_t room);

    // Reads `count` tokens, each behind its stream. logits: [those with wanted[i]][vocab].
    void step(const int64_t* tokens, const int64_t* streams, const bool* wanted, int64_t count, float* logits);

    // Reads `many` tokens, as `step` does, and writes up to `count` more behind each of their streams, in the order in which
    // these stand there; the last one is not read. A stream ends with a token of `stops`.
    std::vector<std::vector<int64_t>> write(const int64_t* tokens, const int64_t* streams, int64_t many, int64_t count,
                                            const std::vector<int64_t>& stops, const Sampling& how, const Chances& chances);

    // Keys or values from outside, [heads][slots][width], for a given cache.
    void give(int64_t cache, int64_t stream, const float* data, int64_t slots);

    // What the stream begins with before its first token: `count` vectors as wide as `enter` writes.
    void precede(int64_t stream, const float* vectors, int64_t count);

    void reset(int64_t stream);  // begins it anew, and gives its memory back
    int64_t length(int64_t stream) const;
    int64_t cache_bytes() const;

    // From here on the time of each operation is taken, or not any more.
    void profile(bool on);
    std::vector<double> seconds() const;  // of each operation since then; none where no time is taken

    const Program& program() const { return *program_; }
    int64_t streams() const { return int64_t(lengths_.size()); }

   private:
    using Rows = std::vector<int64_t>;
    void check_stream(int64_t stream) const;
    void check_call(const int64_t* tokens, const int64_t* streams, int64_t count) const;
    void check_room(int64_t stream, int64_t more) const;
    void check_memory(int64_t stream, int64_t more) const;
    void make_room(int64_t stream, int64_t more);
    void grow(int64_t cache, int64_t stream, int64_t needed);
    void hold(int64_t cache, int64_t stream, Memory memory, int64_t capacity, int64_t length);
    void run(const int64_t* tokens, const int64_t* streams, int64_t count, const Rows& wanted, float* logits,
             const float* vectors = nullptr);
    void run_all(Step& step);
    void run_for_left(size_t number, const Step& step);
    void read(const int64_t* tokens, const int64_t* streams, const bool* wanted, int64_t count, float* logits);
    void note(const int64_t* tokens, const int64_t* streams, int64_t count);

    std::shared_ptr<const Program> program_;
    const Kernel* kernel_;
    Pool pool_;
    int64_t room_;
    Memory arena_;
    Memory scratch_;
    std::vector<Register> registers_;
    std::vector<Register> behind_;  // the same, from the rows on whose tokens have left the depth
    std::vector<Slots> slots_;    // [caches][streams]
    std::vector<Memory> memory_;  // [caches][streams]
    std::vector<int64_t> bytes_;  // [caches][streams]
    std::vector<int64_t> lengths_;  // of all that a stream has read
    std::vector<int64_t> ahead_;    // of what it began with, before its first token
    std::vector<Tokens> seen_;      // that a stream has read
    std::vector<double> seconds_;
    mutable std::mutex busy_;
};

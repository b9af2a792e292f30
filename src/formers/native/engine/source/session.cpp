#include "session.h"

#include "halves.h"
#include "philox.h"

#include <chrono>
#include <cmath>
#include <cstring>

namespace {

std::string text(int64_t number) { return std::to_string(number); }

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

template <class Work>
double timed(const Work& work) {
    const auto before = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

}  // namespace

Session::Session(std::shared_ptr<const Program> program, const Kernel* kernel, int64_t threads, int64_t streams,
                 int64_t room)
    : program_(std::move(program)), kernel_(kernel), pool_(threads), room_(room) {
    constexpr int64_t MOST = 1 << 20;
    if (streams < 1 || streams > MOST) refuse("there can be 1 to " + text(MOST) + " streams, not " + text(streams));
    if (room < 0) refuse("a stream cannot have room for " + text(room) + " tokens");
    int64_t floats = 0;
    for (const int64_t width : program_->shapes().widths) floats += up_to(width, 16) * MOST_ROWS;
    arena_ = Memory(floats * int64_t(sizeof(float))), scratch_ = Memory(program_->scratch_bytes());
    float* next = arena_.floats();
    for (const int64_t width : program_->shapes().widths) {
        registers_.push_back({next, width, up_to(width, 16)});
        next += up_to(width, 16) * MOST_ROWS;
    }
    const size_t all = program_->shapes().caches.size() * size_t(streams);
    slots_.resize(all), memory_.resize(all), bytes_.resize(all);
    lengths_.resize(size_t(streams)), ahead_.resize(size_t(streams)), seen_.resize(size_t(streams));
}

void Session::check_stream(int64_t stream) const {
    if (stream < 0 || stream >= streams())
        refuse("stream " + text(stream) + " is not one of the " + text(streams()) + " of this session");
}

int64_t Session::length(int64_t stream) const {
    check_stream(stream);
    const std::lock_guard<std::mutex> lock(busy_);
    return lengths_[stream] - ahead_[stream];
}

int64_t Session::cache_bytes() const {
    const std::lock_guard<std::mutex> lock(busy_);
    int64_t total = 0;
    for (const int64_t bytes : bytes_) total += bytes;
    return total;
}

void Session::profile(bool on) {
    const std::lock_guard<std::mutex> lock(busy_);
    seconds_.assign(on ? program_->ops().size() : 0, 0.0);
}

std::vector<double> Session::seconds() const {
    const std::lock_guard<std::mutex> lock(busy_);
    return seconds_;
}

void Session::reset(int64_t stream) {
    check_stream(stream);
    const std::lock_guard<std::mutex> lock(busy_);
    for (size_t cache = 0; cache < program_->shapes().caches.size(); cache++) {
        const size_t i = cache * lengths_.size() + stream;
        memory_[i] = Memory(), slots_[i] = {}, bytes_[i] = 0;
    }
    lengths_[stream] = ahead_[stream] = 0, seen_[stream].clear();
}

void Session::give(int64_t cache, int64_t stream, const float* data, int64_t slots) {
    check_stream(stream);
    const auto& caches = program_->shapes().caches;
    if (cache < 0 || cache >= int64_t(caches.size()) || caches[cache].keep != Keep::given)
        refuse("cache " + text(cache) + " is not one that is given");
    if (slots < 1) refuse("keys and values of no token cannot be attended to");
    const std::lock_guard<std::mutex> lock(busy_);
    if (lengths_[stream]) refuse("stream " + text(stream) + " has begun, and what it reads cannot change any more");
    const int64_t numbers = caches[cache].heads * slots * caches[cache].width;
    Memory memory(caches[cache].heads * slots * caches[cache].slot_bytes());
    if (caches[cache].type == Type::fp32)
        std::memcpy(memory.data(), data, size_t(numbers) * sizeof(float));
    else
        to_halves(reinterpret_cast<uint16_t*>(memory.data()), data, numbers);
    hold(cache, stream, std::move(memory), slots, slots);
}

void Session::check_memory(int64_t stream, int64_t more) const {
    const int64_t after = lengths_[stream] + more;
    if (room_ && after > room_)
        refuse("stream " + text(stream) + " would have " + text(after) + " tokens, and there is room for " + text(room_));
}

void Session::check_room(int64_t stream, int64_t more) const {
    const int64_t length = program_->shapes().length, after = lengths_[stream] - ahead_[stream] + more;
    if (length && after > length)
        refuse("this model has " + text(length) + " positions and was given a token at position " + text(after - 1) +
               " (counted from 0)");
    if (program_->entry() >= 0 && !ahead_[stream])
        refuse("stream " + text(stream) + " has not been given what it begins with");
    check_memory(stream, more);
    for (size_t cache = 0; cache < program_->shapes().caches.size(); cache++)
        if (program_->shapes().caches[cache].keep == Keep::given && !slots_[cache * lengths_.size() + stream].data)
            refuse("stream " + text(stream) + " has not been given the keys and values that it attends to");
}

void Session::check_call(const int64_t* tokens, const int64_t* streams, int64_t count) const {
    const int64_t vocab = program_->shapes().vocab;
    std::vector<int64_t> more(lengths_.size());
    for (int64_t i = 0; i < count; i++) {
        check_stream(streams[i]);
        if (tokens[i] < 0 || tokens[i] >= vocab)
            refuse("token " + text(tokens[i]) + " is outside the vocabulary of 0 to " + text(vocab - 1));
        if (more[streams[i]]++ && streams[i - 1] != streams[i])
            refuse("the tokens of stream " + text(streams[i]) + " do not stand together");
    }
    for (size_t stream = 0; stream < more.size(); stream++)
        if (more[stream]) check_room(int64_t(stream), more[stream]);
}

// At most MOST_ROWS tokens, all of which have been checked.
void Session::run(const int64_t* tokens, const int64_t* streams, int64_t count, const Rows& wanted, float* logits,
                  const float* vectors) {
    const auto& caches = program_->shapes().caches;
    Rows positions(static_cast<size_t>(count)), in_stream(positions), order(positions), of(streams, streams + count);
    for (int64_t i = 0, first = 0; i < count; i++) {
        order[i] = i;
        if (streams[i] != streams[first]) first = i;
        in_stream[i] = lengths_[streams[i]] + i - first;
        positions[i] = in_stream[i] - ahead_[streams[i]];
        if (i + 1 == count || streams[i + 1] != streams[i]) make_room(streams[i], i + 1 - first);
    }
    for (int64_t i = 0; i < count; i++)
        for (size_t cache = 0; cache < caches.size(); cache++)
            if (caches[cache].keep != Keep::given)
                slots_[cache * lengths_.size() + streams[i]].length = lengths_[streams[i]];
    Step step = {};
    step.rows = count, step.tokens = tokens, step.streams = of.data(), step.positions = positions.data();
    step.order = order.data();
    step.registers = registers_.data(), step.slots = slots_.data(), step.all_streams = this->streams();
    step.pool = &pool_, step.scratch = scratch_.data();
    step.vectors = vectors, step.in_stream = in_stream.data();
    step.wanted = wanted.data(), step.wanted_rows = int64_t(wanted.size());
    run_all(step);
    const Register& made = registers_[program_->logits()];
    const int64_t vocab = program_->shapes().vocab;
    for (size_t i = 0; i < wanted.size(); i++)
        std::memcpy(logits + int64_t(i) * vocab, made.data + int64_t(i) * made.stride, size_t(vocab) * sizeof(float));
    for (int64_t i = 0; i < count; i++) lengths_[streams[i]]++;
    if (tokens) note(tokens, streams, count);
}

// All operations, or those from `enter` on, each with the rows that it is for.
void Session::run_all(Step& step) {
    for (size_t number = step.vectors ? size_t(program_->entry()) : 0; number < program_->ops().size(); number++) {
        const Whom whom = program_->whom(number);
        if (whom == Whom::left ? !step.left : whom == Whom::going && !step.rows) continue;
        const auto work = [&] {
            if (whom == Whom::left)
                run_for_left(number, step);
            else
                kernel_->runs[program_->ops()[number].code](program_->ops()[number], step);
        };
        if (seconds_.empty())
            work();
        else
            seconds_[number] += timed(work);
        if (!step.rows && !step.left) break;  // no logits are asked for
    }
}

// Those that have left are rows of a call of their own, which begins behind the others.
void Session::run_for_left(size_t number, const Step& step) {
    Step theirs = step;
    theirs.rows = step.left, theirs.left = 0;
    theirs.streams += step.rows, theirs.positions += step.rows, theirs.order += step.rows;
    behind_ = registers_;
    for (Register& x : behind_) x.data += step.rows * x.stride;
    theirs.registers = behind_.data();
    kernel_->runs[program_->ops()[number].code](program_->ops()[number], theirs);
}

// Keeps in mind which tokens a stream has read: a repetition penalty falls on them.
void Session::note(const int64_t* tokens, const int64_t* streams, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        Tokens& seen = seen_[streams[i]];
        seen.resize(size_t(up_to(program_->shapes().vocab, 64) / 64));
        seen[size_t(tokens[i]) / 64] |= uint64_t(1) << (tokens[i] % 64);
    }
}

void Session::read(const int64_t* tokens, const int64_t* streams, const bool* wanted, int64_t count, float* logits) {
    for (int64_t first = 0; first < count; first += MOST_ROWS) {
        const int64_t rows = std::min(MOST_ROWS, count - first);
        Rows chosen;
        for (int64_t i = 0; i < rows; i++)
            if (wanted[first + i]) chosen.push_back(i);
        run(tokens + first, streams + first, rows, chosen, logits);
        logits += int64_t(chosen.size()) * program_->shapes().vocab;
    }
}

void Session::precede(int64_t stream, const float* vectors, int64_t count) {
    check_stream(stream);
    if (program_->entry() < 0) refuse("streams of this program begin with their first token");
    if (count < 1) refuse("a stream cannot begin with nothing");
    const std::lock_guard<std::mutex> lock(busy_);
    if (lengths_[stream] != ahead_[stream]) refuse("stream " + text(stream) + " has begun");
    check_memory(stream, count);
    const int64_t width = program_->shapes().widths[program_->ops()[program_->entry()].out[0]];
    const Rows streams(size_t(MOST_ROWS), stream), nobody;
    for (int64_t first = 0; first < count; first += MOST_ROWS) {
        const int64_t rows = std::min(MOST_ROWS, count - first);
        run(nullptr, streams.data(), rows, nobody, nullptr, vectors + first * width);
        ahead_[stream] += rows;
    }
}

void Session::step(const int64_t* tokens, const int64_t* streams, const bool* wanted, int64_t count, float* logits) {
    const std::lock_guard<std::mutex> lock(busy_);
    check_call(tokens, streams, count);
    read(tokens, streams, wanted, count, logits);
}

std::vector<std::vector<int64_t>> Session::write(const int64_t* tokens, const int64_t* streams, int64_t many,
                                                 int64_t count, const std::vector<int64_t>& stops, const Sampling& how,
                                                 const Chances& chances) {
    const std::lock_guard<std::mutex> lock(busy_);
    check_call(tokens, streams, many);
    Rows of, places;  // the streams that are written, and where each stands among them
    const std::unique_ptr<bool[]> ends(new bool[size_t(many)]);
    for (int64_t i = 0, first = 0; i < many; i++) {
        ends[i] = i + 1 == many || streams[i + 1] != streams[i];
        if (!ends[i]) continue;
        check_room(streams[i], i - first + count);
        places.push_back(int64_t(of.size())), of.push_back(streams[i]), first = i + 1;
    }
    if (const char* problem = how.problem()) refuse(problem);
    if (how.temperature > 0 && chances.seeds.size() != of.size()) refuse("there must be one seed for each stream");
    const int64_t vocab = program_->shapes().vocab;
    std::vector<Sampler> samplers(of.size(), Sampler(kernel_, how, vocab));
    std::vector<std::vector<int64_t>> written(of.size());
    const Memory logits(int64_t(of.size()) * vocab * int64_t(sizeof(float)));
    Rows last(of.size());
    read(tokens, streams, ends.get(), many, logits.floats());
    for (int64_t n = 0;;) {
        share(pool_, int64_t(of.size()), int64_t(of.size()) * vocab * int64_t(sizeof(float)), [&](int64_t i) {
            const int64_t place = places[i];
            const float share = how.temperature > 0 ? uniform(chances.seeds[place], uint64_t(chances.drawn + n)) : 0;
            last[i] = samplers[place].choose(logits.floats() + i * vocab, seen_[of[i]], share);
        });
        size_t kept = 0;
        for (size_t i = 0; i < of.size(); i++) {
            const int64_t token = last[i];
            if (token < 0) refuse("the logits are not finite, so no token can be chosen");
            written[places[i]].push_back(token);
            if (std::find(stops.begin(), stops.end(), token) != stops.end()) continue;
            places[kept] = places[i], last[kept] = token, of[kept] = of[i], kept++;
        }
        places.resize(kept), last.resize(kept), of.resize(kept);
        if (++n == count || of.empty()) return written;
        std::fill(ends.get(), ends.get() + kept, true);
        read(last.data(), of.data(), ends.get(), int64_t(kept), logits.floats());
    }
}

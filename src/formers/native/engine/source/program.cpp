#include "program.h"

#include "check_attention.h"
#include "check_dense.h"
#include "check_exits.h"
#include "check_features.h"
#include "check_sparse.h"
#include "list.h"

namespace {

using CheckOf = void (*)(const Check&);

#define NAME_OF(name) #name,
#define CHECK_OF(name) check_##name,
const char* const NAMES[] = {OPS(NAME_OF)};
const CheckOf CHECKS[] = {OPS(CHECK_OF)};
constexpr int64_t COUNT = sizeof(CHECKS) / sizeof(CHECKS[0]);

int64_t code_of(const std::string& name) {
    for (int64_t code = 0; code < COUNT; code++)
        if (name == NAMES[code]) return code;
    throw std::invalid_argument("there is no operation '" + name + "': the program is of another version of formers");
}

template <class T>
List<T> list_of(const std::vector<T>& from) {
    return {from.data(), int64_t(from.size())};
}

template <class T>
std::vector<T> chosen(const std::vector<T>& from, const std::vector<int64_t>& which, const std::string& of) {
    std::vector<T> found;
    for (const int64_t i : which) {
        if (i < 0 || i >= int64_t(from.size()))
            throw std::invalid_argument(of + ": its weights are not in the program");
        found.push_back(from[i]);
    }
    return found;
}

void within(const char* what, int64_t found, int64_t low, int64_t high) {
    if (found < low || found > high)
        throw std::invalid_argument(std::string(what) + " is " + std::to_string(found) + ", and must be " +
                                    std::to_string(low) + " to " + std::to_string(high));
}

}  // namespace

Program::Program(Shapes shapes, std::vector<OpGiven> given, std::vector<Matrix> matrices, std::vector<Vector> vectors,
                 int64_t logits)
    : shapes_(std::move(shapes)),
      given_(std::move(given)),
      all_matrices_(std::move(matrices)),
      all_vectors_(std::move(vectors)),
      logits_(logits) {
    check_shapes();
    // Lists point into these, so they must not move.
    matrices_.reserve(given_.size()), vectors_.reserve(given_.size()), ops_.reserve(given_.size());
    for (size_t number = 0; number < given_.size(); number++) add(number);
}

void Program::check_shapes() const {
    constexpr int64_t MOST = int64_t(1) << 31;
    within("the vocabulary", shapes_.vocab, 1, MOST), within("the number of positions", shapes_.length, 0, MOST);
    for (const int64_t width : shapes_.widths) within("the width of a register", width, 1, MOST);
    for (const CacheShape& cache : shapes_.caches) {
        const bool sized = cache.keep == Keep::fixed || cache.keep == Keep::rolling;
        within("the keeping of a cache", int64_t(cache.keep), int64_t(Keep::fixed), int64_t(Keep::given));
        within("the type of a cache", int64_t(cache.type), int64_t(Type::fp32), int64_t(Type::bf16));
        within("the heads of a cache", cache.heads, 1, 1 << 20);
        within("the width of a cache", cache.width, 1, 1 << 30);
        within("the capacity of a cache", cache.capacity, sized ? 1 : 0, sized ? MOST : 0);
        within("the size of a cache", cache.heads * cache.width, 1, MOST);
    }
    within("the register of the logits", logits_, 0, int64_t(shapes_.widths.size()) - 1);
    within("the number of logits", shapes_.widths[logits_], shapes_.vocab, MOST);
    if (given_.empty()) throw std::invalid_argument("a program without operations computes nothing");
}

void Program::add(size_t number) {
    const OpGiven& g = given_[number];
    const std::string name = "operation " + std::to_string(number) + " (" + g.name + ")";
    matrices_.push_back(chosen(all_matrices_, g.matrices, name));
    vectors_.push_back(chosen(all_vectors_, g.vectors, name));
    const Op op = {code_of(g.name),   list_of(g.in),           list_of(g.out),         list_of(g.ints),
                   list_of(g.floats), list_of(matrices_.back()), list_of(vectors_.back()), list_of(g.caches)};
    const Check check(op, shapes_, name);
    CHECKS[op.code](check);
    for (const Matrix& matrix : matrices_.back())
        scratch_bytes_ = std::max(scratch_bytes_, ::scratch_bytes(matrix.columns));
    if (g.name == "enter") {
        check.that(entry_ < 0, "the program is entered twice");
        entry_ = int64_t(number);
    }
    place(check, number);
    ops_.push_back(op);
}

// Whom the operation is run with, and whether it may stand where some tokens have left the depth.
void Program::place(const Check& check, size_t number) {
    const std::string& name = given_[number].name;
    const bool passes_by = number < others_;
    whom_.push_back(passes_by ? Whom::left : name == "rejoin" ? Whom::all : Whom::going);
    const bool moves = name == "leave" || name == "others" || name == "rejoin";
    check.that(!passes_by || !moves, "those that have left cannot move again");
    check.that(!parted_ || (name != "enter" && name != "pick" && name != "embed"), "this is for all tokens, and some have left");
    check.that(parted_ || (name != "others" && name != "rejoin"), "nobody has left");
    if (name == "others") {
        const size_t behind = given_.size() - number - 1, count = size_t(check.op.ints[0]);
        check.that(count < behind, "the operations for those that have left are not there");
        others_ = number + 1 + count;
    }
    if (moves) parted_ = name != "rejoin";
    check.that(!parted_ || number + 1 < given_.size(), "some tokens have left, and are not joined again");
}

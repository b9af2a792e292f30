// Everything that depends on the instruction set. It is compiled once for each; KERNEL is the name of its table.
#include "list.h"
#include "op.h"
#include "ops_attention.h"
#include "ops_dense.h"
#include "ops_exits.h"
#include "ops_features.h"
#include "ops_sparse.h"
#include "weigh.h"

namespace {

#define RUN_OF(name) run_##name,
constexpr Run RUNS[] = {OPS(RUN_OF)};

}  // namespace

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

extern "C" const Kernel KERNEL;
extern "C" const Kernel KERNEL = {TEXT(KERNEL), RUNS, weigh};

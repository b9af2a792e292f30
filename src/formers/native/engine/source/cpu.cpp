#include "cpu.h"

#include <cstring>
#include <initializer_list>

#include "amx.h"

namespace {

#ifdef FORMERS_X86
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"); }
#endif

}  // namespace

bool runs_here(const char* kernel) {
#ifdef FORMERS_X86
    __builtin_cpu_init();
    if (!std::strcmp(kernel, "amx")) return has_vnni() && has_amx();
    if (!std::strcmp(kernel, "vnni")) return has_vnni();
    if (!std::strcmp(kernel, "avx512")) return has_avx512();
    if (!std::strcmp(kernel, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !std::strcmp(kernel, "plain");
}

const char* fastest() {
    for (const char* kernel : {"amx", "vnni", "avx512", "avx2"})
        if (runs_here(kernel)) return kernel;
    return "plain";
}

#include "cpu.h"

#include <cstring>
#include <initializer_list>

#ifdef FORMERS_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace {

#ifdef FORMERS_X86
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"); }

// Tiles hold much state, so a process must ask its system for them once; on Linux all its threads then have them.
bool has_amx() {
#ifdef __linux__
    constexpr long ASK = 0x1023, TILE_DATA = 18;              // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
    unsigned a, b, c, d;
    if (!has_vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d & (BF16 | TILE | INT8)) != (BF16 | TILE | INT8)) return false;
    static const bool granted = syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
    return granted;
#else
    return false;
#endif
}
#endif

}  // namespace

bool runs_here(const char* kernel) {
#ifdef FORMERS_X86
    __builtin_cpu_init();
    if (!std::strcmp(kernel, "amx")) return has_amx();
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

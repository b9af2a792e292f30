// Which kernel this machine runs.
#pragma once
#include <cstdint>
#include <cstring>

#include "problem.h"
#include "share.h"

#ifdef FORMERS_X86
extern "C" const Kernel kernel_avx512, kernel_avx2;
#endif
extern "C" const Kernel kernel_plain;

#define FACE extern "C" __attribute__((visibility("default")))

enum Answer { DONE, NO_MEMORY, NO_KERNEL };

inline bool runs_here(const char* name) {
#ifdef FORMERS_X86
    __builtin_cpu_init();
    if (!std::strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !std::strcmp(name, "plain");
}

inline const Kernel* find(const char* name) {
    if (!runs_here(name)) return nullptr;
#ifdef FORMERS_X86
    if (!std::strcmp(name, "avx512")) return &kernel_avx512;
    if (!std::strcmp(name, "avx2")) return &kernel_avx2;
#endif
    return &kernel_plain;
}

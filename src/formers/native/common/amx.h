// Whether this machine has tiles (AMX), and a thread's use of them.
#pragma once
#include <cstdint>

#ifdef FORMERS_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Tiles hold much state, so a process must ask its system for them once; on Linux all its threads then have them.
inline bool has_amx() {
#ifdef __linux__
    constexpr long ASK = 0x1023, TILE_DATA = 18;              // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d & (BF16 | TILE | INT8)) != (BF16 | TILE | INT8)) return false;
    static const bool granted = syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
    return granted;
#else
    return false;
#endif
}
#endif

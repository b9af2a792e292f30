// Which of the kernels this machine runs: 'plain', 'avx2', 'avx512', 'vnni' (and bf16), 'amx', from slow to fast.
#pragma once

bool runs_here(const char* kernel);
const char* fastest();

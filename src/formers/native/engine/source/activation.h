// The activations, in the order in which build.py names them.
#pragma once
#include <cstdint>

enum Activation : int64_t { identity, relu, gelu, gelu_tanh, silu, gelu_sigmoid, logistic, ACTIVATIONS };

// The operations of sparse layers.
#pragma once

#define SPARSE_OPS(X) \
    X(sparse_feedforward) X(experts) X(switch_experts) X(multiplicative) X(module_convolution) X(modular) X(recurrent)

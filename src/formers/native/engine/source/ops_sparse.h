// The operations of sparse layers.
#pragma once
#include "ops_sparse_convolution.h"
#include "ops_sparse_experts.h"
#include "ops_sparse_feedforward.h"
#include "ops_sparse_modular.h"
#include "ops_sparse_multiplicative.h"
#include "ops_sparse_recurrence.h"
#include "ops_sparse_switch.h"

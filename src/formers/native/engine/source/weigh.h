// What sampling asks of the instruction set.
#pragma once
#include "wide.h"

namespace {

// Logits as weights, in place: exponentials of how far each is below the largest, `top`, by the temperature. What is too
// unlikely to be a number, or minus infinity, weighs nothing.
void weigh(float* logits, int64_t count, float top, float temperature) {
    const float sharpness = 1.0f / temperature;
    for (int64_t i = 0; i < count; i += WIDE) {
        float some[WIDE] = {};
        const int64_t width = least(WIDE, count - i);
        copy_run(some, logits + i, width);
        const Wide below = (load_wide(some) - top) * sharpness;
        store_wide(some, pick(below > -87.0f, exponential(below), Wide{}));
        copy_run(logits + i, some, width);
    }
}

}  // namespace

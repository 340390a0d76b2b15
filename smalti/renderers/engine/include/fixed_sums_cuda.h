// CUDA: sums that many threads add to, the same bits in whatever order they come.
//
// Floats are rounded at every addition, so their sum depends on the order; integers are not. So a value is written as two integers, its whole
// part and its rest in units that are powers of two, and each is added to a 64-bit word by an atomic of its own. What the words hold is exact;
// exact_sums.py chooses the units so that no word can overflow, and turns the words into numbers in the end.
#pragma once
#include "lanes.h"

namespace smalti {

struct FixedSums {
    real* plain;                // [n], added to as floats where there are no words
    unsigned long long* words;  // [n, 2], zero at first; or null
    double unit, rest_unit;     // |value| * unit < rest_unit

    SM_FN void add(long long at, real value) const {
        if (!words) {
            atomicAdd(plain + at, value);
            return;
        }
        const double scaled = (double)value * unit;
        if (!(scaled < rest_unit && -scaled < rest_unit)) {  // infinite or not a number: so is the sum
            plain[at] = (value - value) / (value - value);
            return;
        }
        const long long whole = (long long)scaled, rest = (long long)((scaled - (double)whole) * rest_unit);
        if (whole) atomicAdd(words + 2 * at, (unsigned long long)whole);
        if (rest) atomicAdd(words + 2 * at + 1, (unsigned long long)rest);
    }
};

}  // namespace smalti

// Functions of lanes beyond arithmetic.
#pragma once
#include "lanes.h"

namespace smalti {

// e^x for x <= 80; 0, or 2^-126, below -87.
SM_FN F exp_of(F x) { return exp2_of(max_of(x * splat(real(1.4426950408889634)), splat(real(-126)))); }

}  // namespace smalti

// Mathematics of one number at a time, in double: what `project` and `finish` of the kinds do once per primitive, where a float
// would cost far or small primitives their digits.
#pragma once
#include "lanes.h"

namespace smalti {

#ifdef SMALTI_CUDA
SM_FN double wide_sqrt(double x) { return ::sqrt(x); }
SM_FN double wide_log2(double x) { return ::log2(x); }
SM_FN double wide_floor(double x) { return ::floor(x); }
SM_FN double wide_fma(double a, double b, double c) { return ::fma(a, b, c); }
#else
SM_FN double wide_sqrt(double x) { return std::sqrt(x); }
SM_FN double wide_log2(double x) { return std::log2(x); }
SM_FN double wide_floor(double x) { return std::floor(x); }
SM_FN double wide_fma(double a, double b, double c) { return std::fma(a, b, c); }
#endif
SM_FN double wide_max(double a, double b) { return a > b ? a : b; }
SM_FN double wide_min(double a, double b) { return a < b ? a : b; }
SM_FN double wide_abs(double a) { return a < 0 ? -a : a; }
SM_FN bool is_finite(double x) { return x - x == 0; }
SM_FN double wide_dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
SM_FN void wide_cross(const double* a, const double* b, double* out) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

}  // namespace smalti

// Real spherical harmonics of degree 0..3 in the order and with the signs of 3DGS (Kerbl et al. 2023), and their derivatives.
#pragma once
#include "lanes.h"

namespace smalti {

constexpr int kShMax = 16;

// y[0..(degree+1)^2) at the unit direction (x, y, z).
SM_FN void sh_basis(int degree, F x, F y, F z, F* basis) {
    basis[0] = splat(real(0.28209479177387814));
    if (degree < 1) return;
    const real c1 = real(0.4886025119029199);
    basis[1] = y * splat(-c1);
    basis[2] = z * splat(c1);
    basis[3] = x * splat(-c1);
    if (degree < 2) return;
    F xx = x * x, yy = y * y, zz = z * z;
    const real a = real(1.0925484305920792), b = real(0.31539156525252005), c = real(0.5462742152960396);
    basis[4] = x * y * splat(a);
    basis[5] = y * z * splat(-a);
    basis[6] = (zz + zz - xx - yy) * splat(b);
    basis[7] = x * z * splat(-a);
    basis[8] = (xx - yy) * splat(c);
    if (degree < 3) return;
    const real d = real(0.5900435899266435), e = real(2.890611442640554), f = real(0.4570457994644658);
    const real g = real(0.3731763325901154), h = real(1.445305721320277);
    F three = splat(3), four = splat(4);
    basis[9] = y * (three * xx - yy) * splat(-d);
    basis[10] = x * y * z * splat(e);
    basis[11] = y * (four * zz - xx - yy) * splat(-f);
    basis[12] = z * (zz + zz - three * (xx + yy)) * splat(g);
    basis[13] = x * (four * zz - xx - yy) * splat(-f);
    basis[14] = z * (xx - yy) * splat(h);
    basis[15] = x * (xx - three * yy) * splat(-d);
}

// Adds sum_k weight[k] * d basis[k] / d (x, y, z) to the direction's gradient; the basis is taken as polynomials in x, y, z.
SM_FN void sh_basis_vjp(int degree, F x, F y, F z, const F* weight, F* gx, F* gy, F* gz) {
    if (degree < 1) return;
    const real c1 = real(0.4886025119029199);
    F dx = weight[3] * splat(-c1), dy = weight[1] * splat(-c1), dz = weight[2] * splat(c1);
    if (degree >= 2) {
        const real a = real(1.0925484305920792), b2 = real(2 * 0.31539156525252005), c2 = real(2 * 0.5462742152960396);
        F wa4 = weight[4] * splat(a), wa5 = weight[5] * splat(-a), wa7 = weight[7] * splat(-a);
        F wb = weight[6] * splat(b2), wc = weight[8] * splat(c2);
        dx += wa4 * y + wa7 * z - wb * x + wc * x;
        dy += wa4 * x + wa5 * z - wb * y - wc * y;
        dz += wa5 * y + wa7 * x + splat(2) * wb * z;
    }
    if (degree >= 3) {
        F xx = x * x, yy = y * y, zz = z * z, three = splat(3), six = splat(6), two = splat(2), four = splat(4), eight = splat(8);
        F d9 = weight[9] * splat(real(-0.5900435899266435)), d10 = weight[10] * splat(real(2.890611442640554));
        F d11 = weight[11] * splat(real(-0.4570457994644658)), d12 = weight[12] * splat(real(0.3731763325901154));
        F d13 = weight[13] * splat(real(-0.4570457994644658)), d14 = weight[14] * splat(real(1.445305721320277));
        F d15 = weight[15] * splat(real(-0.5900435899266435));
        dx += d9 * six * x * y + d10 * y * z - d11 * two * x * y - d12 * six * x * z + d13 * (four * zz - three * xx - yy) +
              d14 * two * x * z + d15 * three * (xx - yy);
        dy += d9 * three * (xx - yy) + d10 * x * z + d11 * (four * zz - xx - three * yy) - d12 * six * y * z -
              d13 * two * x * y - d14 * two * y * z - d15 * six * x * y;
        dz += d10 * x * y + d11 * eight * y * z + d12 * (six * zz - three * (xx + yy)) + d13 * eight * x * z + d14 * (xx - yy);
    }
    *gx += dx;
    *gy += dy;
    *gz += dz;
}

}  // namespace smalti

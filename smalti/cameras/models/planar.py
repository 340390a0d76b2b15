"""Distortion of a plane: radial polynomial (or a quotient of two), tangential and thin-prism terms, with inverse.

Brown 1966 (tangential), Weng et al. 1992 (thin prism); the fisheye models of Kannala and Brandt 2006 use the same
polynomials on the plane of the equidistant projection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

Plane = Float[np.ndarray, "n 2"]

_NEWTON_STEPS = 60
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class PlanarDistortion:
    """The map p -> p g(|p|^2) + bend, where g = (1 + k1 s + k2 s^2 ...) / (1 + k4 s + ...) and s = |p|^2."""

    radial: tuple[float, ...] = ()
    """Coefficients of s, s^2, ... in the numerator of g."""
    divisor: tuple[float, ...] = ()
    """Coefficients of s, s^2, ... in the denominator of g."""
    tangential: tuple[float, float] = (0.0, 0.0)
    """p1, p2 as OpenCV names them."""
    prism: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Coefficients of s and s^2 in x, then in y."""
    cascaded: bool = False
    """True: tangential and prism terms are evaluated at the radially distorted point (Project Aria), not at p."""
    reach: float = math.inf
    """Largest radius that the plane has: infinite, or pi for the equidistant plane."""

    @cached_property
    def is_identity(self) -> bool:
        """True where nothing is distorted."""
        return not (any(self.radial) or any(self.divisor) or self._bends)

    @cached_property
    def _bends(self) -> bool:
        return any(self.tangential) or any(self.prism)

    @cached_property
    def _polynomials(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numerator, its derivative, denominator, its derivative, in s, highest power first."""
        numerator = np.array([*reversed(self.radial), 1.0])
        denominator = np.array([*reversed(self.divisor), 1.0])
        return numerator, np.polyder(numerator), denominator, np.polyder(denominator)

    @cached_property
    def radial_limit(self) -> float:
        """Radius up to which r g(r^2) grows strictly: the first zero of its derivative or of the denominator of g."""
        numerator, numerator_slope, denominator, denominator_slope = self._polynomials
        twice_s = np.array([2.0, 0.0])
        growth = np.polysub(
            np.polymul(np.polyadd(numerator, np.polymul(twice_s, numerator_slope)), denominator),
            np.polymul(twice_s, np.polymul(numerator, denominator_slope)),
        )
        # A pole itself has no image, so the range ends just before it.
        square = min(_first_positive_root(growth), _first_positive_root(denominator) * (1.0 - 1e-9))
        return min(self.reach, math.sqrt(square))

    @cached_property
    def limit(self) -> float:
        """Radius of the disc in which the map is taken to be one-to-one.

        Exact for radial distortion. With tangential or prism terms the disc is cut where, on a polar grid, the
        determinant of the Jacobian first falls to zero.
        """
        if not self._bends:
            return self.radial_limit
        # Equal steps of the angle off the axis spread the samples sensibly where the plane is wide or infinite.
        end = self.radial_limit
        radii = np.tan(np.linspace(0.0, math.atan(min(end, 100.0)), 800))
        angles = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = (radii[:, None, None] * rays[None]).reshape(-1, 2)
        matrix = self.jacobian(points)
        determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
        bad = np.any(~(determinant.reshape(len(radii), len(angles)) > 0.0), axis=1)
        bad[0] = False
        return float(radii[int(np.argmax(bad)) - 1]) if bad.any() else end

    def apply(self, points: Plane) -> Plane:
        """The distorted points."""
        if self.is_identity:
            return points
        bent = points * self._gain(points)[:, None] if any(self.radial) or any(self.divisor) else points
        if not self._bends:
            return bent
        return bent + self._bend(bent if self.cascaded else points)

    def jacobian(self, points: Plane) -> Float[np.ndarray, "n 2 2"]:
        """Derivative of `apply`."""
        numerator, numerator_slope, denominator, denominator_slope = self._polynomials
        s = np.sum(points**2, axis=1)
        below = np.polyval(denominator, s)
        gain = np.polyval(numerator, s) / below
        slope = (np.polyval(numerator_slope, s) - gain * np.polyval(denominator_slope, s)) / below
        radial = gain[:, None, None] * np.eye(2) + 2.0 * slope[:, None, None] * points[:, :, None] * points[:, None, :]
        if not self._bends:
            return radial
        if self.cascaded:
            return (np.eye(2) + self._bend_jacobian(points * gain[:, None])) @ radial
        return radial + self._bend_jacobian(points)

    def invert(self, points: Plane) -> tuple[Plane, Bool[np.ndarray, "n"]]:
        """The undistorted points, and whether one was found inside `limit`; NaN where not."""
        if self.is_identity:
            return points, np.linalg.norm(points, axis=1) <= self.reach
        distorted = np.linalg.norm(points, axis=1)
        radius, found = self._invert_radius(distorted)
        with np.errstate(all="ignore"):
            ratio = np.where(distorted > 0.0, radius / distorted, 1.0)
            if not self._bends:
                return points * np.where(found, ratio, np.nan)[:, None], found
            # Where the radial part alone does not reach the point, the bend may: start Newton near the edge.
            edge = 0.95 * self.limit if math.isfinite(self.limit) else 1.0
            ratio = np.where(found, ratio, edge / distorted)
            return self._newton(points, points * ratio[:, None])

    def _gain(self, points: Plane) -> Float[np.ndarray, "n"]:
        s = np.sum(points**2, axis=1)
        numerator, _, denominator, _ = self._polynomials
        gain = np.polyval(numerator, s)
        return gain / np.polyval(denominator, s) if any(self.divisor) else gain

    def _bend(self, points: Plane) -> Plane:
        x, y = points[:, 0], points[:, 1]
        s = x * x + y * y
        (p1, p2), (x1, x2, y1, y2) = self.tangential, self.prism
        along_x = 2.0 * p1 * x * y + p2 * (s + 2.0 * x * x) + s * (x1 + x2 * s)
        along_y = 2.0 * p2 * x * y + p1 * (s + 2.0 * y * y) + s * (y1 + y2 * s)
        return np.stack([along_x, along_y], axis=1)

    def _bend_jacobian(self, points: Plane) -> Float[np.ndarray, "n 2 2"]:
        x, y = points[:, 0], points[:, 1]
        s = x * x + y * y
        (p1, p2), (x1, x2, y1, y2) = self.tangential, self.prism
        prism_x, prism_y = 2.0 * (x1 + 2.0 * x2 * s), 2.0 * (y1 + 2.0 * y2 * s)
        matrix = np.empty((len(points), 2, 2))
        matrix[:, 0, 0] = 2.0 * p1 * y + 6.0 * p2 * x + prism_x * x
        matrix[:, 0, 1] = 2.0 * p1 * x + 2.0 * p2 * y + prism_x * y
        matrix[:, 1, 0] = 2.0 * p2 * y + 2.0 * p1 * x + prism_y * x
        matrix[:, 1, 1] = 2.0 * p2 * x + 6.0 * p1 * y + prism_y * y
        return matrix

    def _invert_radius(self, distorted: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        """Newton's method kept inside a shrinking bracket: r g(r^2) grows on [0, radial_limit], so it cannot fail."""

        def excess(radius: np.ndarray) -> np.ndarray:
            points = np.stack([radius, np.zeros_like(radius)], axis=1)
            return radius * self._gain(points) - distorted

        finite = np.isfinite(distorted)
        low = np.zeros_like(distorted)
        if math.isfinite(self.radial_limit):
            high = np.full_like(distorted, self.radial_limit)
        else:
            high = np.maximum(1.0, 2.0 * np.where(finite, distorted, 0.0))
            for _ in range(40):
                short = finite & (excess(high) < 0.0)
                if not short.any():
                    break
                high = np.where(short, 2.0 * high, high)
        with np.errstate(all="ignore"):
            found = finite & (excess(high) >= 0.0)
            radius = np.minimum(np.where(finite, distorted, 0.0), 0.5 * high)
            for _ in range(_NEWTON_STEPS):
                error = excess(radius)
                low, high = np.where(error < 0.0, radius, low), np.where(error < 0.0, high, radius)
                points = np.stack([radius, np.zeros_like(radius)], axis=1)
                following = radius - error / self._radial_slope(points)
                inside = (following >= low) & (following <= high)
                following = np.where(inside, following, 0.5 * (low + high))
                moved = np.abs(following - radius) > 1e-15 * (1.0 + radius)
                radius = following
                if not (moved & found & (np.abs(error) > 1e-16 * (1.0 + distorted))).any():
                    break
            found &= np.abs(excess(radius)) <= _TOLERANCE * (1.0 + distorted)
        return radius, found

    def _radial_slope(self, points: Plane) -> Float[np.ndarray, "n"]:
        numerator, numerator_slope, denominator, denominator_slope = self._polynomials
        s = np.sum(points**2, axis=1)
        below = np.polyval(denominator, s)
        gain = np.polyval(numerator, s) / below
        return gain + 2.0 * s * (np.polyval(numerator_slope, s) - gain * np.polyval(denominator_slope, s)) / below

    def _newton(self, target: Plane, start: Plane) -> tuple[Plane, Bool[np.ndarray, "n"]]:
        """Newton's method in the plane, each step halved until the residual falls; checked at the end."""
        points = start.copy()
        with np.errstate(all="ignore"):
            residual = self.apply(points) - target
            for _ in range(_NEWTON_STEPS):
                size = np.linalg.norm(residual, axis=1)
                active = np.flatnonzero(size > 1e-15 * (1.0 + np.linalg.norm(target, axis=1)))
                if not len(active):
                    break
                matrix = self.jacobian(points[active])
                determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
                r0, r1 = residual[active, 0], residual[active, 1]
                step = np.stack(
                    [matrix[:, 1, 1] * r0 - matrix[:, 0, 1] * r1, matrix[:, 0, 0] * r1 - matrix[:, 1, 0] * r0], axis=1
                )
                step /= determinant[:, None]
                better = np.zeros(len(active), bool)
                for _ in range(12):
                    trial = points[active] - step
                    trial_residual = self.apply(trial) - target[active]
                    now = ~better & (np.linalg.norm(trial_residual, axis=1) < size[active])
                    points[active[now]], residual[active[now]] = trial[now], trial_residual[now]
                    better |= now
                    if better.all():
                        break
                    step = np.where(better[:, None], step, 0.5 * step)
                if not better.any():
                    break
            near = np.linalg.norm(residual, axis=1) <= _TOLERANCE * (1.0 + np.linalg.norm(target, axis=1))
            found = near & (np.linalg.norm(points, axis=1) <= self.limit)
        points[~found] = np.nan
        return points, found


def _first_positive_root(polynomial: np.ndarray) -> float:
    """Smallest positive real root of a polynomial whose constant term is 1 (highest power first); infinite if none.

    It is found as the largest root of the reversed polynomial, which stays well conditioned however small the
    leading coefficients are.
    """
    inverse = np.roots(polynomial[::-1])
    real = inverse.real[(np.abs(inverse.imag) <= 1e-9 * np.abs(inverse)) & (inverse.real > 1e-18)]
    return 1.0 / float(real.max()) if len(real) else math.inf

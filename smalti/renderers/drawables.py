"""What the compositor can draw: plain tensors, one class per kind. Families (smalti/primitives) make them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianDrawable:
    """Kind `gaussian` (EWA): anisotropic 3D Gaussians splatted as 2D ones (Zwicker et al. 2001; Kerbl et al. 2023).

    Colour is `max(0, 0.5 + SH(direction))` with the real basis of 3DGS; the direction is from the camera to the mean.
    Primitives with NaN or Inf anywhere, a zero quaternion or a non-positive scale are skipped and counted in the frame.
    """

    means: Float[Tensor, "n 3"]
    """Centres, world units."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations w, x, y, z; need not be of unit length (normalised inside, differentiably)."""
    scales: Float[Tensor, "n 3"]
    """Standard deviations along the local axes, world units, > 0."""
    opacities: Float[Tensor, "n"]
    """0..1; the drawn alpha is capped at 0.99."""
    sh_dc: Float[Tensor, "n 3"]
    """Spherical harmonics, degree 0."""
    sh_rest: Float[Tensor, "n k 3"] | None = None
    """Degrees 1..3, k = 3, 8 or 15."""
    sh_degree: int = 0
    """Degrees in use, 0..3; at most what `sh_rest` holds."""
    features: Float[Tensor, "n f"] | None = None
    """Any number of further channels, composited with the same weights."""
    filter_variance: float = 0.3
    """Variance in square pixels added to the projected covariance."""
    compensated: bool = False
    """Scale opacity by sqrt(det before / after the filter), so that it adds no mass (Yu et al. 2024, Mip-Splatting)."""

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        expected: dict[str, tuple[int, ...]] = {
            **{"means": (n, 3), "quaternions": (n, 4), "scales": (n, 3), "opacities": (n,), "sh_dc": (n, 3)},
            # The kernels read as many rows as there are means, whatever is there: all are checked.
            **({} if self.sh_rest is None else {"sh_rest": (n, *self.sh_rest.shape[1:2], 3)}),
            **({} if self.features is None else {"features": (n, self.features.shape[-1])}),
        }
        for field, shape in expected.items():
            tensor = getattr(self, field)
            if tuple(tensor.shape) != shape:
                raise ValueError(f"GaussianDrawable.{field}: expected shape {shape}, got {tuple(tensor.shape)}")
            if tensor.device != self.means.device:
                raise ValueError(
                    f"GaussianDrawable.{field}: on {tensor.device}, but the means are on {self.means.device}"
                )
        rest = 0 if self.sh_rest is None else self.sh_rest.shape[1]
        if not 0 <= self.sh_degree <= 3 or (self.sh_degree + 1) ** 2 - 1 > rest:
            needed = (self.sh_degree + 1) ** 2 - 1
            raise ValueError(
                f"GaussianDrawable.sh_degree: {self.sh_degree} needs {needed} coefficients in sh_rest, got {rest}"
            )

    def __len__(self) -> int:
        return self.means.shape[0]

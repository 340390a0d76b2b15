"""What the compositor can draw: plain tensors, one class per kind. Families (smalti/primitives) make them.

A drawable's tensors, numbers and switches travel to the kernels in the order of `inputs`; `docs/kinds.md` defines what
each kind draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.renderers.mipmaps import mipmap_count
from smalti.renderers.shapes import check_grid, check_harmonics, check_shapes


@dataclass(frozen=True)
class Inputs:
    """What the kernels read of a drawable (`KindInput` in include/kinds/kind.h); the order is the kind's own."""

    tensors: Sequence[Tensor | None]
    """Differentiable."""
    indices: Sequence[Tensor | None] = ()
    """Int32 tensors."""
    integers: Sequence[int] = ()
    numbers: Sequence[float] = ()


@runtime_checkable
class Drawable(Protocol):
    """What the renderers ask of a drawable; rows are primitives."""

    kind: ClassVar[str]
    """Name of the kind in the engine."""

    def __len__(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def feature_count(self) -> int:
        """Channels beside the colour."""
        ...

    def inputs(self) -> Inputs: ...


class _Splat:
    """What the kinds with a mean and spherical harmonics share."""

    means: Tensor
    features: Tensor | None
    sh_rest: Tensor | None
    sh_degree: int

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.means.dtype

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def feature_count(self) -> int:
        return 0 if self.features is None else self.features.shape[-1]

    def _splat_shapes(self, scales: int) -> dict[str, tuple[int, ...]]:
        n = len(self)
        return {
            **{"means": (n, 3), "quaternions": (n, 4), "scales": (n, scales), "opacities": (n,), "sh_dc": (n, 3)},
            **({} if self.sh_rest is None else {"sh_rest": (n, *self.sh_rest.shape[1:2], 3)}),
            **({} if self.features is None else {"features": (n, self.features.shape[-1])}),
        }

    def _splat_integers(self) -> list[int]:
        return [0 if self.sh_rest is None else self.sh_rest.shape[1], self.sh_degree, self.feature_count]


@dataclass(frozen=True, eq=False)
class _OpacitySplat(_Splat):
    """What those of them with an opacity per primitive share."""

    axes: ClassVar[int] = 3
    """Scales per primitive."""

    means: Float[Tensor, "n 3"]
    """Centres, world units."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations w, x, y, z; need not be of unit length (normalised inside, differentiably)."""
    scales: Float[Tensor, "n a"]
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

    def __post_init__(self) -> None:
        check_shapes(self, self.means, self._splat_shapes(self.axes))
        check_harmonics(self, self.sh_rest, self.sh_degree)

    def _splat_inputs(self, integers: Sequence[int] = (), numbers: Sequence[float] = ()) -> Inputs:
        tensors = [self.means, self.quaternions, self.scales, self.opacities, self.sh_dc, self.sh_rest, self.features]
        return Inputs(tensors, (), [*self._splat_integers(), *integers], numbers)


@dataclass(frozen=True, eq=False)
class GaussianDrawable(_OpacitySplat):
    """Kind `gaussian` (EWA): anisotropic 3D Gaussians splatted as 2D ones (Zwicker et al. 2001; Kerbl et al. 2023).

    Colour is `max(0, 0.5 + SH(direction))` with the real basis of 3DGS; the direction is from the camera to the mean.
    Primitives with NaN or Inf anywhere, a zero quaternion or a non-positive scale are skipped and counted in the frame.
    """

    kind: ClassVar[str] = "gaussian"

    filter_variance: float = 0.3
    """Variance in square pixels added to the projected covariance."""
    compensated: bool = False
    """Scale opacity by sqrt(det before / after the filter), so that it adds no mass (Yu et al. 2024, Mip-Splatting)."""

    def inputs(self) -> Inputs:
        return self._splat_inputs([int(self.compensated)], [self.filter_variance])


@dataclass(frozen=True, eq=False)
class RayGaussianDrawable(_OpacitySplat):
    """Kind `gaussian_ray`: 3D Gaussians evaluated on the ray itself, no affine approximation.

    `maximum`: the largest response along the ray times opacity (Yu et al. 2024, Gaussian Opacity Fields; Moenne-Loccoz
    et al. 2024, 3DGRT). `integral`: 1 - exp(-line integral), peak density `opacities / max(scales)`; `opacities` may
    exceed 1 there.
    """

    kind: ClassVar[str] = "gaussian_ray"

    response: Literal["maximum", "integral"] = "maximum"
    """What a ray takes of a Gaussian; see the class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response not in ("maximum", "integral"):
            raise ValueError(f"RayGaussianDrawable.response: expected 'maximum' or 'integral', got {self.response!r}")

    def inputs(self) -> Inputs:
        return self._splat_inputs([int(self.response == "integral")])


@dataclass(frozen=True, eq=False)
class SurfelDrawable(_OpacitySplat):
    """Kind `surfel`: flat Gaussian disks hit by the ray (Huang et al. 2024, 2DGS, without its screen-space filter).

    A disk lies in its first two local axes, whose two scales it has; the third is its normal.
    """

    kind: ClassVar[str] = "surfel"
    axes: ClassVar[int] = 2

    def inputs(self) -> Inputs:
        return self._splat_inputs()


@dataclass(frozen=True, eq=False)
class NeuralDrawable(_Splat):
    """Kind `neural`: ellipsoids filled with a one-layer neural density, integrated exactly (Zhou et al. 2025)."""

    kind: ClassVar[str] = "neural"

    means: Float[Tensor, "n 3"]
    """Centres, world units."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations w, x, y, z of the bound (and of the field, in the `local` frame)."""
    scales: Float[Tensor, "n 3"]
    """Semi-axes of the bound, world units, > 0."""
    frequencies: Float[Tensor, "n w 3"]
    """First layer, raw (multiplied by `omega`); w is 8 or 16."""
    phases: Float[Tensor, "n w"]
    """First layer's bias, raw (multiplied by `omega`)."""
    amplitudes: Float[Tensor, "n w"]
    """Second layer."""
    offsets: Float[Tensor, "n"]
    """Second layer's bias."""
    sh_dc: Float[Tensor, "n 3"]
    sh_rest: Float[Tensor, "n k 3"] | None = None
    sh_degree: int = 0
    features: Float[Tensor, "n f"] | None = None
    omega: float = 30.0
    """Factor of `frequencies` and `phases`, as published."""
    frame: Literal["world", "local"] = "world"
    """Axes of the field: the world's, as published, or the primitive's own."""
    cap: bool = True
    """Cap alpha at 0.99 and skip it below 1/255, as published."""
    leak: float = 0.0
    """Share of the gradient that rays get where nothing is drawn (negative or too faint an integral); 0 as published.
    Approximate by intent."""

    def __post_init__(self) -> None:
        if self.frequencies.dim() != 3:
            shape = tuple(self.frequencies.shape)
            raise ValueError(f"NeuralDrawable.frequencies: expected [n, width, 3], got {shape}")
        n, width = len(self), self.frequencies.shape[1]
        shapes = self._splat_shapes(3)
        del shapes["opacities"]
        shapes |= {"frequencies": (n, width, 3), "phases": (n, width), "amplitudes": (n, width), "offsets": (n,)}
        check_shapes(self, self.means, shapes)
        check_harmonics(self, self.sh_rest, self.sh_degree)
        if width not in (8, 16):
            raise ValueError(f"NeuralDrawable.frequencies: expected a width of 8 or 16, got {width}")
        if self.frame not in ("world", "local"):
            raise ValueError(f"NeuralDrawable.frame: expected 'world' or 'local', got {self.frame!r}")
        if not math.isfinite(self.omega) or not 0 <= self.leak < math.inf:
            raise ValueError("NeuralDrawable: omega must be a number, leak a number that is 0 or more")

    def inputs(self) -> Inputs:
        tensors = [self.means, self.quaternions, self.scales, None, self.sh_dc, self.sh_rest, self.features]
        tensors += [self.frequencies, self.phases, self.amplitudes, self.offsets]
        switches = [self.frequencies.shape[1], int(self.frame == "local"), int(self.cap)]
        return Inputs(tensors, (), [*self._splat_integers(), *switches], [self.omega, self.leak])


@dataclass(frozen=True, eq=False)
class TriangleDrawable:
    """Kind `triangle`: triangles with interpolated channels or a texture; one row per face.

    Corners are given per face (`vertices[faces]`), so that any sharing of vertices, colours and texture coordinates is
    the caller's and torch sums their gradients.
    """

    kind: ClassVar[str] = "triangle"

    corners: Float[Tensor, "n 3 3"]
    """Corner positions (face, corner, xyz), world units."""
    opacities: Float[Tensor, "n"]
    """0..1 per face; exactly 1 ends the ray."""
    colors: Float[Tensor, "n 3 3"] | None = None
    """Colour per corner; needed where there is no texture."""
    features: Float[Tensor, "n 3 f"] | None = None
    """Further channels per corner."""
    normals: Float[Tensor, "n 3 3"] | None = None
    """Corner normals in world axes (need not be unit); None: the face's own. They only enter `Frame.normal`."""
    texture: Float[Tensor, "h w c"] | None = None
    """RGB or RGBA (alpha multiplies the opacity); row 0 is v = 0."""
    uvs: Float[Tensor, "n 3 2"] | None = None
    """Texture coordinates per corner: u over the width, v over the height, 0..1."""
    neighbours: Int[Tensor, "n 3"] | None = None
    """The face across the edge from corner i to i + 1, or -1; for `antialiased` (None: every edge is a silhouette)."""
    edges: Literal["hard", "antialiased", "soft"] = "hard"
    """`hard`: the pixel's centre decides; `antialiased`: silhouettes blend over a pixel; `soft`: opacity falls off
    outside of the face."""
    sigma: float = 1e-4
    """`soft`: squared NDC distance at which the opacity has fallen to 1/e outside of the triangle."""
    wrap: bool = False
    """Texture repeats in u instead of clamping."""
    detach_barycentrics: bool = False
    """Colour and features pass no gradient to the corners (Blocks World's setting)."""
    mipmaps: Float[Tensor, "m c"] | None = None
    """Coarser levels of the texture (`smalti.renderers.mipmaps.mipmaps`, which carries their gradient to it), looked up
    where a pixel covers more than a texel; None: the texture alone. Differentiable, and so is the level chosen."""

    def __post_init__(self) -> None:
        n = len(self)
        shapes: dict[str, tuple[int, ...]] = {"corners": (n, 3, 3), "opacities": (n,), "colors": (n, 3, 3)}
        shapes |= {"normals": (n, 3, 3), "uvs": (n, 3, 2), "neighbours": (n, 3)}
        if self.features is not None:
            shapes["features"] = (n, 3, self.features.shape[-1])
        if self.texture is not None:
            if n:  # nobody reads the texture of no faces
                check_grid("TriangleDrawable.texture", self.texture, "[h, w, 3 or 4]", (3, 4))
            shapes["texture"] = tuple(self.texture.shape)
            if self.mipmaps is not None:
                shapes["mipmaps"] = (len(self.mipmaps), self.texture.shape[2])
                self._mipmap_count()
        elif self.mipmaps is not None:
            raise ValueError("TriangleDrawable: mipmaps need their texture")
        check_shapes(self, self.corners, shapes)
        if self.neighbours is not None and self.neighbours.is_floating_point():
            raise ValueError(f"TriangleDrawable.neighbours: expected integers, got {self.neighbours.dtype}")
        if (self.texture is None) != (self.uvs is None):
            raise ValueError("TriangleDrawable: a texture and its uvs come together")
        if (self.texture is None) == (self.colors is None):
            raise ValueError("TriangleDrawable: give either colors or a texture")
        if self.edges not in ("hard", "antialiased", "soft"):
            raise ValueError(f"TriangleDrawable.edges: expected 'hard', 'antialiased' or 'soft', got {self.edges!r}")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"TriangleDrawable.sigma: expected a positive number, got {self.sigma}")

    def __len__(self) -> int:
        return self.corners.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.corners.dtype

    @property
    def device(self) -> torch.device:
        return self.corners.device

    @property
    def feature_count(self) -> int:
        return 0 if self.features is None else self.features.shape[-1]

    def inputs(self) -> Inputs:
        tensors = [self.corners, self.opacities, self.colors, self.features, self.normals, self.texture, self.uvs]
        levels = self._mipmap_count()
        tensors.append(self.mipmaps if levels else None)
        height, width, depth = (0, 0, 0) if self.texture is None else self.texture.shape
        mode = ("hard", "antialiased", "soft").index(self.edges)
        switches = [mode, int(self.wrap), int(self.detach_barycentrics), levels]
        return Inputs(tensors, [self.neighbours], [self.feature_count, height, width, depth, *switches], [self.sigma])

    def _mipmap_count(self) -> int:
        if self.texture is None or self.mipmaps is None or not len(self):
            return 0
        height, width = self.texture.shape[:2]
        try:
            return mipmap_count(height, width, len(self.mipmaps))
        except ValueError as error:
            raise ValueError(f"TriangleDrawable.mipmaps: {error}") from error


@dataclass(frozen=True, eq=False)
class BoxDrawable:
    """Kind `box`: oriented boxes with a voxel payload, ray-marched (Lombardi et al. 2021, MVP)."""

    kind: ClassVar[str] = "box"

    centres: Float[Tensor, "n 3"]
    """World units."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations w, x, y, z; columns of the matrix are the box's axes."""
    half_extents: Float[Tensor, "n 3"]
    """World units, > 0."""
    payload: Float[Tensor, "n mz my mx 4"]
    """RGB and density per world unit (negative counts as 0)."""
    warp: Float[Tensor, "n wz wy wx 3"] | None = None
    """Local coordinates at which the payload is looked up; None: the identity."""
    step: float = 0.01
    """Length of a march step, world units; all boxes of one picture share it."""
    fade_scale: float = 8.0
    """a of the opacity window; 0 for none."""
    fade_exponent: float = 8.0
    """b of the opacity window."""
    accumulation: Literal["exponential", "additive"] = "exponential"
    """`additive` (MVP's clamp) only where boxes are alone in the picture."""
    feature_count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        n = len(self)
        check_grid("BoxDrawable.payload", self.payload, "[n, mz, my, mx, 4]", (4,))
        shapes: dict[str, tuple[int, ...]] = {"centres": (n, 3), "quaternions": (n, 4), "half_extents": (n, 3)}
        shapes["payload"] = (n, *self.payload.shape[1:])
        if self.warp is not None:
            check_grid("BoxDrawable.warp", self.warp, "[n, wz, wy, wx, 3]", (3,))
            shapes["warp"] = (n, *self.warp.shape[1:4], 3)
        check_shapes(self, self.centres, shapes)
        window = 0 <= self.fade_scale < math.inf and 1 <= self.fade_exponent < math.inf
        if not 0 < self.step < math.inf or not window:
            raise ValueError("BoxDrawable: step must be positive, fade_scale 0 or more, fade_exponent 1 or more")
        if self.accumulation not in ("exponential", "additive"):
            raise ValueError(
                f"BoxDrawable.accumulation: expected 'exponential' or 'additive', got {self.accumulation!r}"
            )

    def __len__(self) -> int:
        return self.centres.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.centres.dtype

    @property
    def device(self) -> torch.device:
        return self.centres.device

    def inputs(self) -> Inputs:
        warp = (0, 0, 0) if self.warp is None else self.warp.shape[1:4]
        tensors = [self.centres, self.quaternions, self.half_extents, self.payload, self.warp]
        numbers = [self.step, self.fade_scale, self.fade_exponent]
        return Inputs(tensors, (), [*self.payload.shape[1:4], *warp], numbers)

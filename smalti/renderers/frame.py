"""The result of one render."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Visibility:
    """What the projection decided and, after the backward pass, what the screen felt. Not differentiable.

    Density control reads it; per-primitive rows run over the drawables in the order they were given.
    """

    visible: Bool[Tensor, "n"]
    """True where a primitive touches at least one tile of the picture (oracle, mixed kinds: one pixel)."""
    radii: Float[Tensor, "n"]
    """Largest half-extent on the screen in pixels; 0 where not visible. (Oracle, mixed kinds: of its pixels.)"""
    depths: Float[Tensor, "n"]
    """Camera z of the centres (also of culled ones)."""
    skipped: int
    """Primitives left out because a parameter is not a usable number."""
    intersections: int
    """Entries in all tile lists."""
    screen_gradient: dict[str, Float[Tensor, "n 2"]] = field(default_factory=dict)
    """After backward: `"sum"`, d loss / d projected centre in pixels, and with `absolute_gradient` `"absolute"`.

    Further backward passes over the same frame add to it, as they do to `.grad`."""
    fallback: float = 0.0
    """Share of the pixels whose events outgrew the bounded window and went through the exact unbounded path. General
    compositor of the CPU engine; 0 elsewhere."""
    lookups: int = 0
    """Voxel lookups that boxes took in the forward pass: samples inside a box, over all rays. CPU engine alone."""
    memory: dict[str, int] = field(default_factory=dict)
    """`"arena"`: bytes that the CPU engine holds for this render now; more after the backward pass. Empty elsewhere."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Pictures over one camera. Premultiplied; the background is already behind `color`.

    Differentiable: color, alpha, features, depth, normal. The ids and contributions are not; `depth_median` and
    `depth_first` are differentiable with respect to the primitive they name, not to which one it is, in pictures of
    EWA Gaussians alone; with other kinds they are not differentiable.
    """

    color: Float[Tensor, "h w 3"]
    alpha: Float[Tensor, "h w"]
    """1 - T, the share of the ray that was absorbed."""
    visibility: Visibility
    features: Float[Tensor, "h w f"] | None = None
    normal: Float[Tensor, "h w 3"] | None = None
    """Sum of T a times the unit normal (world axes, towards the camera); 0 for kinds without normals."""
    depth: Float[Tensor, "h w"] | None = None
    """Expected camera z, normalised by alpha: sum(T a z) / sum(T a); 0 where nothing was hit."""
    depth_median: Float[Tensor, "h w"] | None = None
    """Camera z of the event at which T falls to 0.5 or below; 0 where it never does."""
    depth_first: Float[Tensor, "h w"] | None = None
    """Camera z of the first event; 0 where there is none."""
    ids: dict[str, Int[Tensor, "h w"]] = field(default_factory=dict)
    """`first`, `median`, `dominant` (largest T a): rows of the drawables, -1 for none."""
    contribution_sum: Float[Tensor, "n"] | None = None
    """Sum of T a over the picture, per primitive."""
    contribution_max: Float[Tensor, "n"] | None = None
    """Largest T a of one event over the picture, per primitive."""

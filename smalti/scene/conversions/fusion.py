"""Any family to a mesh: rendered depth fused into a truncated signed distance on a grid (Curless and Levoy 1996), its
zero level as a surface net, colours of the pictures on the vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.meshes import Meshes
from smalti.primitives.neighbours import nearest_of
from smalti.primitives.surface import Surface
from smalti.primitives.surface_nets import surface_nets
from smalti.primitives.topology import compacted, vertex_normals
from smalti.scene.conversions.sources import Picture, Source, extent, families, pictures

VOXELS_AT_ONCE = 2**20
OPAQUE = 0.5
"""A ray hits something where alpha reaches this: then there is a median depth."""


@dataclass(frozen=True)
class Fusion:
    """Settings of the conversion by depth fusion."""

    resolution: int = 96
    """Voxels along the longest side of the bounds."""
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """(low, high) of the grid, world units; by default around all but the outermost primitives."""
    depth: str = "median"
    """`median`, where half of the ray is absorbed, or `expected`, the mean."""
    truncation: float = 4.0
    """Distances count up to this many voxels from the surface."""
    closed: bool = True
    """Whether what no camera saw into is solid: a closed mesh. False: no surface between seen and unseen space."""
    smooth: int = 1
    """Times that vertices move to the middle between themselves and their neighbours' mean, and back (Taubin 1995)."""
    steps: int = 0
    """Adam steps that fit vertices and colours to the pictures afterwards; 0: fused only."""

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 512:
            raise ValueError(f"convert: resolution must be 4 to 512, got {self.resolution}")
        if self.depth not in ("median", "expected"):
            raise ValueError(f"convert: depth must be 'median' or 'expected', got {self.depth!r}")
        if not self.truncation >= 1 or self.smooth < 0 or self.steps < 0:
            raise ValueError("convert: truncation must be 1 or more, smooth and steps not negative")


@dataclass(frozen=True, eq=False)
class Grid:
    """A fused distance."""

    origin: Float[Tensor, "3"]
    """Position of sample (0, 0, 0), world units."""
    edge: float
    """Distance of samples, world units."""
    distances: Float[Tensor, "x y z"]
    """Signed distance to the surface in truncations, -1 (inside) to 1; 0 where nobody looked."""
    seen: Bool[Tensor, "x y z"]
    """Where some camera looked."""


@torch.no_grad()
def fused_mesh(source: Source, cameras: Sequence[Camera], settings: Fusion) -> Meshes:
    """The surface that the cameras see, coloured at its vertices. ValueError where they see none.

    Error: about a voxel in place. Sheets thinner than two voxels that are seen from both sides have no inside, and
    vanish. Not differentiable.
    """
    seen = pictures(source, cameras, settings.depth)
    if not any(bool((view.alpha >= OPAQUE).any()) for view in seen):
        raise ValueError("convert: no camera sees a surface; give cameras that look at what should be converted")
    bounds = extent(source) if settings.bounds is None else torch.tensor(settings.bounds)
    grid = fused(seen, bounds, settings)
    inside = torch.where(grid.seen, -grid.distances, torch.ones_like(grid.distances))
    surface = surface_nets(inside, 0.0)
    if not settings.closed:
        surface = _known(surface, grid.seen)
    if not len(surface.faces):
        raise ValueError(
            "convert: the cameras see no surface inside the bounds; give other bounds, or cameras that look at it"
        )
    vertices = smoothed_vertices(surface.vertices, surface.faces, settings.smooth) * grid.edge + grid.origin
    placed = Surface(vertices, surface.faces)
    colors = fused_colors(placed, seen, settings.truncation * grid.edge)
    mesh = Meshes.from_mesh(placed.vertices, placed.faces, colors, {})
    mesh.to(families(source)[0].device)
    return mesh


@torch.no_grad()
def fused(views: Sequence[Picture], bounds: Float[Tensor, "2 3"], settings: Fusion) -> Grid:
    """The mean over the views of (depth along the view - voxel's depth) / truncation, cut at 1 in front of the surface
    and left out behind it. A ray that hits nothing says that all along it is outside.
    """
    low, high = bounds.float().unbind(0)
    edge = float((high - low).max()) / settings.resolution
    counts = torch.ceil((high - low) / edge).long() + 5
    origin = 0.5 * (low + high) - 0.5 * edge * (counts - 1)
    size = int(counts.prod())
    sums, weights = torch.zeros(size), torch.zeros(size)
    reach = settings.truncation * edge
    for start in range(0, size, VOXELS_AT_ONCE):
        flat = torch.arange(start, min(start + VOXELS_AT_ONCE, size))
        points = origin + edge * torch.stack(torch.unravel_index(flat, tuple(counts.tolist())), dim=1).float()
        for view in views:
            distance, counted = _distances(view, points, reach)
            sums[flat] += torch.where(counted, distance, torch.zeros_like(distance))
            weights[flat] += counted.float()
    shape = tuple(counts.tolist())
    return Grid(origin, edge, (sums / weights.clamp_min(1.0)).reshape(shape), (weights > 0).reshape(shape))


def _projected(camera: Camera, points: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y in pixels, camera z); what lies behind the camera is far outside of the picture."""
    camera = camera.to(torch.float32)
    local = points @ camera.rotation.detach().T + camera.translation.detach()
    fx, fy, cx, cy = camera.intrinsics.detach().unbind()
    z = local[:, 2]
    safe = torch.where(z > 1e-6, z, torch.ones_like(z))
    x = torch.where(z > 1e-6, fx * local[:, 0] / safe + cx, torch.full_like(z, -1e6))
    return x, fy * local[:, 1] / safe + cy, z


def _distances(view: Picture, points: Float[Tensor, "n 3"], reach: float) -> tuple[Tensor, Bool[Tensor, "n"]]:
    """(distance in truncations, whether this view says anything)."""
    x, y, z = _projected(view.camera, points)
    height, width = view.alpha.shape
    inside = (x > 0.5) & (x < width - 0.5) & (y > 0.5) & (y < height - 0.5)
    depth, hit = _looked_up(view, x, y, reach)
    distance = torch.where(hit, (depth - z) / reach, torch.ones_like(z)).clamp_max(1.0)
    return distance, inside & (distance > -1.0)


def _looked_up(view: Picture, x: Tensor, y: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Depth and whether there is one: bilinear where the four pixels around lie on one surface, else of the nearest."""
    assert view.depth is not None
    height, width = view.alpha.shape
    hits = ((view.alpha >= OPAQUE) & (view.depth > 0)).flatten()
    depths = view.depth.flatten()
    left, top = (x - 0.5).floor().clamp(0, width - 2), (y - 0.5).floor().clamp(0, height - 2)
    across, down = (x - 0.5 - left).clamp(0, 1), (y - 0.5 - top).clamp(0, 1)
    first = (top * width + left).long()
    four = torch.stack([first, first + 1, first + width, first + width + 1], dim=1)
    weight = torch.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down], dim=1)
    around, all_hit = depths[four], hits[four].all(dim=1)
    smooth = all_hit & (around.amax(1) - around.amin(1) < reach)
    nearest = four.gather(1, weight.argmax(dim=1, keepdim=True))[:, 0]
    return torch.where(smooth, (around * weight).sum(1), depths[nearest]), hits[nearest]


def _known(surface: Surface, seen: Bool[Tensor, "x y z"]) -> Surface:
    """Without the faces at a cell with a sample that no camera saw."""
    whole = -torch.nn.functional.max_pool3d(-seen.float()[None, None], 2, 1)[0, 0] > 0  # all eight corners of a cell
    cell = surface.vertices.floor().long()
    inside = ((cell >= 0) & (cell < torch.tensor(whole.shape))).all(dim=1)
    cell = cell.clamp_min(0).minimum(torch.tensor(whole.shape) - 1)
    good = whole[tuple(cell.T)] & inside
    left = compacted(surface.faces[good[surface.faces].all(dim=1)], len(surface.vertices))
    return Surface(surface.vertices[left.kept], left.faces)


@torch.no_grad()
def smoothed_vertices(vertices: Float[Tensor, "v 3"], faces: Tensor, rounds: int) -> Float[Tensor, "v 3"]:
    """Taubin's two steps per round, 0.5 and -0.53: noise of the grid goes, the volume stays."""
    both = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = torch.cat([both, both.flip(1)])
    degree = torch.bincount(both[:, 0], minlength=len(vertices)).clamp_min(1)[:, None]
    for _ in range(rounds):
        for share in (0.5, -0.53):
            sums = torch.zeros_like(vertices).index_add(0, both[:, 0], vertices[both[:, 1]])
            vertices = vertices + share * (sums / degree - vertices)
    return vertices


@torch.no_grad()
def fused_colors(surface: Surface, views: Sequence[Picture], reach: float) -> Float[Tensor, "v 3"]:
    """At each vertex the mean of the pictures' straight colours where it is seen, weighted by the squared cosine to its
    normal; vertices that no view sees have the colour of the nearest that some does.
    """
    vertices = surface.vertices
    normals = torch.nn.functional.normalize(vertex_normals(vertices, surface.faces), dim=1)
    sums, weights = torch.zeros(len(vertices), 3), torch.zeros(len(vertices))
    for view in views:
        x, y, z = _projected(view.camera, vertices)
        height, width = view.alpha.shape
        depth, hit = _looked_up(view, x, y, reach)
        inside = (x > 0.5) & (x < width - 0.5) & (y > 0.5) & (y < height - 0.5)
        towards = torch.nn.functional.normalize(view.camera.centre.detach().float() - vertices, dim=1)
        cosine = (towards * normals).sum(dim=1).clamp_min(0.0)
        weight = torch.where(inside & hit & ((depth - z).abs() < 0.5 * reach), cosine.square() + 1e-6, 0.0 * cosine)
        sums += weight[:, None] * _straight(view, x, y)
        weights += weight
    seen = weights > 1e-5
    if not bool(seen.any()):
        return torch.full_like(vertices, 0.5)
    colors = sums / weights.clamp_min(1e-12)[:, None]
    if not bool(seen.all()):
        known = torch.nonzero(seen).squeeze(1)
        colors[~seen] = colors[known[nearest_of(vertices[~seen], vertices[known])]]
    return colors.clamp(0.0, 1.0)


def _straight(view: Picture, x: Tensor, y: Tensor) -> Float[Tensor, "n 3"]:
    """Colour over alpha, both looked up bilinearly."""
    height, width = view.alpha.shape
    both = torch.cat([view.color, view.alpha[..., None]], dim=2)
    left, top = (x - 0.5).floor().clamp(0, width - 2), (y - 0.5).floor().clamp(0, height - 2)
    across, down = (x - 0.5 - left).clamp(0, 1)[:, None], (y - 0.5 - top).clamp(0, 1)[:, None]
    column, row = left.long(), top.long()
    upper = torch.lerp(both[row, column], both[row, column + 1], across)
    lower = torch.lerp(both[row + 1, column], both[row + 1, column + 1], across)
    value = torch.lerp(upper, lower, down)
    return value[:, :3] / value[:, 3:].clamp_min(1e-3)

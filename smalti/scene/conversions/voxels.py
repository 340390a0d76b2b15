"""Any family to boxes: a sparse grid of boxes, its payload splatted from sampled points, then fitted to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.primitives.boxes import Boxes
from smalti.primitives.softplus import inverse_softplus
from smalti.scene.conversions.errors import compared
from smalti.scene.conversions.fitting import fit_to
from smalti.scene.conversions.sources import Picture, Source, extent, families, pictures

FAINT = 1e-3
"""Optical depth across a whole box of a voxel in which there is nothing: what a fit can begin from."""
STRENGTHS = tuple(2.0**k for k in range(-6, 7))
"""Optical depths of a usual voxel that are tried before the fit."""
FIT_RATES = {"colors": 2e-2, "raw_densities": 0.3}


@dataclass(frozen=True)
class Voxelization:
    """Settings of the conversion to boxes."""

    resolution: int = 64
    """Voxels along the longest side of the bounds."""
    voxels: int = 8
    """Per side of a box; neighbouring boxes share the voxels of the face between them."""
    points: int = 400_000
    """Samples of the original that are splatted."""
    steps: int = 120
    """Adam steps that fit density and colour to the original's pictures; 0: splatted only."""
    step: float = 0.0
    """Length of a step of the march, world units; 0: a voxel's edge. Boxes of one picture have to share it."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 512 or self.voxels < 2:
            raise ValueError("convert: resolution must be 4 to 512, voxels 2 or more")
        if self.points < 1 or self.steps < 0 or self.step < 0:
            raise ValueError("convert: points must be 1 or more, steps and step not negative")


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Voxels that boxes with shared faces tile."""

    origin: Float[Tensor, "3"]
    edge: float
    boxes: tuple[int, int, int]
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = (count * (self.side - 1) + 1 for count in self.boxes)
        return x, y, z


def voxelized(source: Source, views: Sequence[Picture], settings: Voxelization) -> Boxes:
    """Boxes where the source has something, without the opacity window, so that they join without a seam.

    Density and colour: points sampled from the source in proportion to area and opacity (`Family.sample_points`) are
    spread over the voxels around them; the one factor from weight to density is that with which the pictures' alpha is
    met best; then `steps` of Adam on densities and colours against the pictures.
    """
    with torch.no_grad():
        made = _splatted(source, views, settings)
    fit_to(made, views, settings.steps, FIT_RATES)
    return made


def _splatted(source: Source, views: Sequence[Picture], settings: Voxelization) -> Boxes:
    positions, colors = _samples(source, settings)
    lattice = _lattice(extent(source), settings)
    weights, sums = _spread(lattice, positions, colors)
    index = _occupied(lattice, weights)
    if not len(index):
        raise ValueError("convert: no sample of the original lies inside its bounds")
    weight, color = _payload(lattice, weights, sums, index)
    usual = float(weight[weight > 0].mean())
    centres = lattice.origin + lattice.edge * (lattice.side - 1) * (index.float() + 0.5)
    half = 0.5 * lattice.edge * (lattice.side - 1)
    device = families(source)[0].device
    parameters = {
        "centres": centres,
        "quaternions": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(index), 1),
        "log_half_extents": torch.full((len(index), 3), math.log(half)),
        "colors": color,
        "raw_densities": torch.zeros_like(weight),
    }
    metadata = {
        **{"voxels": lattice.side, "count": len(index), "fade_scale": 0.0},
        **{"density_unit": 2.0 * half, "step": settings.step or lattice.edge},
    }
    made = Boxes({key: value.to(device) for key, value in parameters.items()}, metadata)

    def strengthened(strength: float) -> Boxes:
        depth = (weight / usual).clamp_max(4.0) * strength * (lattice.side - 1)
        made.replace({"raw_densities": inverse_softplus(depth.clamp_min(FAINT).double()).float().to(device)})
        return made

    some = views[:: max(1, len(views) // 4)][:4]
    cameras = [view.camera for view in some]
    errors = [compared(some, pictures(strengthened(each), cameras), False).alpha for each in STRENGTHS]
    return strengthened(STRENGTHS[errors.index(min(errors))])


def _samples(source: Source, settings: Voxelization) -> tuple[Tensor, Tensor]:
    """Shared out among the families by what each covers: area times opacity."""
    parts = families(source)
    shares = torch.tensor([float((part.areas() * part.opacities()).double().sum()) for part in parts])
    counts = (shares / shares.sum().clamp_min(1e-30) * settings.points).round().long().tolist()
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = [part.sample_points(count, generator) for part, count in zip(parts, counts, strict=True) if count]
    return torch.cat([each[0].cpu().float() for each in drawn]), torch.cat([each[1].cpu().float() for each in drawn])


def _lattice(bounds: Float[Tensor, "2 3"], settings: Voxelization) -> _Lattice:
    low, high = bounds.unbind(0)
    edge = float((high - low).max()) / (settings.resolution - 1) or 1.0
    span = settings.voxels - 1
    x, y, z = torch.ceil(((high - low) / edge + 2.0) / span).clamp_min(1).long().tolist()
    origin = 0.5 * (low + high) - 0.5 * edge * span * torch.tensor([x, y, z])
    return _Lattice(origin, edge, (x, y, z), settings.voxels)


def _spread(
    lattice: _Lattice, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m 3"]]:
    """Trilinear weights of the points on the voxels, flat, and the weighted colours."""
    shape = torch.tensor(lattice.shape)
    place = (positions - lattice.origin) / lattice.edge
    inside = ((place >= 0) & (place <= shape - 1)).all(dim=1)
    place, colors = place[inside], colors[inside]
    low = place.floor().minimum(shape - 2.0)
    share = place - low
    weights = torch.zeros(int(shape.prod()), dtype=torch.float64)
    sums = torch.zeros(len(weights), 3, dtype=torch.float64)
    for corner in torch.cartesian_prod(*[torch.tensor([0, 1])] * 3):
        weight = torch.where(corner > 0, share, 1.0 - share).prod(dim=1).double()
        x, y, z = (low.long() + corner).unbind(1)
        flat = (x * shape[1] + y) * shape[2] + z
        weights.index_add_(0, flat, weight)
        sums.index_add_(0, flat, weight[:, None] * colors.double())
    return weights.float(), sums.float()


def _occupied(lattice: _Lattice, weights: Float[Tensor, "m"]) -> Int[Tensor, "k 3"]:
    """(x, y, z) of the boxes in which some voxel has weight."""
    side = lattice.side
    grid = weights.reshape(1, 1, *lattice.shape)
    return torch.nonzero(torch.nn.functional.max_pool3d(grid, side, side - 1)[0, 0] > 0)


def _payload(
    lattice: _Lattice, weights: Float[Tensor, "m"], sums: Float[Tensor, "m 3"], index: Int[Tensor, "k 3"]
) -> tuple[Float[Tensor, "k z y x"], Float[Tensor, "k z y x 3"]]:
    """Weights and colours of the boxes' voxels; where a voxel has none, the colour of those around it."""
    x_count, y_count, z_count = lattice.shape
    grid = torch.cat([sums, weights[:, None]], dim=1).T.reshape(1, 4, x_count, y_count, z_count)
    for _ in range(3):
        around = torch.nn.functional.avg_pool3d(grid, 3, 1, 1)
        grid = torch.where(grid[:, 3:] > 0, grid, torch.where(around[:, 3:] > 0, around, grid))
    mean = sums.sum(0) / weights.sum().clamp_min(1e-12)
    color = torch.where(grid[:, 3:] > 0, grid[:, :3] / grid[:, 3:].clamp_min(1e-12), mean[None, :, None, None, None])
    along = torch.arange(lattice.side)
    x, y, z = ((lattice.side - 1) * index[:, k, None] + along for k in range(3))
    x, y, z = x[:, None, None, :], y[:, None, :, None], z[:, :, None, None]
    return weights.reshape(lattice.shape)[x, y, z], color[0].permute(1, 2, 3, 0)[x, y, z]

"""Family `boxes`: placement, the payload's units, splits and shares in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from small_families import a_similarity, boxes, doubled, picture, points

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import FamilyError, LossContext
from smalti.primitives.payload import identity_grid, sampled_slab
from smalti.primitives.placement import base_scale, farthest_points, point_cells, uv_grid
from smalti.primitives.surface import Surface, icosphere

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_base_scales_are_the_published_ones() -> None:
    """mvp.md, section 10, test 11."""
    assert [base_scale(count) for count in (1, 8, 64, 256, 512, 4096)] == [2, 4, 8, 12, 16, 32]


def test_boxes_from_points_show_every_point() -> None:
    spots, colors = points(500)
    family = Boxes.from_points(spots, colors, {"count": 20, "voxels": 2})
    assert len(family) == 20
    local = (spots[:, None] - family.positions().detach()[None]) / family.sizes().detach()
    # Within the part where the window is open.
    assert bool((local.abs().amax(dim=2) < 0.8).any(dim=1).all())
    few = Boxes.from_points(spots[:3], colors[:3], {"count": 20, "voxels": 2})
    assert torch.allclose(few.positions(), spots[:3])
    assert torch.allclose(few.parameters["colors"][:, 0, 0, 0], colors[:3])


def test_a_grid_of_boxes_tiles_its_bounds() -> None:
    bounds = torch.tensor([[-1.0, 0.0, 2.0], [1.0, 3.0, 4.0]])
    family = Boxes.on_grid(bounds, (2, 3, 4), {"voxels": 2})
    assert len(family) == 24
    assert float(family.volumes().sum()) == pytest.approx(2 * 3 * 2, rel=1e-5)
    boxes_of = family.bounds()
    assert torch.allclose(boxes_of[:, 0].amin(0), bounds[0])
    assert torch.allclose(boxes_of[:, 1].amax(0), bounds[1])


def test_boxes_on_a_surface_stand_in_its_frames_and_reach_their_neighbours() -> None:
    ball = icosphere(3)
    surface = Surface(ball.vertices.float(), ball.faces)
    family = Boxes.from_surface(surface, 64, torch.Generator().manual_seed(0), {"voxels": 2})
    spots = family.positions().detach()
    turn = matrix_from_quaternion(family.parameters["quaternions"].detach())
    assert float((turn[:, :, 2] * torch.nn.functional.normalize(spots, dim=1)).sum(1).min()) > 0.99
    nearest = (torch.cdist(spots, spots) + 10 * torch.eye(64)).amin(1)
    assert bool((family.sizes() >= nearest[:, None] / 1.6 - 1e-6).all())
    alone = Boxes.from_surface(surface, 1, torch.Generator().manual_seed(0), {"voxels": 2})
    assert float(alone.bounds()[0, 1].detach().min()) >= 1.0


def test_a_uv_grid_sits_at_cell_centres_with_tangents_along_u() -> None:
    # A unit square in the x-z plane, u along z, v along x; half of the texture is empty.
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uv = torch.stack([0.5 * vertices[:, 2], vertices[:, 0]], dim=1)
    surface = Surface(vertices, faces, None, uv[faces])
    seats = uv_grid(surface, 4, 2)
    wanted = torch.tensor([[0.25, 0, 0.25], [0.25, 0, 0.75], [0.75, 0, 0.25], [0.75, 0, 0.75]])
    assert torch.allclose(seats.positions, wanted, atol=1e-6)
    assert torch.allclose(seats.rotations[:, :, 0], torch.tensor([0.0, 0, 1]).expand(4, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(seats.rotations), torch.ones(4))
    assert len(Boxes.on_uv_grid(surface, 4, 2, {"voxels": 2})) == 4
    with pytest.raises(ValueError, match="no texture coordinates"):
        uv_grid(Surface(vertices, faces), 2, 2)


def uncovered(family: Boxes, spots: torch.Tensor) -> int:
    """How many points lie in no box, or where its window is all but shut."""
    turn = matrix_from_quaternion(family.parameters["quaternions"].detach())
    offset = spots[:, None] - family.positions().detach()[None]
    local = (offset[..., None, :] @ turn)[..., 0, :] / family.sizes().detach()
    return int((local.abs().amax(dim=2) > 0.9).all(dim=1).sum())


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (16, 3)])
@pytest.mark.parametrize("shape", ["long strip", "half a ball", "triangle"])
def test_boxes_on_a_uv_grid_leave_no_gap(shape: str, grid: tuple[int, int]) -> None:
    """Where cells are longer than wide, curved, or covered in part, away from their middles; but for slivers."""
    u, v = torch.meshgrid(torch.linspace(0, 1, 21), torch.linspace(0, 1, 21), indexing="xy")
    u, v = u.reshape(-1), v.reshape(-1)
    longitude, latitude = math.pi * u, math.pi * (0.9 * v - 0.45)
    vertices = {
        "long strip": torch.stack([10 * u, 0.7 * v, 0 * u], 1),
        "half a ball": torch.stack(
            [longitude.cos() * latitude.cos(), longitude.sin() * latitude.cos(), latitude.sin()], 1
        ),
        "triangle": torch.stack([u, v, 0 * u], 1),
    }[shape]
    corner = torch.arange(20 * 21).reshape(20, 21)[:, :20].reshape(-1)
    lower = torch.stack([corner, corner + 1, corner + 21], 1)
    faces = torch.cat([lower, torch.stack([corner + 1, corner + 22, corner + 21], 1)])
    if shape == "triangle":
        faces = faces[(u[faces] + v[faces] <= 1 + 1e-6).all(1)]
    surface = Surface(vertices, faces, None, torch.stack([u, v], 1)[faces])
    family = Boxes.on_uv_grid(surface, *grid, {"voxels": 2})
    spots = surface.sample(3000, torch.Generator().manual_seed(0)).positions
    assert uncovered(family, spots) <= 6
    assert float(family.sizes().detach().max()) < 2.5 * float((vertices.amax(0) - vertices.amin(0)).max()) / min(grid)


@pytest.mark.parametrize("activation", ["softplus", "relu"])
def test_new_boxes_have_the_opacity_asked_for(activation: str) -> None:
    given = {"initial_opacity": 0.3, "density_activation": activation, "voxels": 2, "count": 0}
    bounds = torch.tensor([[0.0, 0, 0], [2, 2, 2]])
    family = Boxes.on_grid(bounds, (2, 2, 2), given)
    assert torch.allclose(family.opacities(), torch.full((8,), 0.3), atol=1e-6)
    assert family.metadata["density_unit"] == pytest.approx(1.0)
    assert family.metadata["step"] == pytest.approx(1.0)  # two voxels along an edge of 1


def test_lengths_in_the_metadata_grow_with_the_world_and_raw_values_do_not() -> None:
    family = boxes()
    raw, metadata = family.parameters["raw_densities"].detach().clone(), dict(family.metadata)
    depth = family.opacities().detach()
    family.transform(a_similarity())
    assert torch.equal(family.parameters["raw_densities"], raw)
    assert torch.allclose(family.opacities(), depth)
    for name in ("step", "density_unit"):
        assert family.metadata[name] == pytest.approx(2.5 * metadata[name])


@pytest.mark.parametrize("options", [{}, {"warp_voxels": 3}, {"density_activation": "relu"}])
@pytest.mark.parametrize("copies", [2, 3])
def test_slabs_draw_what_their_parent_drew(options: dict[str, object], copies: int) -> None:
    """Without a window (which darkens each slab's own border)."""
    family = boxes(fade_scale=0.0, **options)
    family.metadata["step"] = 0.03
    before = picture(family).detach()
    volume = float(family.volumes().sum())
    family.split(torch.tensor([0, 2]), copies, torch.Generator())
    assert len(family) == 2 + 2 * copies
    assert float(family.volumes().sum()) == pytest.approx(volume)
    difference = (picture(family).detach() - before).abs()
    assert float(difference.max()) < 1e-9


def test_slabs_hold_the_old_voxels() -> None:
    grid = torch.rand(1, 3, 4, 5, 2)
    halves = [sampled_slab(grid, torch.tensor([0]), torch.tensor([middle]), 2) for middle in (-0.5, 0.5)]
    # Along x (the last axis) the halves' five samples and the old ones coincide at every second.
    together = torch.cat([halves[0][:, :, :, :-1], halves[1]], dim=3)
    assert torch.allclose(together[:, :, :, ::2], grid, atol=1e-6)
    assert torch.equal(identity_grid(grid)[0, 0, :, 0], torch.linspace(-1, 1, 5))
    assert torch.equal(identity_grid(grid)[:, 0, 0, 2], torch.linspace(-1, 1, 3))


def test_volumes_and_their_prior() -> None:
    family = boxes()
    edges = 2 * family.sizes().detach()
    assert torch.allclose(family.volumes(), edges.prod(1))
    area = 2 * (edges[:, 0] * edges[:, 1] + edges[:, 1] * edges[:, 2] + edges[:, 2] * edges[:, 0])
    assert torch.allclose(family.areas(), area)
    prior = family.regularizers(LossContext(2.0, torch.Generator()))["volume"]
    assert float(prior().detach()) == pytest.approx(float((0.5 * edges / 2).prod(1).sum()))


def test_samples_follow_the_density() -> None:
    family = Boxes.on_grid(torch.tensor([[0.0, 0, 0], [2, 1, 1]]), (2, 1, 1), {"voxels": 2})
    raw = torch.full((2, 2, 2, 2), -30.0)
    raw[1, 0, 1, 0] = 5.0  # z low, y high, x low of the second box
    family.replace({"raw_densities": raw})
    spots, _ = family.sample_points(50, torch.Generator().manual_seed(0))
    assert bool((spots[:, 0] >= 1.0).all() and (spots[:, 0] <= 1.5).all())
    assert bool((spots[:, 1] >= 0.5).all() and (spots[:, 2] <= 0.5).all())


def test_farthest_points_and_cells() -> None:
    spots = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [5, 0, 0], [5.2, 0, 0]])
    assert farthest_points(spots, 2).tolist() == [3, 0]
    cells = point_cells(spots, torch.eye(4, 3), 2)
    assert torch.allclose(cells.centres, torch.tensor([[5.1, 0, 0], [0.05, 0, 0]]))
    assert float(cells.half_extents.min()) == pytest.approx(2.6)
    assert torch.allclose(cells.colors[1], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"voxels": 1}, "voxels cannot be 1"),
        ({"accumulation": "sum"}, "accumulation cannot be 'sum'"),
        ({"density_activation": "exp"}, "density_activation cannot be 'exp'"),
        ({"fade_exponent": 0.5}, "fade_exponent cannot be 0.5"),
    ],
)
def test_metadata_that_cannot_be_is_refused(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(FamilyError, match=message):
        Boxes.from_points(*points(3), metadata)


def test_a_scaled_density_is_exact_far_from_zero_and_near_it() -> None:
    family = doubled(Boxes.from_points(*points(2), {"voxels": 2}))
    assert isinstance(family, Boxes)
    family.parameters["raw_densities"].data[:] = torch.tensor([-9.0, 40.0]).reshape(2, 1, 1, 1)
    before = family.densities().detach()
    family.share_opacity(torch.tensor([0, 1]), torch.tensor([2, 5]))
    shares = torch.tensor([2.0, 5.0]).reshape(2, 1, 1, 1)
    assert torch.allclose(family.densities().detach() * shares, before, rtol=1e-9)
    assert math.isfinite(float(family.parameters["raw_densities"].detach().sum()))

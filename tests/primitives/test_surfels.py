"""Family `surfels`: normals of initial disks, flat measures."""

from __future__ import annotations

import math

import pytest
import torch
from small_families import EVERY

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.neighbours import nearest_of, nearest_rows
from smalti.primitives.surface import Surface, icosphere
from smalti.primitives.surfels import Surfels, fitted_normals

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def normals_of(family: Surfels) -> torch.Tensor:
    return matrix_from_quaternion(family.parameters["quaternions"].detach())[:, :, 2]


def test_initial_disks_lie_in_the_plane_of_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.0])
    turn = matrix_from_quaternion(torch.tensor([0.7, 0.1, -0.4, 0.5]))
    family = Surfels.from_points(flat @ turn.T, torch.rand(200, 3), {})
    assert float((normals_of(family) @ turn[:, 2]).abs().min()) > 1 - 1e-5
    ball = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=1)
    assert float((fitted_normals(ball) * ball).sum(1).abs().mean()) > 0.99
    assert fitted_normals(ball[:2]).tolist() == [[0.0, 0.0, 1.0]] * 2


def test_disks_on_a_surface_face_outward() -> None:
    ball = icosphere(2)
    surface = Surface(ball.vertices.float(), ball.faces, torch.rand(162, 3))
    family = Surfels.from_surface(surface, 300, torch.Generator().manual_seed(0), {})
    outward = torch.nn.functional.normalize(family.positions().detach(), dim=1)
    assert float((normals_of(family) * outward).sum(1).min()) > 0.97
    on_faces = Surfels.from_mesh(surface.vertices, surface.faces, torch.rand(162, 3), {})
    assert torch.allclose(normals_of(on_faces), surface.normals(), atol=1e-6)


def test_disks_have_an_area_and_no_volume() -> None:
    family = EVERY["surfels"]()
    sizes = family.sizes().detach()
    assert sizes.shape == (6, 2)
    assert torch.allclose(family.areas(), math.pi * sizes[:, 0] * sizes[:, 1])
    assert not family.volumes().any()


def test_samples_lie_in_the_disks() -> None:
    family = EVERY["surfels"]()
    spots, _ = family.sample_points(100, torch.Generator().manual_seed(0))
    turn = matrix_from_quaternion(family.parameters["quaternions"].detach())
    offset = spots[:, None] - family.positions().detach()[None]
    local = torch.einsum("nkj,kji->nki", offset, turn)
    inside = (local[..., :2] / family.sizes().detach()).norm(dim=-1) <= 1 + 1e-6
    assert bool((inside & (local[..., 2].abs() < 1e-6)).any(dim=1).all())


def test_splitting_and_noise_stay_in_the_plane() -> None:
    family = EVERY["surfels"]()
    centre, normal = family.positions().detach()[3].clone(), normals_of(family)[3]  # type: ignore[arg-type]
    family.split(torch.tensor([3]), 2, torch.Generator().manual_seed(0))
    moved = family.positions().detach()[-2:] - centre
    assert float((moved @ normal).abs().max()) < 1e-9
    assert float(moved.norm(dim=1).min()) > 1e-4


def test_nearest_rows_are_the_nearest() -> None:
    spots = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    distance = (spots[:, None].double() - spots[None].double()).norm(dim=2)
    distance.fill_diagonal_(torch.inf)
    assert torch.equal(nearest_rows(spots, 5), distance.topk(5, largest=False).indices)
    with pytest.raises(ValueError, match="no 5 neighbours"):
        nearest_rows(spots[:5], 5)


def test_the_nearest_of_other_points_is_found() -> None:
    generator = torch.Generator().manual_seed(2)
    spots = torch.cat([torch.randn(700, 3, generator=generator), 30 * torch.randn(50, 3, generator=generator)])
    others = torch.randn(400, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.2])
    wanted = (spots[:, None].double() - others[None].double()).norm(dim=2).argmin(1)
    assert torch.equal(nearest_of(spots, others), wanted)
    assert nearest_of(spots[:0], others).shape == (0,)
    assert nearest_of(spots[:3], others[:1]).tolist() == [0, 0, 0]

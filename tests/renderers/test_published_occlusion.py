"""Layered compositing of soft faces as Blocks World states it, in every build: the blur in pixels, the z-buffer of
opaque faces, derivatives in closed form (dbw.md, section 3 and section 10, tests 3 and 4).
"""

from __future__ import annotations

import math

import pytest
import torch
from backends import ORACLE, Backend, found_backends
from torch import Tensor
from triangles import TriangleScene

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.settings import RenderSettings

ENGINES = [backend for backend in found_backends() if backend.backend == "cpu"]
SETTINGS = RenderSettings(order="ray", transmittance_min=0.0)
everywhere = pytest.mark.parametrize("backend", [ORACLE, *ENGINES], ids=lambda backend: backend.name)


def ahead(width: int, height: int, focal: float) -> Camera:
    values = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)
    return Camera(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), values, width, height)


@pytest.mark.parametrize("backend", ENGINES, ids=lambda backend: backend.name)
@pytest.mark.parametrize(("sigma", "reach", "last"), [(1e-4, 1.50, 4.55), (5e-6, 0.335, 1.02)])
def test_the_blur_is_as_wide_as_published(backend: Backend, sigma: float, reach: float, last: float) -> None:
    """On 300 pixels of the smaller side: a / e at 1.50 or 0.335 pixels from an edge, nothing beyond 4.55 or 1.02."""
    opacity, focal = 0.8, 150.0
    for distance, inside in ((reach, True), (last - 0.03, True), (last + 0.03, False)):
        # The pixel in question is in row 150, its centre at 0.5; the face lies below the edge.
        edge = 0.5 + distance
        below = torch.tensor([[[-900.0, edge], [900.0, edge], [0.0, 900.0]]], dtype=torch.float64)
        corners = torch.cat([2.0 * below / focal, torch.full((1, 3, 1), 2.0, dtype=torch.float64)], dim=-1)
        face = TriangleDrawable(
            corners, torch.full((1,), opacity).double(), torch.ones(1, 3, 3).double(), edges="soft", sigma=sigma
        )
        scene = TriangleScene((face,), ahead(300, 300, focal), SETTINGS).leaves(backend.dtype)[1]
        found = float(scene.render(backend).alpha.detach()[150, 150])
        assert (found > 0) == inside
        if distance == reach:
            assert found == pytest.approx(opacity / math.e, rel=0.01)


def walls(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(depths, opacities, colours) of faces that fill the view."""
    generator = torch.Generator().manual_seed(seed)
    depths = 2.0 + torch.rand(count, generator=generator, dtype=torch.float64)
    opacities = 0.1 + 0.8 * torch.rand(count, generator=generator, dtype=torch.float64)
    return depths, opacities, torch.rand(count, 3, generator=generator, dtype=torch.float64)


def drawn(backend: Backend, depths: Tensor, opacities: Tensor, colors: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """(leaves, RGBA of the one pixel)."""
    flat = torch.tensor([[-9.0, -9.0, 1.0], [9.0, -9.0, 1.0], [0.0, 18.0, 1.0]], dtype=torch.float64)
    corners = flat * torch.cat([depths.new_ones(len(depths), 1, 2), depths[:, None, None]], dim=-1)
    faces = TriangleDrawable(corners, opacities, colors[:, None].expand(-1, 3, -1), edges="soft", sigma=1e-4)
    leaves, scene = TriangleScene((faces,), ahead(1, 1, 1.0), SETTINGS).leaves(backend.dtype)
    frame = scene.render(backend)
    return leaves, torch.cat([frame.color[0, 0], frame.alpha[0, 0][None]])


@everywhere
def test_opaque_faces_are_a_depth_buffer(backend: Backend) -> None:
    for seed in range(4):
        depths, _, colors = walls(6, seed)
        seen = drawn(backend, depths, torch.ones(6, dtype=torch.float64), colors)[1].detach().double()
        assert torch.allclose(seen[:3], colors[depths.argmin()], atol=1e-6)
        assert float(seen[3]) == 1


@everywhere
def test_the_order_in_which_faces_are_given_does_not_matter(backend: Backend) -> None:
    depths, opacities, colors = walls(6, 1)
    seen = drawn(backend, depths, opacities, colors)[1].detach()
    for seed in range(3):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        again = drawn(backend, depths[order], opacities[order], colors[order])[1].detach()
        assert torch.allclose(again, seen, atol=1e-6, rtol=0)


@everywhere
def test_derivatives_of_layers_in_closed_form(backend: Backend) -> None:
    """dC / dC_l = T_l O_l, dC / dO_l = T_l (C_l - C_behind), M = 1 - prod(1 - O) in [0, 1]."""
    depths, opacities, colors = walls(5, 2)
    leaves, seen = drawn(backend, depths, opacities, colors)
    order = depths.argsort()
    left = torch.cat([torch.ones(1).double(), (1 - opacities[order]).cumprod(0)])
    wanted = (left[:-1, None] * opacities[order, None] * colors[order]).sum(0)
    assert torch.allclose(seen[:3].detach().double(), wanted, rtol=2e-5)
    assert float(seen[3].detach()) == pytest.approx(1 - float(left[-1]), rel=2e-5)
    assert 0 <= float(seen[3].detach()) <= 1
    seen[1].backward()  # of green
    by_color, by_opacity = leaves["0.colors"].grad, leaves["0.opacities"].grad
    assert by_color is not None
    assert by_opacity is not None
    behind = torch.zeros((), dtype=torch.float64)
    for place in reversed(range(5)):
        row = int(order[place])
        share = float(left[place] * opacities[row])
        assert float(by_color[row, :, 1].sum()) == pytest.approx(share, rel=1e-4)
        assert not by_color[row][:, [0, 2]].any()
        slope = float(left[place] * (colors[row, 1] - behind))
        assert float(by_opacity[row]) == pytest.approx(slope, rel=1e-3, abs=1e-6)
        behind = opacities[row] * colors[row, 1] + (1 - opacities[row]) * behind

"""Kind `triangle` in the engine: against the oracle, against central differences, and at seams (test_ray_casting.py:
against the rays of others).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from backends import ORACLE, Backend, found_backends
from scenes import simple_camera, single
from torch import Tensor
from triangles import RAY, TriangleScene, icosphere, mesh, neighbours, planes, small_view, triangles, weighted

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.settings import RenderSettings

ENGINES = [backend for backend in found_backends() if backend.backend == "cpu"]
DOUBLE = [backend for backend in ENGINES if backend.isa == "double"]
MODES = ("hard", "antialiased", "soft")
LOOKS: dict[str, dict[str, Any]] = {
    "colors": {},
    "corner normals": {"smooth": True},
    "rgb": {"texture": (6, 9, 3)},
    "rgba, wrapped": {"texture": (6, 9, 4), "wrap": True},
    "detached": {"texture": (6, 9, 3), "detach_barycentrics": True},
    "mipmaps": {"texture": (37, 50, 3), "mipmaps": 9},
    "mipmaps, rgba, wrapped": {"texture": (21, 40, 4), "mipmaps": 2, "wrap": True},
    "mipmaps, detached": {"texture": (16, 15, 4), "mipmaps": 9, "detach_barycentrics": True},
}
VIEWS = {"ray": RAY, "near plane": replace(RAY, near=3.5), "centre": replace(RAY, order="centre")}

engines = pytest.mark.parametrize("backend", ENGINES, ids=lambda backend: backend.name)
doubles = pytest.mark.parametrize("backend", DOUBLE, ids=lambda backend: backend.name)


def scene(mode: str, look: str, view: str, count: int = 20) -> TriangleScene:
    across = torch.arange(-10, 3 * count - 10).reshape(count, 3).int()
    drawable = triangles(count, edges=mode, sigma=2e-3, neighbours=across, **LOOKS[look])
    return TriangleScene((drawable,), small_view(), VIEWS[view])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("mode", MODES)
def test_engine_draws_what_the_oracle_draws(mode: str, look: str, view: str) -> None:
    """Pictures and the gradients of every tensor and of the camera."""
    given = scene(mode, look, view)
    expected_leaves, ready = given.leaves(torch.float64)
    expected = ready.render(ORACLE)
    assert float(expected.alpha.detach().max()) > 0.5
    for backend in ENGINES:
        leaves, ready = given.leaves(backend.dtype)
        frame = ready.render(backend)
        keep = torch.ones_like(expected.alpha, dtype=torch.bool)
        for name, plane in planes(expected).items():
            error = (planes(frame)[name].detach().double() - plane.detach()).abs() / float(plane.detach().abs().max())
            close = error <= backend.image_tolerance
            keep &= close if close.dim() == 2 else close.all(-1)
        assert int((~keep).sum()) <= 1, f"{backend.name}: {int((~keep).sum())} pixels differ"
        for leaf in expected_leaves.values():
            leaf.grad = None
        weighted(expected, keep).backward(retain_graph=True)
        with backend.chosen():
            weighted(frame, keep).backward()
        for name, leaf in expected_leaves.items():
            if leaf.grad is None or not bool(leaf.grad.any()):
                continue
            got = leaves[name].grad
            assert got is not None, name
            error = float((got.double() - leaf.grad).abs().max() / leaf.grad.abs().max())
            assert error <= backend.gradient_tolerance, f"{backend.name} {name}: {error:.1e}"


@doubles
@pytest.mark.parametrize("look", ["colors", "corner normals", "rgba, wrapped", "mipmaps", "mipmaps, rgba, wrapped"])
@pytest.mark.parametrize("mode", ["antialiased", "soft"])
def test_gradients_by_central_differences(mode: str, look: str, backend: Backend) -> None:
    """Every tensor and the camera, along random directions, coverage included; a quarter of the triangles is cut."""
    given = replace(scene(mode, look, "near plane", 8), settings=replace(VIEWS["near plane"], smooth_cutoff=True))
    leaves, ready = given.leaves(torch.float64)
    weighted(ready.render(backend)).backward()
    generator = torch.Generator().manual_seed(1)
    step = 1e-6
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        wrong = 0
        for _ in range(4):
            direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
            value = leaf.detach().clone()
            sides: list[float] = []
            for sign in (1, -1):
                with torch.no_grad():
                    leaf.copy_(value + sign * step * direction)
                sides.append(float(weighted(ready.render(backend)).detach()))
            with torch.no_grad():
                leaf.copy_(value)
            difference = (sides[0] - sides[1]) / (2 * step)
            wrong += abs(difference - float((leaf.grad * direction).sum())) > 1e-5 * (1 + abs(difference))
        # At the near plane and where the nearest edge changes there are kinks; one of four may meet one.
        assert wrong <= 1, name


@engines
@pytest.mark.parametrize("wound", [1, -1])
def test_a_closed_mesh_has_one_front_and_one_back_everywhere(backend: Backend, wound: int) -> None:
    """alpha is 1 - 1/2^events: no pixel of the inside is missed or met twice, whatever float32 does to the corners."""
    vertices, faces = icosphere(3)
    turned = faces if wound == 1 else faces[:, [0, 2, 1]]
    shuffled = torch.stack([row.roll(k % 3) for k, row in enumerate(turned)])
    drawable = mesh(vertices, shuffled, opacities=torch.full((len(faces),), 0.5, dtype=torch.float64))
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        moved = replace(drawable, corners=drawable.corners + 0.2 * torch.randn(3, generator=generator))
        given = TriangleScene((moved,), simple_camera(150, 130), RenderSettings(order="ray"))
        alpha = given.leaves(backend.dtype)[1].render(backend).alpha
        assert set(alpha.unique().tolist()) == {0.0, 0.75}
        assert int((alpha > 0).sum()) > 3000


def straight(width: int, height: int, focal: float) -> Camera:
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return Camera(eye, zero, torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64), width, height)


def sheet(columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A flat grid of triangles over x and y at z = 0, its diagonals alternating."""
    places = torch.stack(torch.meshgrid(columns, rows, indexing="ij"), dim=-1)
    vertices = torch.cat([places.reshape(-1, 2), torch.zeros(len(columns) * len(rows), 1)], dim=-1).double()
    faces: list[list[int]] = []
    for i in range(len(columns) - 1):
        for j in range(len(rows) - 1):
            a, b = i * len(rows) + j, (i + 1) * len(rows) + j
            corners = [a, b, b + 1, a + 1]
            faces += [[corners[(i + j + k) % 4] for k in pick] for pick in ((0, 1, 2), (0, 2, 3))]
    return vertices, torch.tensor(faces)


@engines
@pytest.mark.parametrize("tilted", [False, True])
def test_pixels_on_corners_edges_and_diagonals(backend: Backend, tilted: bool) -> None:
    """Vertices on pixel centres (exactly, or nearly after a turn of the camera): half alpha, once, everywhere."""
    grid = torch.arange(-8, 9)
    vertices, faces = sheet(grid / 8, grid / 8)
    half = torch.full((len(faces),), 0.5, dtype=torch.float64)
    camera = replace(straight(21, 21, 32.0), translation=torch.tensor([0, 0, 4.0], dtype=torch.float64))
    if tilted:
        # Turned about the optical axis by 3-4-5: rows and columns of vertices still meet pixel centres now and then.
        turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
        camera = replace(camera, rotation=turn)
    given = TriangleScene((mesh(vertices, faces, opacities=half),), camera, RenderSettings(order="ray"))
    alpha = given.leaves(backend.dtype)[1].render(backend).alpha
    assert set(alpha.unique().tolist()) == {0.0, 0.5}
    if not tilted:
        # Edges lie on pixel centres 2.5 and 18.5; those on the left and the lower side are outside.
        assert bool((alpha[2:18, 3:19] == 0.5).all())
        assert int((alpha > 0).sum()) == 16 * 16
    else:
        y, x = torch.meshgrid(torch.arange(21) - 10.0, torch.arange(21) - 10.0, indexing="ij")
        inside = torch.maximum((0.6 * x + 0.8 * y).abs(), (-0.8 * x + 0.6 * y).abs()) < 8 - 1e-4
        assert bool((alpha[inside] == 0.5).all())


@engines
def test_ground_under_the_camera(backend: Backend) -> None:
    """Faces that reach behind the camera: every pixel below the horizon sees the ground once, at the right depth."""
    grid = torch.linspace(-30, 30, 8)
    vertices, faces = sheet(grid, grid)
    ground = torch.stack([vertices[:, 0], torch.full_like(vertices[:, 0], 1.25), vertices[:, 1]], dim=-1)
    half = torch.full((len(faces),), 0.5, dtype=torch.float64)
    settings = RenderSettings(order="ray", depth=True, near=1.5)
    given = TriangleScene((mesh(single(ground), faces, opacities=half),), straight(60, 60, 30.0), settings)
    frame = given.leaves(backend.dtype)[1].render(backend)
    rows = (torch.arange(60) + 0.5 - 30) / 30
    z = 1.25 / rows.clamp(min=1e-6)
    columns = (torch.arange(60) + 0.5 - 30) / 30
    seen = (rows[:, None] > 0) & (z[:, None] < 30) & (z[:, None] >= 1.5) & ((columns * z[:, None]).abs() < 30)
    assert bool(((frame.alpha > 0) == seen).all())
    assert set(frame.alpha.unique().tolist()) == {0.0, 0.5}
    assert frame.depth is not None
    expected = z[:, None].expand(60, 60)[seen].to(backend.dtype)
    torch.testing.assert_close(frame.depth[seen].detach(), expected, rtol=3e-6, atol=0.0)


@engines
def test_an_opaque_face_ends_the_ray(backend: Backend) -> None:
    """alpha is exactly 1, and what lies behind gets no gradient."""
    near = TriangleDrawable(
        torch.tensor([[[-9.0, -9, 2], [9, -9, 2], [0, 18, 2]]]).to(backend.dtype),
        torch.ones(1, dtype=backend.dtype),
        torch.full((1, 3, 3), 0.25, dtype=backend.dtype),
    )
    far = replace(near, corners=near.corners + torch.tensor([0, 0, 1.0]).to(backend.dtype))
    far = replace(far, colors=torch.ones(1, 3, 3, dtype=backend.dtype).requires_grad_())
    frame = TriangleScene((far, near), straight(17, 9, 16.0), RenderSettings(order="ray")).render(backend)
    assert bool((frame.alpha == 1).all())
    assert float((frame.color.detach() - 0.25).abs().max()) < 1e-6
    with backend.chosen():
        frame.color.sum().backward()
    assert far.colors is not None
    assert far.colors.grad is not None
    assert not bool(far.colors.grad.any())


@engines
def test_occupancy_falls_off_as_blocks_world_says(backend: Backend) -> None:
    """exp(-D / sigma) of the squared distance in NDC beyond a straight edge, dropped below 1e-4."""
    sigma, width, height = 4e-3, 64, 40
    edge = 20.3  # column, pixels; the triangle lies to the right
    left = (edge - width / 2) * 2 / 32
    corners = torch.tensor([[[left, -90.0, 2], [left, 90, 2], [200, 0, 2]]], dtype=torch.float64)
    given = TriangleDrawable(corners, torch.full((1,), 0.75).double(), torch.ones(1, 3, 3).double(), edges="soft")
    alone = TriangleScene((replace(given, sigma=sigma),), straight(width, height, 32.0), RenderSettings(order="ray"))
    alpha = alone.leaves(backend.dtype)[1].render(backend).alpha.detach().double()
    distance = (edge - (torch.arange(width).double() + 0.5)).clamp(min=0) * 2 / height
    factor = torch.exp(-distance.square() / sigma)
    expected = torch.where(factor >= 1e-4, 0.75 * factor, 0.0)
    assert int((expected > 0).sum()) > 44
    assert float((alpha - expected).abs().max()) < 20 * backend.image_tolerance * 0.75


@engines
@pytest.mark.parametrize("angle", [0.0, 0.3, 1.1, 2.5])
def test_coverage_of_a_half_plane(backend: Backend, angle: float) -> None:
    """1/2 plus the signed distance in pixels, whatever the direction of the edge."""
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    inwards = torch.stack([-direction[1], direction[0]])
    offset, size = 0.37, 24
    on_edge = direction * 500, -direction * 500, inwards * 800
    flat = torch.stack(on_edge) + offset * inwards
    corners = torch.cat([flat * 2 / 32, torch.full((3, 1), 2.0)], dim=-1)[None]
    given = TriangleDrawable(corners, torch.ones(1).double(), torch.ones(1, 3, 3).double(), edges="antialiased")
    alone = TriangleScene((given,), straight(size, size, 32.0), RenderSettings(order="ray"))
    alpha = alone.leaves(backend.dtype)[1].render(backend).alpha.detach().double()
    at = torch.arange(size).double() + 0.5 - size / 2
    expected = (0.5 + inwards[0] * at[None] + inwards[1] * at[:, None] - offset).clamp(0, 1)
    assert float((alpha - expected).abs().max()) < 5 * backend.image_tolerance


@engines
def test_interior_edges_of_a_mesh_do_not_show(backend: Backend) -> None:
    """Antialiased with neighbours: an opaque sphere is opaque up to half a pixel from its outline."""
    vertices, faces = icosphere(2)
    drawable = mesh(vertices, faces, edges="antialiased", neighbours=neighbours(faces))
    hard = TriangleScene((replace(drawable, edges="hard"),), simple_camera(80, 70), RenderSettings(order="ray"))
    smooth = replace(hard, drawables=(drawable,))
    was = hard.leaves(backend.dtype)[1].render(backend).alpha.detach()
    now = smooth.leaves(backend.dtype)[1].render(backend).alpha.detach()
    changed = (was - now).abs() > 1e-3
    assert int(changed.sum()) > 50
    # Where it changed, the outline is within a pixel: some neighbour in the hard picture is empty, and another is not.
    padded = torch.nn.functional.pad(was, (1, 1, 1, 1))
    around = torch.stack([padded[i : i + 70, j : j + 80] for i in range(3) for j in range(3)])
    assert bool((around.amin(0)[changed] == 0).all())
    assert bool((around.amax(0)[changed] == 1).all())


@engines
def test_large_textures_keep_their_digits(backend: Backend) -> None:
    """A small face in the far corner of a texture of 4000 texels: float32 coordinates alone would be 1e-4 off."""
    generator = torch.Generator().manual_seed(0)
    texture = single(torch.rand(8, 4096, 3, generator=generator, dtype=torch.float64))
    corners = torch.tensor([[[-1.0, -1, 2], [1, -1, 2], [0, 1, 2]]], dtype=torch.float64)
    uvs = single(torch.tensor([[[0.99, 0.3], [0.9951, 0.3], [0.993, 0.9]]], dtype=torch.float64))
    given = TriangleDrawable(corners, torch.ones(1, dtype=torch.float64), texture=texture, uvs=uvs)
    alone = TriangleScene((given,), straight(40, 40, 32.0), RenderSettings(order="ray"))
    expected = alone.leaves(torch.float64)[1].render(ORACLE).color.detach()
    got = alone.leaves(backend.dtype)[1].render(backend).color.detach()
    assert float((got.double() - expected).abs().max()) < 2 * backend.image_tolerance


@engines
@pytest.mark.parametrize("field", ["corners", "opacities", "colors", "features"])
def test_unusable_numbers_are_skipped_and_counted(backend: Backend, field: str) -> None:
    given = triangles(6)
    for bad in (math.nan, math.inf):
        value = getattr(given, field).clone()
        value[2].view(-1)[0] = bad
        broken = TriangleScene((replace(given, **{field: value}),), small_view(), RAY)
        kept = [0, 1, 3, 4, 5]
        whole = {name: getattr(given, name)[kept] for name in ("corners", "opacities", "colors", "features")}
        leaves, ready = broken.leaves(backend.dtype)
        frame = ready.render(backend)
        expected = TriangleScene((replace(given, **whole),), small_view(), RAY).leaves(backend.dtype)[1].render(backend)
        assert frame.visibility.skipped == 1
        torch.testing.assert_close(frame.color, expected.color, rtol=0.0, atol=0.0)
        with backend.chosen():
            weighted(frame).backward()
        for name in ("corners", "colors"):
            gradient = leaves[f"0.{name}"].grad
            assert gradient is not None
            assert not bool(gradient[2].any())
            assert bool(gradient.isfinite().all())


@engines
def test_degenerate_faces_draw_nothing(backend: Backend) -> None:
    """Of no area, seen edge-on, or with all corners behind the camera."""
    corners = torch.tensor(
        [
            [[-1.0, 0, 2], [0, 0, 2], [1, 0, 2]],
            [[0.5, 0.5, 2], [0.5, 0.5, 2], [0.5, 0.5, 2]],
            [[-1.0, 0, 2], [1, 0, 2], [0, 0, 4]],
            [[-1.0, -1, -2], [1, -1, -2], [0, 1, -2]],
        ],
        dtype=torch.float64,
    )
    for mode in MODES:
        given = TriangleDrawable(corners, torch.ones(4).double(), torch.ones(4, 3, 3).double(), edges=mode)  # type: ignore[arg-type]
        frame = TriangleScene((given,), straight(17, 9, 16.0), RAY).leaves(backend.dtype)[1].render(backend)
        assert not bool(frame.alpha.detach().any())
        assert frame.visibility.skipped == 0


@pytest.mark.parametrize("backend", [ORACLE, *ENGINES], ids=lambda backend: backend.name)
def test_rays_miss_where_a_texel_is_not_finite(backend: Backend) -> None:
    """No NaN reaches the picture or a gradient; the rest of the face is drawn as ever."""
    given = triangles(1, seed=3, texture=(4, 4, 4), size=2.0)
    assert given.texture is not None
    broken = given.texture.clone()
    broken[1, 2, 0], broken[2, 1, 3] = math.nan, math.inf
    frames: list[Tensor] = []
    for texture in (given.texture, broken):
        leaves, ready = TriangleScene((replace(given, texture=texture),), small_view(), RAY).leaves(backend.dtype)
        frame = ready.render(backend)
        assert frame.visibility.skipped == 0
        with backend.chosen():
            weighted(frame).backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None, name
            assert bool(leaf.grad.isfinite().all()), name
        frames.append(frame.color.detach())
    assert bool(frames[1].isfinite().all())
    changed = (frames[0] != frames[1]).any(-1)
    assert 20 < int(changed.sum()) < int((frames[0] > 0).any(-1).sum())
    assert not bool(frames[1][changed].any())

"""Triangles against the rays of others: written out here, Mitsuba's, and trimesh's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from backends import Backend, found_backends
from scenes import simple_camera, single
from torch import Tensor
from triangles import TriangleScene, icosphere, mesh, small_view, triangles

from smalti.cameras.camera import Camera
from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.fragments import composite, fragments
from smalti.renderers.settings import RenderSettings

ENGINES = [backend for backend in found_backends() if backend.backend == "cpu"]
DOUBLE = [backend for backend in ENGINES if backend.isa == "double"]

engines = pytest.mark.parametrize("backend", ENGINES, ids=lambda backend: backend.name)
doubles = pytest.mark.parametrize("backend", DOUBLE, ids=lambda backend: backend.name)


def pixel_rays(camera: Camera) -> Tensor:
    """Directions [pixels, 3] in the world through the pixels' centres. Their camera z is 1: their length in rays is a
    depth.
    """
    fx, fy, cx, cy = camera.intrinsics.tolist()
    across, down = torch.arange(camera.width).double() + 0.5, torch.arange(camera.height).double() + 0.5
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)], dim=-1).reshape(-1, 3) @ camera.rotation


def cast_by_hand(vertices: Tensor, faces: Tensor, origin: Tensor, rays: Tensor) -> Tensor:
    """Distance in ray lengths to the nearest face, 0 for none (Moeller and Trumbore 1997, all rays with all faces)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    side1, side2 = b - a, c - a
    p = torch.linalg.cross(rays[:, None].expand(-1, len(faces), -1), side2[None].expand(len(rays), -1, -1))
    det = (p * side1).sum(-1)
    offset = (origin - a).expand_as(p)
    u = (p * offset).sum(-1) / det
    q = torch.linalg.cross(offset, side1[None].expand_as(offset))
    v = (q * rays[:, None]).sum(-1) / det
    t = (q * side2).sum(-1) / det
    t = torch.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, torch.inf).amin(-1)
    return torch.where(t.isfinite(), t, 0)


def cast_by_mitsuba(vertices: Tensor, faces: Tensor, origin: Tensor, rays: Tensor) -> Tensor:
    """The same, by another renderer."""
    mi: Any = pytest.importorskip("mitsuba", reason="Mitsuba casts the rays that this test compares with")
    mi.set_variant("scalar_rgb")
    body = mi.Mesh("body", len(vertices), len(faces))
    parameters = mi.traverse(body)
    parameters["vertex_positions"] = vertices.float().flatten().tolist()
    parameters["faces"] = faces.flatten().tolist()
    parameters.update()
    world = mi.load_dict({"type": "scene", "body": body})
    found: list[float] = []
    for ray in rays.tolist():
        hit = world.ray_intersect(mi.Ray3f(mi.Point3f(origin.tolist()), mi.Vector3f(ray)))
        found.append(float(hit.t) if hit.is_valid() else 0.0)
    return torch.tensor(found, dtype=torch.float64)


@engines
@pytest.mark.parametrize("cast", [cast_by_hand, cast_by_mitsuba])
def test_ray_casting_agrees(backend: Backend, cast: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Hits and depths of a lumpy closed mesh against others' rays."""
    vertices, faces = icosphere(2)
    generator = torch.Generator().manual_seed(2)
    lumpy = single(vertices * (1 + 0.3 * torch.rand(len(vertices), 1, generator=generator)))
    camera = simple_camera(48, 40)
    settings = RenderSettings(order="ray", depth=True)
    frame = TriangleScene((mesh(lumpy, faces),), camera, settings).leaves(backend.dtype)[1].render(backend)

    expected = cast(lumpy, faces, camera.centre, pixel_rays(camera)).reshape(40, 48)
    assert frame.depth is not None
    differ = (frame.alpha > 0) != (expected > 0)
    assert int(differ.sum()) <= 1  # its edges are not ours to the last bit
    both = ~differ & (expected > 0)
    assert int(both.sum()) > 300
    torch.testing.assert_close(frame.depth.detach().double()[both], expected[both], rtol=2e-5, atol=0.0)


# ---------------------------------------------------------------- every hit of every ray
@dataclass(frozen=True)
class EveryTriangle:
    """In place of an R-tree (a package of its own), for trimesh: each ray is tried with all of them."""

    count: int
    bounds: np.ndarray

    def intersection(self, box: np.ndarray) -> range:
        return range(self.count)


Hits = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def cast_by_trimesh(corners: Tensor, camera: Camera) -> Hits:
    """Ray, face, depth and barycentrics of all hits, sorted by ray and depth."""
    reason = "trimesh (an extra of the tests) casts the rays that this test compares with"
    caster: Any = pytest.importorskip("trimesh.ray.ray_triangle", reason=reason)
    given: Any = pytest.importorskip("trimesh.triangles", reason=reason)
    places, rays = corners.numpy(), pixel_rays(camera).numpy()
    origins = np.broadcast_to(camera.centre.numpy(), rays.shape)
    ends = places.reshape(-1, 3)
    tree = EveryTriangle(len(places), np.concatenate([ends.min(0), ends.max(0)]))
    faces, lines, hits = caster.ray_triangle_id(places, origins, rays, tree=tree)
    depths = hits @ camera.rotation[2].numpy() + float(camera.translation[2])
    order = np.lexsort([depths, lines])
    faces, lines, hits = faces[order], lines[order], hits[order]
    return lines, faces, depths[order], given.points_to_barycentric(places[faces], hits)


def blocks() -> TriangleDrawable:
    """Superquadrics, one round, one like a box and one between, that overlap one another."""
    bounds, generator = torch.tensor([[-1.2] * 3, [1.2] * 3]), torch.Generator().manual_seed(4)
    family = Superquadrics.at_random(
        bounds, 3, generator, {"level": 2, "edges": "hard", "texture_size": 4, "ratio": 0.5, "initial_size": 1.2}
    )
    family.parameters["raw_exponents"].data[:] = torch.tensor([[0.0, 0.0], [-2.0, -2.0], [1.0, -1.0]])
    (drawn,) = family.drawables(simple_camera())
    assert isinstance(drawn, TriangleDrawable)
    assert drawn.texture is not None
    assert drawn.uvs is not None
    return TriangleDrawable(
        *(single(value.detach().double()) for value in (drawn.corners, drawn.opacities)),
        texture=single(drawn.texture.detach().double()),
        uvs=single(drawn.uvs.detach().double()),
        edges=drawn.edges,
    )


SCENES: dict[str, Callable[[], TriangleDrawable]] = {"triangles": lambda: triangles(60), "superquadrics": blocks}


@cache
def cast_scene(name: str) -> tuple[TriangleDrawable, Camera, Hits]:
    drawable, camera = SCENES[name](), simple_camera(48, 40)
    # Its rotation is one to the last digit: the way there and trimesh's way back are each other's inverse.
    u, _, v = torch.linalg.svd(camera.rotation)
    camera = replace(camera, rotation=u @ v)
    return drawable, camera, cast_by_trimesh(drawable.corners, camera)


@engines
@pytest.mark.parametrize("name", SCENES)
def test_fragments_are_the_hits_that_trimesh_finds(backend: Backend, name: str) -> None:
    """Faces in their order, depths and barycentrics, of all hits along all rays."""
    drawable, camera, (lines, faces, depths, barycentrics) = cast_scene(name)
    counts = np.bincount(lines, minlength=48 * 40)
    most = int(counts.max())
    settings = RenderSettings(transmittance_min=0.0)
    _, ready = TriangleScene((drawable,), camera).leaves(backend.dtype)
    with backend.chosen():
        found = fragments(ready.drawables, ready.camera, most + 2, settings=settings, backend=backend.backend)
    assert found.complete

    expected = np.full((48 * 40, most + 2), -1)
    place = np.arange(len(lines)) - np.repeat(np.cumsum(counts) - counts, counts)
    expected[lines, place] = faces
    ours = found.primitives.reshape(len(expected), -1).numpy()
    same = (ours == expected).all(1)
    hit = counts > 0
    # Edges, and the order of hits closer than rounding, are not ours to the last bit.
    print(f"{int((~same).sum())} of {int(hit.sum())} rays set aside")
    assert hit.sum() > 500
    assert most >= 4
    assert (~same).sum() <= 0.005 * hit.sum()
    kept = same[lines]
    z0 = found.z0.detach().double().reshape(len(expected), -1).numpy()[lines[kept], place[kept]]
    local = found.local.detach().double().reshape(len(expected), -1, 3).numpy()[lines[kept], place[kept]]
    exact = backend.dtype == torch.float64
    np.testing.assert_allclose(z0, depths[kept], rtol=1e-11 if exact else 2e-5)
    np.testing.assert_allclose(local, barycentrics[kept], rtol=0, atol=1e-11 if exact else 2e-5)


@doubles
def test_fragments_carry_barycentrics(backend: Backend) -> None:
    """Shading by the barycentrics in torch gives what the engine interpolates, and the same gradients."""
    given = TriangleScene((triangles(12),), small_view(), RenderSettings(order="ray"))
    found: list[tuple[Tensor, Tensor]] = []
    for fused in (True, False):
        leaves, ready = given.leaves(torch.float64)
        drawable = ready.drawables[0]
        assert drawable.colors is not None
        if fused:
            color = ready.render(backend).color
        else:
            events = fragments(ready.drawables, ready.camera, 12)
            assert events.complete
            shaded = (events.local[..., None] * drawable.colors[events.primitives.clamp(min=0)]).sum(-2)
            color = composite(events, shaded)[0]
        generator = torch.Generator().manual_seed(3)
        (color * torch.randn(color.shape, generator=generator)).sum().backward()
        corners = leaves["0.corners"].grad
        assert corners is not None
        found.append((color.detach(), corners))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-8, atol=1e-10)

"""Scenes of triangles, and a comparison of pictures and gradients, for the tests of kind `triangle`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from backends import Backend
from scenes import CAMERA_TENSORS, simple_camera, single
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.mipmaps import mipmaps
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

PLANES = ("color", "alpha", "features", "depth", "normal")
RAY = RenderSettings(order="ray", depth=True, normals=True)


@dataclass(frozen=True, eq=False)
class TriangleScene:
    """What `render` takes, in float64 of values exact in float32."""

    drawables: tuple[TriangleDrawable, ...]
    camera: Camera
    settings: RenderSettings = RAY

    def leaves(self, dtype: torch.dtype) -> tuple[dict[str, Tensor], TriangleScene]:
        """The same in `dtype` with every number a leaf that requires its gradient, and the leaves by name."""
        leaves: dict[str, Tensor] = {}

        def leaf(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            leaves[name] = value.detach().clone().to(dtype).requires_grad_()
            return leaves[name]

        drawables = [
            replace(d, **{f.name: leaf(f"{k}.{f.name}", getattr(d, f.name)) for f in fields(d)})
            for k, d in enumerate(self.drawables)
        ]
        camera = replace(self.camera, **{name: leaf(name, getattr(self.camera, name)) for name in CAMERA_TENSORS})
        return leaves, replace(self, drawables=tuple(drawables), camera=camera)

    def render(self, backend: Backend) -> Frame:
        """Of tensors in the backend's dtype."""
        with backend.chosen():
            return render(self.drawables, self.camera, settings=self.settings, backend=backend.backend)


def triangles(count: int, seed: int = 0, size: float = 0.7, **other: Any) -> TriangleDrawable:
    """`count` triangles around the origin; `texture`: (h, w, channels), with so many levels of `mipmaps`; other values
    replace fields.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return single(low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64))

    centres = uniform(count, 1, 3, low=-1, high=1)
    values: dict[str, Any] = {
        "corners": single(centres + uniform(count, 3, 3, low=-size, high=size)),
        "opacities": uniform(count, low=0.2, high=0.9),
        "features": uniform(count, 3, 2, low=-1),
    }
    shape = other.pop("texture", None)
    if shape is None:
        values["colors"] = uniform(count, 3, 3)
    else:
        values |= {"texture": uniform(*shape), "uvs": uniform(count, 3, 2, low=-0.6, high=1.6)}
        if levels := other.pop("mipmaps", 0):
            values["mipmaps"] = single(mipmaps(values["texture"], levels))
    if other.pop("smooth", False):
        values["normals"] = uniform(count, 3, 3, low=-1) + values["corners"]
        values["normals"] = single(values["normals"])
    return TriangleDrawable(**(values | other))


def icosphere(levels: int, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Vertices [v, 3] and faces [n, 3] of a subdivided icosahedron, wound alike."""
    golden = (1 + 5**0.5) / 2
    rows = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = [tuple(row[(k + shift) % 3] for k in range(3)) for shift in (0, 2, 1) for row in rows]
    faces = _convex_faces(vertices)
    for _ in range(levels):
        vertices, faces = _subdivided(vertices, faces)
    places = torch.tensor(vertices, dtype=torch.float64)
    return single(radius * places / places.norm(dim=1, keepdim=True)), torch.tensor(faces)


def _subdivided(
    vertices: list[tuple[float, ...]], faces: list[tuple[int, int, int]]
) -> tuple[list[tuple[float, ...]], list[tuple[int, int, int]]]:
    """Every face in four, the new vertices on the unit sphere."""
    fresh_vertices, fresh_faces, middles = list(vertices), list[tuple[int, int, int]](), dict[tuple[int, int], int]()

    def middle(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middles:
            middles[key] = len(fresh_vertices)
            fresh_vertices.append(tuple((vertices[a][k] + vertices[b][k]) / 2 for k in range(3)))
        return middles[key]

    for a, b, c in faces:
        ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
        fresh_faces += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    places = torch.tensor(fresh_vertices, dtype=torch.float64)
    return [tuple(row) for row in (places / places.norm(dim=1, keepdim=True)).tolist()], fresh_faces


def _convex_faces(vertices: Sequence[tuple[float, ...]]) -> list[tuple[int, int, int]]:
    """Triangles of the icosahedron: all triples of mutual neighbours, wound outwards."""
    places = torch.tensor(vertices, dtype=torch.float64)
    near = (torch.cdist(places, places) - 2).abs() < 1e-9
    faces: list[tuple[int, int, int]] = []
    for a in range(12):
        for b in range(a + 1, 12):
            for c in range(b + 1, 12):
                if near[a, b] and near[b, c] and near[a, c]:
                    outwards = torch.linalg.det(places[[a, b, c]]) > 0
                    faces.append((a, b, c) if outwards else (a, c, b))
    return faces


def neighbours(faces: Tensor) -> Tensor:
    """[n, 3]: the face across the edge from corner i to i + 1."""
    edges = {(int(f[i]), int(f[(i + 1) % 3])): k for k, f in enumerate(faces) for i in range(3)}
    rows = [[edges.get((int(f[(i + 1) % 3]), int(f[i])), -1) for i in range(3)] for f in faces]
    return torch.tensor(rows, dtype=torch.int32)


def mesh(vertices: Tensor, faces: Tensor, **other: Any) -> TriangleDrawable:
    """One colour for all, opaque."""
    colors = single(torch.tensor([0.8, 0.5, 0.25], dtype=torch.float64)).expand(len(faces), 3, 3)
    values: dict[str, Any] = {"opacities": torch.ones(len(faces), dtype=torch.float64), "colors": colors}
    return TriangleDrawable(vertices[faces], **(values | other))


def planes(frame: Frame) -> dict[str, Tensor]:
    """What there is to see. Depth is times alpha: where alpha is faint, dividing by it is another matter."""
    found = {name: getattr(frame, name) for name in PLANES if getattr(frame, name) is not None}
    if "depth" in found:
        found["depth"] = found["depth"] * found["alpha"]
    return found


def weighted(frame: Frame, keep: Tensor | None = None) -> Tensor:
    """A scalar of the whole frame with random weights, the same for all backends; `keep` [h, w] masks pixels out."""
    generator = torch.Generator().manual_seed(5)
    total = frame.alpha.new_zeros(())
    for plane in planes(frame).values():
        weight = torch.randn(plane.shape, generator=generator).to(plane.dtype)
        mask = 1 if keep is None else keep if plane.dim() == 2 else keep[..., None]
        total = total + (plane * weight * mask).sum()
    return total


def small_view(width: int = 61, height: int = 45) -> Camera:
    return simple_camera(width, height)

"""Coarser levels of textures: how they are made, which of them a pixel looks at, and what they are good for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import Backend, emulator, found_backends
from mixed_scenes import textured
from scenes import simple_camera
from torch import Tensor
from triangles import TriangleScene

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.engine.exact_source import drawn_source
from smalti.renderers.mipmaps import mipmap_count, mipmap_sizes, mipmaps
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

HERE = [backend for backend in found_backends() if backend.backend in ("oracle", "cpu")]
everywhere = pytest.mark.parametrize("backend", HERE, ids=lambda backend: backend.name)
RAY = RenderSettings(order="ray")


def area_mean(texture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over the areas of `rows` x `columns` equal parts, one cut texel at a time."""

    def shares(size: int, parts: int) -> np.ndarray:
        found = np.zeros((parts, size))
        for part in range(parts):
            low, high = part * size / parts, (part + 1) * size / parts
            for texel in range(size):
                found[part, texel] = max(0.0, min(high, texel + 1) - max(low, texel)) / (high - low)
        return found

    return np.einsum("ry,cx,yxk->rck", shares(texture.shape[0], rows), shares(texture.shape[1], columns), texture)


# ---- the levels
@pytest.mark.parametrize("size", [(8, 8), (7, 12), (1, 9), (13, 1), (31, 17)])
def test_every_texel_is_the_mean_over_its_area(size: tuple[int, int]) -> None:
    """Of the level before, in rows and columns; so every level has the texture's own mean."""
    texture = torch.rand(*size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = mipmaps(texture).split([rows * columns for rows, columns in mipmap_sizes(*size)])
    before = texture.numpy()
    assert mipmap_sizes(*size)[-1] == (1, 1)
    for part, (rows, columns) in zip(parts, mipmap_sizes(*size), strict=True):
        level = part.reshape(rows, columns, 3).numpy()
        np.testing.assert_allclose(level, area_mean(before, rows, columns), atol=1e-14)
        np.testing.assert_allclose(level.mean((0, 1)), texture.mean((0, 1)), atol=1e-14)
        before = level


def test_levels_are_counted_by_their_texels() -> None:
    assert mipmap_sizes(6, 9) == [(3, 4), (1, 2), (1, 1)]
    assert mipmap_sizes(6, 9, 1) == [(3, 4)]
    assert mipmap_sizes(1, 1) == []
    assert [mipmap_count(6, 9, texels) for texels in (0, 12, 14, 15)] == [0, 1, 2, 3]
    for texels in (1, 13, 16):
        with pytest.raises(ValueError, match="no levels of a texture of 6 x 9"):
            mipmap_count(6, 9, texels)


def test_the_texture_feels_what_its_levels_feel() -> None:
    texture = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(mipmaps, (texture,))


# ---- what is drawn
def wall(texture: Tensor, spread: float = 1.0, **other: Any) -> TriangleDrawable:
    """A square of side 2 across the view's axis, its texture repeated `spread` times in u."""
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=torch.float64)
    uvs = torch.tensor([[0.0, 0], [spread, 0], [spread, 1], [0, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    levels: dict[str, Any] = {"mipmaps": mipmaps(texture), **other}
    ones = torch.ones(2, dtype=torch.float64)
    return TriangleDrawable(corners[faces], ones, texture=texture, uvs=uvs[faces], **levels)


def away(distance: float, size: int = 41, tilt: float = 0.0) -> Camera:
    """On the wall's axis (turned by `tilt` about x): of it, one unit is `size / distance` pixels long; an odd size
    always has a pixel that sees its middle.
    """
    turn = [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    intrinsics = torch.tensor([size, size, size / 2, size / 2], dtype=torch.float64)
    place = torch.tensor([0, 0, distance], dtype=torch.float64)
    return Camera(torch.tensor(turn, dtype=torch.float64), place, intrinsics, size, size)


def drawn(drawable: TriangleDrawable, camera: Camera, backend: Backend) -> tuple[Tensor, Tensor]:
    """Colours of all pixels wholly covered, and where they are."""
    frame = TriangleScene((drawable,), camera, RAY).leaves(backend.dtype)[1].render(backend)
    return frame.color.detach().double(), frame.alpha.detach() == 1


@everywhere
def test_a_constant_texture_stays_constant_at_any_distance(backend: Backend) -> None:
    texture = torch.tensor([0.25, 0.5, 0.875], dtype=torch.float64).expand(27, 35, 3)
    for distance in (0.7, 3.0, 11.0, 60.0, 900.0):
        color, covered = drawn(wall(texture), away(distance, tilt=0.9), backend)
        assert bool(covered.any())
        assert float((color[covered] - texture[0, 0]).abs().max()) <= 3e-7


@everywhere
def test_up_close_it_is_the_texture_to_the_last_bit(backend: Backend) -> None:
    texture = torch.rand(16, 16, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    near = away(1.5, tilt=0.4)  # a texel is three pixels wide
    color, _ = drawn(wall(texture), near, backend)
    plain, _ = drawn(wall(texture, mipmaps=None), near, backend)
    assert torch.equal(color, plain)
    assert float(color.std()) > 0.1


@everywhere
def test_far_away_it_is_the_mean(backend: Backend) -> None:
    texture = torch.rand(48, 33, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mean = texture.mean((0, 1))
    far = away(45.0, tilt=0.2)
    color, covered = drawn(wall(texture), far, backend)
    assert 1 <= int(covered.sum()) <= 4
    assert float((color[covered] - mean).abs().max()) < 0.06
    plain, _ = drawn(wall(texture, mipmaps=None), far, backend)
    assert float((plain[covered] - mean).abs().max()) > 0.2


@everywhere
@pytest.mark.parametrize("width", [1.0, 1.25, 2.0, 3.0, 7.0, 8.0, 30.0])
def test_two_levels_make_the_width(backend: Backend, width: float) -> None:
    """Levels of one colour each, seen straight: the colour says which were mixed, and how."""
    size = 16
    texture = torch.zeros(size, size, 3, dtype=torch.float64)
    heights = [4.0, 1.0, 7.0, 2.0, 5.0]
    texture += heights[0]
    sizes = mipmap_sizes(size, size)
    levels = torch.cat([torch.full((r * c, 3), heights[k + 1]) for k, (r, c) in enumerate(sizes)]).double()
    pixels = size / width  # of the whole wall
    color, covered = drawn(wall(texture, mipmaps=levels), away(2 * 41 / pixels), backend)
    level = min(math.floor(math.log2(width)), 4)
    share = min(width / 2**level - 1, 1.0) if level < 4 else 0.0
    expected = (1 - share) * heights[level] + share * heights[min(level + 1, 4)]
    assert bool(covered[20, 20])
    assert float((color[covered] - expected).abs().max()) < 2e-5


@everywhere
def test_levels_repeat_around_in_u(backend: Backend) -> None:
    """Four turns of a texture look alike, at every level; clamped, all but the first are its last column."""
    texture = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    camera = away(4.0, size=64)  # 32 pixels, 8 for each turn: 1 texel per pixel down, 1 across
    color, _ = drawn(wall(texture, 8.0, wrap=True), camera, backend)
    rows = color[16:48, 16:48]
    period = rows.reshape(32, 8, 4, 3)
    assert float((period - period[:, :1]).abs().max()) < 2e-6
    assert float(rows.std()) > 0.02
    clamped, _ = drawn(wall(texture, 8.0), camera, backend)
    assert float((clamped[16:48, 24:48] - clamped[16:48, 24:25]).abs().max()) < 2e-6


@everywhere
def test_a_texel_that_is_no_number_is_missed_from_afar_too(backend: Backend) -> None:
    texture = torch.full((16, 16, 3), 0.5, dtype=torch.float64)
    _, whole = drawn(wall(texture), away(8.0), backend)  # 10 pixels wide: the texture and its first level
    texture[0, 0, 1] = math.nan
    color, seen = drawn(wall(texture), away(8.0), backend)
    missed = (whole & ~seen).nonzero().tolist()
    first = whole.nonzero()[0].tolist()
    assert bool(color.isfinite().all())
    assert first in missed
    assert all(place[k] - first[k] < 3 for place in missed for k in (0, 1))


# ---- the same everywhere
def test_the_engine_agrees_with_the_oracle_to_rounding() -> None:
    """In double: colours, depth and the gradients of all tensors and of the camera, slanted faces among them."""
    settings = replace(RAY, depth=True)
    found: list[tuple[Tensor, list[Tensor]]] = []
    for backend in ("oracle", "cpu"):
        scene = TriangleScene((textured(9, edges="soft", sigma=1e-3),), simple_camera(36, 28), settings)
        leaves, ready = scene.leaves(torch.float64)
        frame = render(ready.drawables, ready.camera, settings=settings, backend=backend)
        weights = torch.rand(frame.color.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        (frame.color * weights).sum().backward()
        found.append((frame.color.detach(), [leaf.grad for leaf in leaves.values() if leaf.grad is not None]))
    (expected, wanted), (got, own) = found
    assert float((got - expected).abs().max()) <= 1e-12
    assert len(own) == len(wanted) == 8
    for a, b in zip(own, wanted, strict=True):
        assert float((a - b).norm() / b.norm()) <= 1e-11


def levels_felt(drawables: Sequence[TriangleDrawable]) -> list[Tensor]:
    return [d.mipmaps.grad for d in drawables if d.mipmaps is not None and d.mipmaps.grad is not None]


def test_kernels_of_cuda_agree_with_the_engine() -> None:
    """Run by their emulator."""
    outcomes: list[tuple[Tensor, list[Tensor]]] = []
    for backend in ("cpu", "emulator"):
        leaves, ready = TriangleScene((textured(9),), simple_camera(36, 28), RAY).leaves(torch.float64)
        with emulator().selected():
            frame = render(ready.drawables, ready.camera, settings=RAY, backend=backend)
            frame.color.square().sum().backward()
        assert levels_felt(ready.drawables)
        outcomes.append((frame.color.detach(), [leaf.grad for leaf in leaves.values() if leaf.grad is not None]))
    (expected, wanted), (got, own) = outcomes
    assert float((got - expected).abs().max()) <= 1e-12
    for a, b in zip(own, wanted, strict=True):
        assert float((a - b).norm()) <= 1e-10 * (1 + float(b.norm()))


def test_cuda_compiles_them_for_those_who_have_some() -> None:
    """Calls cost the kernels of all triangles registers."""
    sources = [drawn_source(textured(2, mipmaps=None)), drawn_source(textured(2))]
    assert [source.struct for source in sources] == ["PlainTriangleKind", "TriangleKind"]


@pytest.mark.parametrize("wrap", [False, True])
def test_gradients_of_a_texture_through_its_levels(wrap: bool) -> None:
    """Against central differences: the levels are made anew from the texture that is moved."""
    generator = torch.Generator().manual_seed(7)
    texture = torch.rand(19, 26, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(41, 41, 3, generator=generator, dtype=torch.float64)

    def loss(texture: Tensor) -> Tensor:
        drawable = wall(texture, 2.3, wrap=wrap, edges="antialiased")
        return (render([drawable], away(6.0, tilt=0.8), settings=RAY).color * weights).sum()

    leaf = texture.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    for _ in range(5):
        along = torch.randn(texture.shape, generator=generator, dtype=torch.float64)
        difference = float(loss(texture + 1e-5 * along) - loss(texture - 1e-5 * along)) / 2e-5
        assert float((leaf.grad * along).sum()) == pytest.approx(difference, rel=1e-7, abs=1e-7)


# ---- what they are good for
def test_they_are_nearer_to_a_supersampled_picture() -> None:
    """A fine check from afar, against 64 rays to the pixel: noise without, grey as it should be with."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    texture = ((x // 2 + y // 2) % 2).double()[..., None].expand(-1, -1, 3).contiguous()

    def error(levels: Tensor | None) -> float:
        drawable = wall(texture, mipmaps=levels)
        fine = replace(away(3.1, 40 * 8, 1.0))
        truth = render([wall(texture, mipmaps=None)], fine, settings=RAY)
        frame = render([drawable], away(3.1, 40, 1.0), settings=RAY)
        covered = truth.alpha.reshape(40, 8, 40, 8).amin((1, 3)) == 1
        return float((frame.color - truth.color.reshape(40, 8, 40, 8, 3).mean((1, 3)))[covered].square().mean())

    assert error(mipmaps(texture)) < 0.05 * error(None)

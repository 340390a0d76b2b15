"""What drawables ask of their tensors before the kernels trust them."""

from __future__ import annotations

import math

from torch import Tensor

MOST_TEXELS = 2**24
"""Of a grid, along one side (single precision counts them)."""
MOST_NUMBERS = 2**31 - 1
"""In a texture, or in the voxels of one box (the kernels' integers count them)."""


def check_shapes(drawable: object, like: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
    """The kernels read as many numbers as `shapes` (attribute -> shape) says, whatever is there: ValueError where an
    attribute has another one, lies elsewhere than `like`, or has another floating-point type. None is left out.
    """
    name = type(drawable).__name__
    for attribute, shape in shapes.items():
        tensor = getattr(drawable, attribute)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}.{attribute}: expected shape {shape}, got {tuple(tensor.shape)}")
        if tensor.device != like.device:
            raise ValueError(f"{name}.{attribute}: on {tensor.device}, but the rest is on {like.device}")
        if tensor.is_floating_point() and tensor.dtype != like.dtype:
            raise ValueError(f"{name}.{attribute}: {tensor.dtype}, but the rest is {like.dtype}")


def check_grid(where: str, grid: Tensor, shape: str, channels: tuple[int, ...]) -> None:
    """A texture, or voxels per box: `shape` in words, sides of at least one, as many numbers as can be counted.
    ValueError otherwise.
    """
    voxels = grid.dim() == 5
    sides = grid.shape[1:-1] if voxels else grid.shape[:-1]
    if grid.dim() != shape.count(",") + 1 or grid.shape[-1] not in channels or 0 in sides:
        raise ValueError(f"{where}: expected {shape}, every side at least 1, got {tuple(grid.shape)}")
    if math.prod(sides) * grid.shape[-1] > MOST_NUMBERS or max(sides) > MOST_TEXELS:
        raise ValueError(
            f"{where}: at most {MOST_TEXELS} along a side and {MOST_NUMBERS} numbers in all, got {tuple(grid.shape)}"
        )


def check_harmonics(drawable: object, rest: Tensor | None, degree: int) -> None:
    """ValueError where `rest` [n, k, 3] does not hold the coefficients of degrees 1 to `degree`."""
    held = 0 if rest is None else rest.shape[1]
    if not 0 <= degree <= 3 or (degree + 1) ** 2 - 1 > held:
        needed = (degree + 1) ** 2 - 1
        raise ValueError(
            f"{type(drawable).__name__}.sh_degree: {degree} needs {needed} coefficients in sh_rest, got {held}"
        )

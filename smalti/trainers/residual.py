"""Where pictures show what the layers so far do not: points for a further layer, by space carving on the error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset
from smalti.datasets.hull import LONG_SIDE, MOST_VIEWS, TOLERATED
from smalti.datasets.images import ImageCache
from smalti.primitives.family import Family
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers.views import prepared

TRIED, FEWEST_TRIED, MOST_TRIED = 40, 100_000, 400_000
"""Places tried per point wanted, of those that are not seen to be empty; bounds of their number in all."""
MOST_ROUNDS = 8
"""Of drawing so many anew, where most are empty."""
TRANSPARENT = 8 / 255
"""Where a view's own alpha is not above this, there is nothing on the ray."""
QUANTILE = 0.25
"""A place's error is this quantile of those of the views that see it: what is there is missing from nearly all."""
HIDING = 0.01
"""So far behind a solid depth, as a share of the longest side of the bounds, a place is hidden."""
SOLID = 0.5
"""Opacity from which what is drawn hides the places behind it."""


@dataclass(frozen=True, eq=False)
class Residual:
    """One view: what is missing from it."""

    camera: Camera
    target: Float[Tensor, "h w 3"]
    """0..1, over the background."""
    error: Float[Tensor, "h w"]
    """Mean absolute difference of colour to what is drawn so far, 0 where masked."""
    foreground: Bool[Tensor, "h w"]
    """False where the view's alpha says that nothing is there; True without alpha."""
    depth: Float[Tensor, "h w"]
    """Camera z behind which places are hidden; infinite where nothing solid is drawn."""

    def at(self, positions: Float[Tensor, "n 3"]) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n"], Int[Tensor, "n"]]:
        """(inside the picture, camera z, number of the pixel, 0 where outside) of places."""
        points = positions @ self.camera.rotation.T + self.camera.translation
        z = points[:, 2]
        focal, centre = self.camera.intrinsics[:2], self.camera.intrinsics[2:]
        pixels = points[:, :2] / torch.where(z > 0, z, torch.ones_like(z))[:, None] * focal + centre
        size = pixels.new_tensor([self.camera.width, self.camera.height])
        inside = (z > 0) & (pixels >= 0).all(dim=1) & (pixels < size).all(dim=1)
        column, row = torch.where(inside[:, None], pixels, 0.0).long().unbind(1)
        return inside, z, row * self.camera.width + column


@torch.no_grad()
def residuals(
    dataset: Dataset, drawn: Sequence[Family], background: Float[Tensor, "3"], settings: RenderSettings
) -> list[Residual]:
    """Of at most `MOST_VIEWS` views, reduced to at most `LONG_SIDE` pixels; of the background alone where no layer is
    drawn yet.
    """
    rows = range(0, len(dataset.views), max(1, -(-len(dataset.views) // MOST_VIEWS)))
    longest = max(max(view.camera.width, view.camera.height) for view in dataset.views)
    found = []
    with ImageCache(dataset, downscale=max(1, round(longest / LONG_SIDE)), bytes=0) as cache:
        for row in rows:
            loaded = cache.get(row)
            view = prepared(loaded, row, 1, background)
            color, depth = background.expand_as(view.target), torch.full_like(view.target[..., 0], torch.inf)
            drawables = [each for family in drawn for each in family.drawables(view.camera, view.camera.time)]
            if drawables:
                frame = render(drawables, view.camera, background=background, settings=settings)
                assert frame.depth is not None
                color, depth = frame.color, torch.where(frame.alpha > SOLID, frame.depth, depth)
            error = (color - view.target).abs().mean(dim=2)
            alpha = None if loaded.alpha is None else loaded.alpha.float() / 255.0
            foreground = torch.ones_like(error, dtype=torch.bool) if alpha is None else alpha > TRANSPARENT
            error = error if view.mask is None else error * view.mask
            found.append(Residual(view.camera, view.target, error, foreground, depth))
    return found


@torch.no_grad()
def missing_points(
    views: Sequence[Residual], bounds: Float[Tensor, "2 3"], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "k 3"], Float[Tensor, "k 3"]]:
    """At most `count` (position, colour 0..1) inside the bounds, where something is missing.

    A place can hold it as far as the lower quantile of the error over the views from which it is not hidden says, and
    not at all where a view (but for the tolerated few) shows nothing on its ray. Every pixel hands its error out among
    such places on its ray, so that a thin thing gets as many points as a wide one of as many wrong pixels. The colour
    is the mean of the pixels', by their error. Places are tried twice: all over the bounds, then around the good ones.
    """
    low, high = bounds.float().unbind(0)
    if count == 0:
        return torch.zeros(0, 3), torch.zeros(0, 3)
    wanted, kept = max(min(TRIED * count, MOST_TRIED), FEWEST_TRIED, 2 * count), list[Tensor]()
    while sum(map(len, kept)) < wanted and len(kept) < MOST_ROUNDS:
        kept.append(_not_empty(views, low + torch.rand(wanted, 3, generator=generator) * (high - low)))
    spacing = float((high - low).prod() / (len(kept) * wanted)) ** (1 / 3)
    slack = HIDING * float((high - low).max())
    places = torch.cat(kept)
    weights, _ = _shares(views, places, slack)
    if not bool((weights > 0).any()):
        return places[:0], places[:0]
    around = places[torch.multinomial(weights, wanted, replacement=True, generator=generator)]
    places = _not_empty(views, around + (2 * torch.rand(wanted, 3, generator=generator) - 1) * spacing)
    weights, colors = _shares(views, places, slack)
    rows = torch.multinomial(weights, min(count, int((weights > 0).sum())), generator=generator)
    return places[rows], colors[rows]


def _shares(
    views: Sequence[Residual], places: Float[Tensor, "n 3"], slack: float
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
    """(what each place is handed of the pixels' errors, its colour)."""
    errors = torch.full((len(views), len(places)), torch.inf)
    sums, total = torch.zeros_like(places), torch.full((len(places), 1), 1e-12)
    sightings = []
    for index, view in enumerate(views):
        inside, z, pixel = view.at(places)
        rows = torch.nonzero(inside & (z < view.depth.reshape(-1)[pixel] + slack)).squeeze(1)
        pixel = pixel[rows]
        error = view.error.reshape(-1)[pixel]
        errors[index, rows] = error
        sums[rows] += error[:, None] * view.target.reshape(-1, 3)[pixel]
        total[rows] += error[:, None]
        sightings.append((rows, pixel, error))
    able = _low_quantile(errors).square()
    weights = torch.zeros(len(places))
    for view, (rows, pixel, error) in zip(views, sightings, strict=True):
        crowd = torch.zeros(view.error.numel()).index_add(0, pixel, able[rows]).clamp_min(1e-12)
        weights[rows] += error * able[rows] / crowd[pixel]
    return weights, sums / total


def _low_quantile(errors: Float[Tensor, "v n"]) -> Float[Tensor, "n"]:
    """Over the finite ones of each column; 0 where these are less than a quarter."""
    sightings = errors.isfinite().sum(dim=0)
    rank = (QUANTILE * (sightings - 1).clamp_min(0)).long()
    found = errors.sort(dim=0).values.gather(0, rank[None])[0]
    return torch.where((4 * sightings >= len(errors)) & (sightings > 0), found, 0.0)


def _not_empty(views: Sequence[Residual], places: Float[Tensor, "n 3"]) -> Float[Tensor, "k 3"]:
    """Without those where a view, but for the tolerated few, shows nothing on the ray."""
    misses = torch.zeros(len(places), dtype=torch.int64)
    for view in views:
        inside, _, pixel = view.at(places)
        misses += inside & ~view.foreground.reshape(-1)[pixel]
    return places[misses <= int(TOLERATED * len(views))]

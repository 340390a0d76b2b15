"""Fewer primitives, or fewer bytes, with as little change of the picture as may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Family
from smalti.primitives.rows import RowMap
from smalti.scene.changes import EditError, LayerChange, shallow
from smalti.scene.edits import selected
from smalti.scene.history import Changed
from smalti.scene.screen import total_contributions
from smalti.scene.selection import Selection

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene

UNSEEN = 1.0 / 255.0
"""What makes up less of every pixel of all views shows in no byte of their pictures."""
ATTEMPTS = 8


def simplify(
    scene: Scene,
    selection: Selection,
    *,
    count: int | None = None,
    bytes: int | None = None,
    cameras: Sequence[Camera] = (),
) -> int:
    """Reduce what is selected to at most `count` primitives, or `bytes` of tensors. Returns how many primitives went.

    Several layers are reduced by the same factor. How much a primitive counts is measured by what it contributes to the
    pictures of `cameras` (pinhole; of visible layers), else it is opacity times area. What each family does:

    - Gaussians, ray-exact ones and surfels: neighbours alike in place, shape and colour are merged by their moments;
      what shows in none of the views goes before.
    - Meshes: edges are collapsed by quadric error; corners shared with faces that are not selected, and seams of a
      texture, stay.
    - Boxes: those go that absorb least (density times volume); blocks: the smallest (opacity times volume); neural
      splats: the faintest and smallest.

    EditError where a layer cannot become so small, and changes nothing then.

    >>> from smalti.scene import demo_scene, layer, simplify
    >>> scene = demo_scene()
    >>> simplify(scene, layer("chair"), count=3), scene.counts()
    (5, {'chair': 3, 'cloud': 12})
    >>> scene.undo(), scene.counts()
    ('simplify', {'chair': 8, 'cloud': 12})
    """
    budget = count if count is not None else bytes
    if (count is None) == (bytes is None) or budget is None or budget < 0:
        raise ValueError(f"simplify: give either count or bytes, not negative; got count={count}, bytes={bytes}")
    masks = selected(scene, selection, "simplify")
    held = {name: _measure(scene.layers[name].family, mask, count is None) for name, mask in masks.items()}
    total = sum(held.values())
    if total <= budget:
        return 0
    weights = _weights(scene, masks, cameras)
    steps: list[Changed] = []
    went = 0
    shares = _shares(held, {name: int(mask.sum()) for name, mask in masks.items()}, budget)
    for name, mask in masks.items():
        change, fewer = _reduced(scene.layers[name], mask, weights[name], (shares[name], count is None))
        steps.append(Changed(change))
        went += fewer
    scene.history.perform(scene, "simplify", steps)
    return went


def _shares(held: dict[str, int], counts: dict[str, int], budget: int) -> dict[str, int]:
    """The budget in proportion to what layers hold; but a layer keeps one primitive where that is possible."""
    total = sum(held.values())
    shares = {name: budget * size // total for name, size in held.items()}
    kept = {name: max(shares[name], -(-size // counts[name])) for name, size in held.items()}
    largest = max(kept, key=lambda name: kept[name])
    kept[largest] -= max(0, sum(kept.values()) - budget)
    return kept if kept[largest] * counts[largest] >= held[largest] else shares


def _measure(family: Family, mask: Bool[Tensor, "n"], in_bytes: bool) -> int:
    if not in_bytes:
        return int(mask.sum())
    part = shallow(family)
    if not bool(mask.all()):
        part.rearrange(RowMap.keep(mask))
    return part.bytes


def _weights(
    scene: Scene, masks: dict[str, Bool[Tensor, "n"]], cameras: Sequence[Camera]
) -> dict[str, Float[Tensor, "n"]]:
    """Contribution, sum times largest: what fills many pixels, and what some pixel consists of."""
    seen = total_contributions(scene, cameras)
    found: dict[str, Tensor] = {}
    for name in masks:
        if name not in seen:
            found[name] = scene.layers[name].family.importance().double().nan_to_num(0.0).clamp_min(1e-300)
            continue
        total, most = (value.double() for value in seen[name])
        found[name] = torch.where(most >= UNSEEN, total * most, torch.zeros_like(most))
    return found


def _reduced(
    held: Layer, mask: Bool[Tensor, "n"], weights: Float[Tensor, "n"], budget: tuple[int, bool]
) -> tuple[LayerChange, int]:
    """(what becomes of the layer, how many primitives went) within the budget (number, of bytes)."""
    most, in_bytes = budget
    chosen = int(mask.sum())
    before = _measure(held.family, mask, in_bytes)
    now = before
    count = most if not in_bytes else chosen * most // max(before, 1)
    for _ in range(ATTEMPTS):
        result = shallow(held.family)
        weighed = _enough(mask, weights, count)
        rows, maps = result.simplify(mask, count, weighed) if count < chosen else _all(result)
        left = len(result) - len(held.family) + chosen
        now = _measure(result, _of(rows, mask), in_bytes)
        if now <= most:
            return LayerChange.between(held.name, held.family, result, {**maps, "": rows}), chosen - left
        if not in_bytes or count == 0 or left > count:
            break
        # A mesh's vertices, and what belongs to all primitives, are not in proportion.
        count = min(count - 1, count * most // now)
    what = f"{now:,} bytes" if in_bytes else f"{now:,} primitives"
    raise EditError(
        f"simplify: layer {held.name!r} cannot become smaller than about {what} by itself, {most:,} are asked for; ask "
        "for more, or delete a part of it"
    )


def _all(family: Family) -> tuple[RowMap, dict[str, RowMap]]:
    rows = RowMap.keep(torch.ones(len(family), dtype=torch.bool, device=family.device))
    return rows, family.rearrange(rows)


def _of(rows: RowMap, mask: Bool[Tensor, "n"]) -> Bool[Tensor, "m"]:
    """Which of the new primitives came from chosen ones."""
    return mask[rows.source]


def _enough(mask: Bool[Tensor, "n"], weights: Float[Tensor, "n"], count: int) -> Float[Tensor, "n"]:
    """Weight 0 says that a primitive may go before others are touched; here to no more than leaves `count`."""
    zero = torch.nonzero(mask & (weights == 0)).squeeze(1)
    spared = count - int((mask & (weights > 0)).sum())
    if spared <= 0 or not len(zero):
        return weights
    return weights.index_fill(0, zero[:spared], 1e-300)

"""Gradients of every kind, alone and mixed, against central differences; `bench/gradients.py` prints the table.

Every tensor is moved along a random direction and at two of its numbers. A pixel whose differences of two step lengths
disagree has met a threshold, a tie or another voxel within the step: it is set aside for all of its scene, counted, and
its cotangents are zero. What is left is compared with one backward pass: order and visible set are frozen there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from gradient_scenes import NOT_DIFFERENTIABLE, PARTS, Part, Tensors, view
from torch import Tensor

from smalti import Frame, RenderSettings, render

STEP = 2e-6
TOLERANCE = 1e-6
SMOOTH = 1e-5
"""Differences of two steps that are further apart (relative to the largest of the plane) are no derivative."""
MOST_SET_ASIDE = 0.01
PLANES = ("color", "alpha", "features", "normal", "depth")
CAMERA = ("rotation", "translation", "intrinsics")


@dataclass(frozen=True, eq=False)
class Mix:
    """One scene: one part, or two."""

    parts: tuple[Part, ...]
    order: str

    def leaves(self) -> Tensors:
        """All tensors by name; those of parts as `number.name`."""
        camera = view(self.parts[0].distance)
        values = {f"{k}.{n}": t for k, part in enumerate(self.parts) for n, t in part.tensors(2 * k + 1).items()}
        values |= {name: getattr(camera, name) for name in CAMERA}
        values["background"] = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        return {name: value.detach().clone().requires_grad_() for name, value in values.items()}

    def draw(self, leaves: Tensors, backend: str) -> Frame:
        drawables = []
        for k, part in enumerate(self.parts):
            own = {name.split(".")[1]: value for name, value in leaves.items() if name.startswith(f"{k}.")}
            drawables += part.build(own)
        camera = replace(view(self.parts[0].distance), **{name: leaves[name] for name in CAMERA})
        settings = RenderSettings(
            order=self.order,  # type: ignore[arg-type]
            near=self.parts[0].near,
            transmittance_min=0.0,
            depth=True,
            normals=True,
            smooth_cutoff=True,
        )
        background = leaves["background"]
        if backend.startswith("cuda"):
            drawables = [_moved(drawable, "cuda") for drawable in drawables]
        return render(drawables, camera, background=background, settings=settings, backend=backend)


def _moved(drawable: Any, device: str) -> Any:
    tensors = {name: value for name, value in vars(drawable).items() if isinstance(value, Tensor)}
    return replace(drawable, **{name: value.to(device) for name, value in tensors.items()})


def mixes(small: bool = False) -> Iterator[Mix]:
    """Every mode alone in both orders; then every kind's first mode beside every other's, and beside itself."""
    for part in PARTS:
        orders = ("ray",) if part.mode == "additive" else ("ray", "centre")
        yield from (Mix((part,), order) for order in orders)
    first = list({part.kind: part for part in reversed(PARTS)}.values())[::-1]
    for k, one in enumerate(first):
        for other in first[k:]:
            yield Mix((one, other), "ray")
            if not small:
                yield Mix((one, other), "centre")
    if not small:
        # Every other mode once in a mix as well: beside a segment and a thin event of another kind.
        for part in PARTS:
            if part not in first and not part.alone:
                yield from (Mix((part, other), "ray") for other in first if other.kind in ("neural", "triangle"))


def all_kinds() -> Mix:
    """One scene with the first mode of every kind."""
    return Mix(tuple({part.kind: part for part in reversed(PARTS)}.values())[::-1], "ray")


def _planes(frame: Frame) -> Tensor:
    """[h w, channels] of all that has a gradient; depth is the normalised one."""
    found = [getattr(frame, name) for name in PLANES]
    found = [plane if plane.dim() == 3 else plane[..., None] for plane in found if plane is not None]
    return torch.cat(found, dim=-1).flatten(0, 1).cpu()


def _directions(leaf: Tensor, gradient: Tensor, generator: torch.Generator) -> list[tuple[str, Tensor]]:
    """A random one, the number with the largest gradient, and any one."""
    along = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
    found = [("all", along / along.norm())]
    largest = int(gradient.abs().argmax())
    for name, index in (("largest", largest), ("one", int(torch.randint(leaf.numel(), (), generator=generator)))):
        unit = torch.zeros_like(leaf).view(-1)
        unit[index] = 1
        found.append((name, unit.view(leaf.shape)))
    return found


@torch.no_grad()
def _slopes(mix: Mix, leaves: Tensors, name: str, direction: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Central differences of every plane and pixel by two step lengths."""
    found = []
    for step in (2 * STEP, STEP):
        ahead, back = (
            _planes(mix.draw({**leaves, name: leaves[name] + sign * step * direction}, backend)) for sign in (1, -1)
        )
        found.append((ahead - back) / (2 * step))
    return found[0], found[1]


def check(mix: Mix, backend: str) -> Iterator[dict[str, Any]]:
    """Rows of one scene."""
    leaves = mix.leaves()
    frame = mix.draw(leaves, backend)
    planes, generator = _planes(frame), torch.Generator().manual_seed(5)
    weights = torch.randn(planes.shape, generator=generator, dtype=planes.dtype)
    # A depth where almost nothing is drawn is a quotient of vanishing numbers.
    weights[:, -1] *= frame.alpha.detach().flatten().cpu() > 0.02
    names, values = list(leaves), list(leaves.values())

    def backward(cotangents: Tensor) -> dict[str, Tensor]:
        grads = torch.autograd.grad((planes * cotangents).sum(), values, retain_graph=True, allow_unused=True)
        return {n: torch.zeros_like(v) if g is None else g for n, v, g in zip(names, values, grads, strict=True)}

    rough = backward(weights)
    slopes: list[tuple[str, Tensor, Tensor]] = []
    aside = torch.zeros(len(planes), dtype=torch.bool)
    for name, leaf in leaves.items():
        for _, direction in _directions(leaf, rough[name], generator):
            wide, narrow = _slopes(mix, leaves, name, direction, backend)
            scale = narrow.abs().amax(0).clamp_min(1e-3)
            kept = weights.abs() > 0
            aside |= (((wide - narrow).abs() > SMOOTH * scale) & kept).any(1)
            # Without the error that goes with the square of the step.
            slopes.append((name, direction, (4 * narrow - wide) / 3))
    weights = weights * ~aside[:, None]
    exact = backward(weights)
    worst = dict.fromkeys(names, 0.0)
    for name, direction, slope in slopes:
        gradient = exact[name]
        # Of a unit direction through n numbers: as far as a gradient of this size reaches along it.
        reach = float(gradient.abs().max() if int((direction != 0).sum()) == 1 else gradient.norm())
        difference = abs(float((slope * weights).sum()) - float((gradient * direction).sum()))
        worst[name] = max(worst[name], difference / (reach or 1.0))
    share = float(aside.double().mean())
    for name, error in worst.items():
        number, _, parameter = name.rpartition(".")
        kinds = [(part.kind, part.mode) for part in mix.parts]
        own = kinds[int(number)] if number else ("camera" if name in CAMERA else "background", kinds[0][1])
        others = [kind for k, (kind, _) in enumerate(kinds) if str(k) != number]
        yield {
            **{"kind": own[0], "mode": own[1], "parameter": parameter, "mixed_with": " and ".join(others) or "-"},
            **{"order": mix.order, "backend": backend, "error": error, "set_aside": share},
            "passed": error <= TOLERANCE and share <= MOST_SET_ASIDE,
            "influence": float(exact[name].abs().max()),
        }


def reasons() -> list[dict[str, Any]]:
    """Rows for what has no gradient."""
    return [
        {
            **{"kind": kind, "mode": mode, "parameter": what, "mixed_with": "-", "order": "-", "backend": "-"},
            **{"error": None, "set_aside": 0.0, "passed": True, "reason": reason},
        }
        for kind, mode, what, reason in NOT_DIFFERENTIABLE
    ]


def table(backend: str, scenes: Sequence[Mix]) -> Iterator[dict[str, Any]]:
    """Rows of all scenes on one backend."""
    for mix in scenes:
        yield from check(mix, backend)

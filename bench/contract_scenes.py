"""Scenes on one ray for `bench/contract.py`: a primitive of any event mode on the optical axis, and what it must show.

Nothing here asks a renderer. A primitive's events follow from its numbers by hand; what two of them give together is
composited below, in float64, straight from the words of the contract (design, section 3; docs/kinds.md, section 1).
Everything is differentiable, so the closed forms have closed gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smalti import Camera, RenderSettings
from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)

MODES = ("gaussian", "gaussian_ray", "surfel", "triangle", "neural", "box", "superquadric")
THIN = ("gaussian", "gaussian_ray", "surfel", "triangle", "superquadric")
HARMONIC = 0.5 / math.sqrt(math.pi)
"""Y_0: a coefficient c shows as 0.5 + c Y_0."""
GOLDEN = (1 + math.sqrt(5)) / 2
INRADIUS = GOLDEN**2 / math.sqrt(3 * (1 + GOLDEN**2))
"""Of the icosahedron with corners on the unit sphere."""
TOWARDS = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
"""Normal of everything that faces the camera here."""


def single(value: Any) -> Tensor:
    """Rounded to float32, held in float64: every backend is given the same numbers."""
    return torch.as_tensor(value, dtype=torch.float64).float().double()


def number(value: Tensor) -> float:
    """Off the graph."""
    return float(value.detach())


@dataclass(frozen=True, eq=False)
class Primitive:
    """One primitive on the axis, from z - half to z + half where it has a length."""

    mode: str
    z: Tensor
    half: float
    strength: Tensor
    """Its own parameter: opacity, offset of the neural density, density of the box, logit of the superquadric."""
    color: Tensor
    features: Tensor
    """[2]; shown by the modes that have features."""
    step: float = 0.125
    cap: bool = False
    additive: bool = False

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {"z": self.z, "strength": self.strength, "color": self.color}


def strength_of(mode: str, alpha: float, half: float) -> Tensor:
    """The parameter that makes a primitive absorb `alpha` (a superquadric: at each of its two hits)."""
    depth = -math.log1p(-alpha) if alpha < 1 else 40.0
    if mode == "neural":
        return single(depth / 2)
    if mode == "box":
        return single(depth / (2 * half))
    if mode == "superquadric":
        return single(math.log(alpha / (1 - alpha)) if alpha < 1 else 40.0)
    return single(alpha)


# ---- what is handed to a renderer
def drawable_of(primitive: Primitive, dtype: torch.dtype) -> Drawable:
    """In `dtype`, with the graph of its leaves."""
    p, like = primitive, torch.zeros(1, dtype=dtype)
    z, strength, color = (value.to(dtype) for value in (p.z, p.strength, p.color))
    zero = torch.zeros_like(z)
    place = torch.stack([zero, zero, z])[None]
    upright = like.new_tensor([[1.0, 0, 0, 0]])
    features = p.features.to(dtype)
    shade = ((color - 0.5) / HARMONIC)[None]
    if p.mode == "gaussian":
        scales = like.new_tensor([[0.25, 0.25, 0.25]])
        return GaussianDrawable(place, upright, scales, strength[None], shade, features=features[None])
    if p.mode == "gaussian_ray":
        scales = like.new_tensor([[0.25, 0.5, 0.125]])
        return RayGaussianDrawable(place, upright, scales, strength[None], shade, features=features[None])
    if p.mode == "surfel":
        scales = like.new_tensor([[0.25, 0.5]])
        return SurfelDrawable(place, upright, scales, strength[None], shade, features=features[None])
    if p.mode == "triangle":
        corners = like.new_tensor([[-8.0, -8, 0], [8, -8, 0], [0, 16, 0]]) + place
        channels = features.expand(1, 3, 2).contiguous()
        return TriangleDrawable(corners[None], strength[None], color.expand(1, 3, 3).contiguous(), channels)
    if p.mode == "neural":
        none = like.new_zeros(1, 8, 3)
        size = torch.full((1, 3), p.half, dtype=dtype)
        network = (none, none[..., 0], none[..., 0], strength[None])
        return NeuralDrawable(place, upright, size, *network, shade, features=features[None], cap=p.cap)
    if p.mode == "box":
        payload = torch.cat([color, strength[None]]).expand(1, 2, 2, 2, 4).contiguous()
        size = torch.full((1, 3), p.half, dtype=dtype)
        rule = "additive" if p.additive else "exponential"
        return BoxDrawable(place, upright, size, payload, step=p.step, fade_scale=0.0, accumulation=rule)
    return _superquadric(p, place, strength, color)


def _superquadric(p: Primitive, place: Tensor, logit: Tensor, color: Tensor) -> Drawable:
    """A round block as an icosahedron, two of whose faces are perpendicular to the axis (the directions (1, 1, 1))."""
    a, b, c = (1 / math.sqrt(n) for n in (2, 6, 3))
    values = {
        "translations": place,
        "rotations": place.new_tensor([[a, b, c, -a, b, c]]),
        "raw_scales": place.new_zeros(1, 3),
        "raw_exponents": place.new_zeros(1, 2),
        "logit_opacities": logit[None],
        "raw_textures": torch.logit(color).expand(1, 2, 2, 3),
    }
    metadata = {"level": 0, "edges": "hard", "ratio": p.half / INRADIUS / 1.2, "detach_barycentrics": False}
    family = Superquadrics({name: value.detach() for name, value in values.items()}, metadata)
    family.parameters.update(values)  # with their graphs
    (drawable,) = family.drawables(camera())
    return drawable


def empty_of_every_kind(dtype: torch.dtype, step: float) -> list[Drawable]:
    """No primitives of each kind, in one order: the kernels are then compiled once for all pairs."""
    like = torch.zeros(0, 3, dtype=dtype)
    four, one, triple = like.new_zeros(0, 4), like.new_zeros(0), like.new_zeros(0, 3, 3)
    channels = like.new_zeros(0, 2)
    network = (like.new_zeros(0, 8, 3), like.new_zeros(0, 8), like.new_zeros(0, 8), one)
    return [
        GaussianDrawable(like, four, like, one, like, features=channels),
        RayGaussianDrawable(like, four, like, one, like, features=channels),
        SurfelDrawable(like, four, channels, one, like, features=channels),
        TriangleDrawable(triple, one, triple, like.new_zeros(0, 3, 2)),
        NeuralDrawable(like, four, like, *network, like, features=channels),
        BoxDrawable(like, four, like, like.new_zeros(0, 2, 2, 2, 4), step=step),
    ]


def camera() -> Camera:
    """At the origin, looking along z, with one pixel."""
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return Camera(eye, zero, torch.tensor([8.0, 8.0, 0.5, 0.5], dtype=torch.float64), 1, 1)


# ---- what must be seen
@dataclass(frozen=True, eq=False)
class Event:
    """Of one primitive: thin at z0 (z1 equal) with an alpha, or thick over [z0, z1] with an optical depth."""

    owner: int
    z0: Tensor
    z1: Tensor
    value: Tensor
    thick: bool
    key: float
    """In the order `centre`."""


def events_of(p: Primitive, owner: int, near: float) -> list[Event]:
    """By hand: the axis goes through the middle of everything."""
    key = number(p.z)
    if p.mode == "neural":
        z0, z1 = (p.z - p.half).clamp_min(near), p.z + p.half
        if number(z1) <= near:
            return []
        # Half the offset per unit of the radius: 2 x offset along the whole diameter.
        depth = 2 * p.strength * (z1 - z0) / (2 * p.half)
        if p.cap:
            if 1 - math.exp(-number(depth)) < 1 / 255:
                return []
            depth = depth.clamp_max(-math.log(0.01))
        return [Event(owner, z0, z1, depth, True, key)]
    if p.mode == "box":
        # Cells of the picture's grid; where they lie takes no gradient.
        first, count = round((number(p.z) - p.half) / p.step), round(2 * p.half / p.step)
        ends = [single(n * p.step) for n in range(first, first + count + 1)]
        pairs = [(a, b) for a, b in itertools.pairwise(ends) if number(a + b) / 2 >= near]
        return [Event(owner, a, b, p.strength * p.step, True, key) for a, b in pairs]
    hits = [p.z - p.half, p.z + p.half] if p.mode == "superquadric" else [p.z]
    alpha = torch.sigmoid(p.strength) if p.mode == "superquadric" else p.strength
    if p.mode in ("gaussian", "gaussian_ray", "surfel"):
        alpha = alpha.clamp_max(0.99)
        hits = hits if number(alpha) >= 1 / 255 else []
    if p.mode == "superquadric" and number(alpha) <= 0.01:
        hits = []  # the family's own threshold
    return [Event(owner, z, z, alpha, False, number(z)) for z in hits if number(z) >= near]


def channels_of(p: Primitive) -> Tensor:
    """Colour 3, features 2, normal 3."""
    features = p.features if p.mode not in ("box", "superquadric") else torch.zeros_like(p.features)
    faces = p.mode in ("surfel", "triangle", "superquadric")
    return torch.cat([p.color, features, TOWARDS if faces else torch.zeros_like(TOWARDS)])


@dataclass
class Expected:
    """One pixel; planes as in `Frame`."""

    planes: dict[str, Tensor]
    ids: dict[str, int] = field(default_factory=dict)
    """Number of the primitive in the list, -1 for none; names are missing where two candidates are too close."""


def expected(primitives: Sequence[Primitive], background: Tensor, settings: RenderSettings) -> Expected:
    """The contract, followed word by word along one ray."""
    events = [e for k, p in enumerate(primitives) for e in events_of(p, k, settings.near)]
    if all(p.additive for p in primitives):
        sweep: Callable[..., _Sweep] = _additive
    else:
        sweep = _by_key if settings.order == "centre" else _along_the_ray
    found = sweep(events, [channels_of(p) for p in primitives], settings.transmittance_min)
    return found.result(len(primitives), background)


@dataclass(eq=False)
class _Sweep:
    """What the ray has met so far."""

    transmittance: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.float64))
    channels: Tensor = field(default_factory=lambda: torch.zeros(8, dtype=torch.float64))
    depth: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    weights: list[tuple[Event, Tensor]] = field(default_factory=list)
    median: tuple[int, Tensor] | None = None
    margin: float = 1.0
    """How near T came to one half."""
    centre: bool = False

    def pass_to(self, transmittance: Tensor, owner: int, z: Tensor) -> None:
        """T falls; `owner`, `z`: what it falls by and where it would pass one half."""
        self.margin = min(self.margin, abs(number(transmittance) - 0.5))
        if self.median is None and number(transmittance) <= 0.5:
            self.median = owner, z
        self.transmittance = transmittance

    def thin(self, event: Event, channels: Tensor, alpha: Tensor, z: Tensor) -> None:
        weight = self.transmittance * alpha
        self.channels = self.channels + weight * channels
        self.depth = self.depth + weight * z
        self.weights.append((event, weight))
        self.pass_to(self.transmittance * (1 - alpha), event.owner, z)

    def result(self, count: int, background: Tensor) -> Expected:
        absorbed = 1 - self.transmittance
        sums = [torch.zeros((), dtype=torch.float64) for _ in range(count)]
        by_event: dict[int, tuple[Event, float]] = {}
        for event, weight in self.weights:
            sums[event.owner] = sums[event.owner] + weight
            by_event[id(event)] = event, by_event.get(id(event), (event, 0.0))[1] + number(weight)
        drawn = [(event, weight) for event, weight in by_event.values() if weight > 0]
        # A segment counts by its begin; in the order `centre` it is thin, and comes when it is composited.
        ordered = drawn if self.centre else sorted(drawn, key=lambda item: (number(item[0].z0), item[0].owner))
        first = ordered[0][0] if ordered else None
        best = sorted((weight for _, weight in drawn), reverse=True)
        ids = {"first": -1 if first is None else first.owner}
        if len(best) < 2 or best[0] - best[1] > 1e-4 * best[0]:
            ids["dominant"] = max(drawn, key=lambda item: item[1])[0].owner if drawn else -1
        if self.margin > 1e-4:
            ids["median"] = -1 if self.median is None else self.median[0]
        zero = torch.zeros((), dtype=torch.float64)
        planes = {
            "color": self.channels[:3] + self.transmittance * background,
            "alpha": absorbed,
            "features": self.channels[3:5],
            "normal": self.channels[5:],
            "depth": self.depth / absorbed if number(absorbed) > 0 else zero,
            "depth_first": zero if first is None else ((first.z0 + first.z1) / 2 if self.centre else first.z0),
            "contribution_sum": torch.stack(sums),
        }
        if self.margin > 1e-4:
            planes["depth_median"] = zero if self.median is None else self.median[1]
        return Expected(planes, ids)


def _by_key(events: list[Event], channels: list[Tensor], least: float) -> _Sweep:
    """`order="centre"`: everything thin, a segment in the middle of its length."""
    sweep = _Sweep(centre=True)
    for event in sorted(events, key=lambda e: (e.key, e.owner)):
        if number(sweep.transmittance) < least:
            break
        alpha = 1 - torch.exp(-event.value) if event.thick else event.value
        sweep.thin(event, channels[event.owner], alpha, (event.z0 + event.z1) / 2)
    return sweep


def _along_the_ray(events: list[Event], channels: list[Tensor], least: float) -> _Sweep:
    """`order="ray"`: between two neighbouring ends or thin events the open densities add."""
    marks: list[tuple[float, int, int, Tensor, Event, str]] = []
    for place, event in enumerate(events):
        kinds = [("begin", event.z0), ("end", event.z1)] if event.thick else [("thin", event.z0)]
        marks += [(number(z), event.owner, place, z, event, kind) for kind, z in kinds]
    marks.sort(key=lambda mark: mark[:3])
    sweep, open_events, before = _Sweep(), list[Event](), None
    for _, _, _, z, event, kind in marks:
        if open_events and before is not None:  # also of no length: its ends have gradients
            if number(sweep.transmittance) < least:
                break
            _piece(sweep, open_events, channels, before, z)
        before = z
        if kind == "begin":
            open_events.append(event)
        elif kind == "end":
            open_events.remove(event)
        elif number(sweep.transmittance) >= least:
            sweep.thin(event, channels[event.owner], event.value, z)
        else:
            break
    return sweep


def _piece(sweep: _Sweep, open_events: list[Event], channels: list[Tensor], p: Tensor, q: Tensor) -> None:
    """Beer and Lambert from p to q, where the sum of the densities is constant."""
    densities = [event.value / (event.z1 - event.z0) for event in open_events]
    sigma = torch.stack(densities).sum()
    length = q - p
    kept = torch.exp(-sigma * length)
    absorbed = sweep.transmittance * (1 - kept)
    for event, density in zip(open_events, densities, strict=True):
        sweep.weights.append((event, absorbed * density / sigma))
        sweep.channels = sweep.channels + absorbed * density / sigma * channels[event.owner]
    # Where, on average, light is absorbed: the integral of z sigma exp(-sigma (z - p)).
    sweep.depth = sweep.depth + sweep.transmittance * (p * (1 - kept) + (1 - kept) / sigma - length * kept)
    last = max(open_events, key=lambda e: (number(e.z0), e.owner))
    half = p + torch.log(sweep.transmittance.detach() / 0.5) / sigma
    sweep.pass_to(sweep.transmittance * kept, last.owner, half)


def _additive(events: list[Event], channels: list[Tensor], least: float) -> _Sweep:
    """MVP's rule, boxes alone, all of whose cells lie on one grid: opacities add until they are 1."""
    sweep, gathered = _Sweep(), torch.zeros((), dtype=torch.float64)
    for place in sorted({number(event.z0) for event in events}):
        here = [event for event in events if number(event.z0) == place]
        total = torch.stack([event.value for event in here]).sum()
        weight = (gathered + total).clamp_max(1.0) - gathered
        for event in here:
            share = event.value / total
            sweep.weights.append((event, weight * share))
            sweep.channels = sweep.channels + weight * share * channels[event.owner]
        sweep.depth = sweep.depth + weight * (here[0].z0 + here[0].z1) / 2
        gathered = gathered + weight
        last = max(event.owner for event in here)
        half = here[0].z0 + (here[0].z1 - here[0].z0) * (0.5 - (gathered - weight)) / total
        sweep.pass_to(1 - gathered, last, half)
    return sweep

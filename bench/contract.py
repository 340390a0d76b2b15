"""The compositing contract, clause by clause, in closed form, over every pair of event modes and every backend.

    python bench/contract.py [--json] [--backend NAME ...] [--mode NAME ...]

One ray, two primitives whose events are known by hand (`contract_scenes.py`), and what they must show together: colour,
alpha, features, normal, expected, first and median depth, contributions, ids, and gradients. A row is (clause, pair,
backend) with its worst error, relative to each plane's largest value. The exit code is 1 if a row fails.
Backends: the oracle (float64), every build of the CPU engine that this machine runs, the double build, the CUDA kernels
in their emulator (needs g++; compiled once per precision), and on a device where there is one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from contract_scenes import (
    MODES,
    Expected,
    Primitive,
    camera,
    drawable_of,
    empty_of_every_kind,
    expected,
    single,
    strength_of,
)
from torch import Tensor

from smalti import Frame, RenderSettings, render

IMAGE = {torch.float32: 2e-5, torch.float64: 1e-8}
GRADIENT = {torch.float32: 1e-3, torch.float64: 1e-6}
SETTINGS = RenderSettings(order="ray", depth=True, normals=True, statistics=True)
COLORS = ((0.75, 0.25, 0.125), (0.125, 0.5, 0.875))
FEATURES = ((2.0, -3.0), (-0.5, 1.5))
BACKGROUND = (0.25, 0.5, 0.0625)
ALPHAS = (0.4375, 0.625)


@dataclass(frozen=True)
class Backend:
    """One way to draw."""

    name: str
    backend: str
    dtype: torch.dtype
    choose: Callable[[], AbstractContextManager[Any]] = nullcontext
    device: str = "cpu"

    def draw(self, primitives: Sequence[Primitive], background: Tensor, settings: RenderSettings) -> Frame:
        """On this backend; its gradient must be taken within `choose` as well."""
        drawables = [drawable_of(primitive, self.dtype) for primitive in primitives]
        if self.backend in ("emulator", "cuda"):
            drawables = [*empty_of_every_kind(self.dtype, primitives[0].step), *drawables]
        if any(primitive.additive for primitive in primitives) and len({d.kind for d in drawables}) > 1:
            drawables = [d for d in drawables if len(d)]  # the additive rule is for boxes alone
        behind = background.to(self.dtype)
        if self.device != "cpu":
            drawables = [_moved(drawable, self.device) for drawable in drawables]
            behind = behind.to(self.device)
        return render(drawables, camera(), background=behind, settings=settings, backend=self.backend)


def _moved(drawable: Any, device: str) -> Any:
    tensors = {name: value for name, value in vars(drawable).items() if isinstance(value, Tensor)}
    return replace(drawable, **{name: value.to(device) for name, value in tensors.items()})


def backends(emulator_folder: Path | None = None) -> list[Backend]:
    """All that this machine has; without a folder for its libraries no emulator."""
    from smalti.renderers.engine import library
    from smalti.renderers.engine.emulator import Emulator

    found = [Backend("oracle", "oracle", torch.float64)]
    for isa in library.available():
        if isa == "double":
            found.append(Backend("cpu-double", "cpu", torch.float64))
        else:
            found.append(Backend(f"cpu-{isa}", "cpu", torch.float32, lambda isa=isa: library.use_isa(isa)))
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        if emulator_folder is not None:
            emulator = Emulator(emulator_folder)
            found.append(Backend(f"emulator-{name}", "emulator", dtype, emulator.selected))
        if torch.cuda.is_available():
            found.append(Backend(f"cuda-{name}", "cuda", dtype, device="cuda"))
    return found


# ---- clauses
@dataclass(frozen=True)
class Place:
    """Where the two primitives lie: centre and half length of each."""

    first: tuple[float, float]
    second: tuple[float, float]
    near: float = 0.01


PLACES = {
    "in front": Place((2.0, 0.5), (4.0, 1.0)),
    "behind": Place((4.0, 0.5), (2.0, 1.0)),
    "interpenetrating": Place((2.75, 0.75), (3.25, 1.0)),
    "coincident": Place((3.0, 0.75), (3.0, 0.75)),
    "inside": Place((3.0, 0.5), (3.125, 1.5)),
    "behind the camera": Place((-3.0, 0.5), (3.0, 0.5)),
    "at the near plane": Place((2.0, 0.5), (4.0, 0.5), near=2.0),
    "just before the near plane": Place((1.875, 0.5), (4.0, 0.5), near=2.0),
    "just behind the near plane": Place((2.125, 0.5), (4.0, 0.5), near=2.0),
    "ends at the near plane": Place((1.5, 0.5), (4.0, 0.5), near=2.125),
    "begins behind the near plane": Place((2.75, 0.5), (4.0, 0.5), near=2.0),
    "around the camera": Place((0.25, 1.0), (3.0, 0.5), near=0.125),
}
"""How the first of a pair lies to the second. Thin events have the centre, superquadrics a hit at either end."""
GRADIENTS_AT = ("in front", "interpenetrating", "inside", "just before the near plane", "around the camera")


def pair_at(place: Place, modes: tuple[str, str], alphas: tuple[float, float] = ALPHAS) -> list[Primitive]:
    """Leaves that take gradients; numbers exact in float32."""
    made = []
    for k, (mode, (z, half)) in enumerate(zip(modes, (place.first, place.second), strict=True)):
        values = single(z), half, strength_of(mode, alphas[k], half), single(COLORS[k])
        leaves = [value.requires_grad_() if isinstance(value, Tensor) else value for value in values]
        made.append(Primitive(mode, *leaves, features=single(FEATURES[k])))  # type: ignore[arg-type]
    return made


@dataclass(frozen=True, eq=False)
class Check:
    """One scene of one clause."""

    clause: str
    primitives: list[Primitive]
    settings: RenderSettings
    gradients: bool = False
    background: Tensor = field(default_factory=lambda: single(BACKGROUND).requires_grad_())

    @cached_property
    def expected(self) -> Expected:
        """The closed form, the same for every backend."""
        return expected(self.primitives, self.background, self.settings)


def checks_of(modes: tuple[str, str], every: bool = True) -> Iterator[Check]:
    """Every clause for one ordered pair; fewer, where not `every`, of those that need many primitives."""
    for name, place in PLACES.items():
        settings = replace(SETTINGS, near=place.near)
        yield Check(f"order: {name}", pair_at(place, modes), settings, name in GRADIENTS_AT)
    crossing = PLACES["interpenetrating"]
    yield Check("one key each (order=centre)", pair_at(crossing, modes), replace(SETTINGS, order="centre"), True)
    yield Check("opaque in front", pair_at(PLACES["in front"], modes, (1.0, ALPHAS[1])), SETTINGS, True)
    yield Check("opaque, interpenetrating", pair_at(crossing, modes, (1.0, ALPHAS[1])), SETTINGS, True)
    # Of a splat 0.99 is the cap, where its gradient ends: a little less.
    least = 0.9899 if modes[0] in ("gaussian", "gaussian_ray", "surfel") else 0.99
    for name, alpha in (("0.99", least), ("1 - 1e-6", 1 - 1e-6)):
        scene = pair_at(PLACES["in front"], modes, (alpha, ALPHAS[1]))
        yield Check(f"alpha of {name} in front", scene, SETTINGS, True)
        endless = replace(SETTINGS, transmittance_min=0.0)
        yield Check(f"alpha of {name} in front, rays without end", scene, endless, True)
    capped = [replace(p, cap=True) for p in pair_at(crossing, modes, (1.0, ALPHAS[1]))]
    yield Check("the cap acts on the whole", capped, SETTINGS, True)
    for name, share in (("above", 1.01), ("below", 0.99)):
        # A superquadric's is its family's: blocks at or below 0.01 are not drawn.
        threshold = 0.01 if modes[0] == "superquadric" else 1 / 255
        faint = [replace(p, cap=True) for p in pair_at(crossing, modes, (share * threshold, ALPHAS[1]))]
        yield Check(f"{name} the threshold, whole", faint, SETTINGS)
    if every:
        yield Check("more events than the window holds", crowd(modes), SETTINGS)
    if modes == ("box", "box"):
        for name in ("in front", "interpenetrating", "coincident", "inside"):
            boxes = [replace(p, additive=True) for p in pair_at(PLACES[name], modes)]
            yield Check(f"additive: {name}", boxes, SETTINGS, name == "interpenetrating")
        full = [replace(p, additive=True) for p in pair_at(crossing, modes, (0.75, 0.75))]
        yield Check("additive: saturated", full, SETTINGS)


def crowd(modes: tuple[str, str]) -> list[Primitive]:
    """Forty of each, interleaved; what has a length overlaps with nearly all others."""
    made = []
    for k, n in itertools.product(range(2), range(40)):
        z = single(2 + n / 32 + k / 64)
        color = single([(n % 5) / 8 + 0.125, (n % 3) / 4 + 0.25 * k, 0.5])
        strength = strength_of(modes[k], 0.0625, 0.5)
        made.append(Primitive(modes[k], z, 0.5, strength, color.clamp(0.0625, 0.9375), single([n, -n]), 1 / 64))
    return made


# ---- judging
def relative(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest expected value, or over 1 where that is smaller than 1e-3."""
    difference = float((got.detach().double().cpu() - want.detach()).abs().max())
    largest = float(want.detach().abs().max())
    error = difference / (largest if largest > 1e-3 else 1.0)
    return error if math.isfinite(error) else math.inf


def picture_error(frame: Frame, check: Check) -> tuple[float, str]:
    """Worst over all planes and ids, and which."""
    want = check.expected
    owners = _owners(frame, check)
    worst = (0.0, "")
    for name, plane in want.planes.items():
        got = getattr(frame, name)
        if name == "contribution_sum":
            sums = torch.zeros(len(check.primitives), dtype=torch.float64)
            got = sums.index_add(0, owners, got.detach().double().cpu())
        elif got is None:
            if float(plane.detach().abs().max()) > 0:
                worst = max(worst, (math.inf, f"no {name}"))
            continue
        else:
            got = got[0, 0]
        worst = max(worst, (relative(got, plane), name))
    for name, owner in want.ids.items():
        row = int(frame.ids[name][0, 0])
        if (int(owners[row]) if row >= 0 else -1) != owner:
            worst = max(worst, (math.inf, f"ids[{name}]"))
    return worst


def _owners(frame: Frame, check: Check) -> Tensor:
    """Number of the primitive that each row of the drawables belongs to (a superquadric has a row per face)."""
    rows = [len(drawable_of(primitive, torch.float64)) for primitive in check.primitives]
    return torch.arange(len(rows)).repeat_interleave(torch.tensor(rows))


PLANES = ("color", "alpha", "features", "normal", "depth")


def _loss(planes: dict[str, Tensor]) -> Tensor:
    """Fixed weights of every plane that takes gradients."""
    total = torch.zeros((), dtype=torch.float64)
    for name in PLANES:
        if name in planes:
            value = planes[name].double().cpu().reshape(-1)
            total = total + (value * torch.linspace(0.7, -1.1, len(value) + 2)[: len(value)]).sum()
    return total


def gradient_error(frame: Frame, check: Check) -> tuple[float, str]:
    """Worst over the leaves of the scene, each relative to its own largest."""
    leaves = {"background": check.background}
    for k, primitive in enumerate(check.primitives):
        leaves |= {f"{k}.{name}": value for name, value in primitive.leaves.items()}
    want_planes = check.expected.planes
    got_planes = {name: getattr(frame, name)[0, 0] for name in PLANES if getattr(frame, name) is not None}
    of = [_loss(planes) for planes in (got_planes, want_planes)]
    values = list(leaves.values())
    got, want = (torch.autograd.grad(x, values, allow_unused=True, retain_graph=True) for x in of)
    worst = (0.0, "")
    for name, one, other, leaf in zip(leaves, got, want, values, strict=True):
        zero = torch.zeros_like(leaf)
        worst = max(worst, (relative(zero if one is None else one, zero if other is None else other), name))
    return worst


def rows_of(check: Check, modes: tuple[str, str], backend: Backend) -> Iterator[dict[str, Any]]:
    """One row for the picture, one for the gradients if they are checked."""
    with backend.choose():
        frame = backend.draw(check.primitives, check.background, check.settings)
        found = [("", picture_error(frame, check), IMAGE[backend.dtype])]
        if check.gradients:
            found.append((", gradients", gradient_error(frame, check), GRADIENT[backend.dtype]))
    for what, (error, where), tolerance in found:
        yield {
            **{"clause": check.clause + what, "first": modes[0], "second": modes[1], "backend": backend.name},
            **{"error": error, "tolerance": tolerance, "worst": where, "passed": error <= tolerance},
            "fallback": frame.visibility.fallback,
        }


def refusal(modes: tuple[str, str], backend: Backend) -> dict[str, Any]:
    """An additive box among others is refused by name."""
    pair = [replace(p, additive=p.mode == "box") for p in pair_at(PLACES["in front"], modes)]
    try:
        with backend.choose():
            backend.draw(pair, single(BACKGROUND), SETTINGS)
        text = "drawn"
    except ValueError as error:
        text = str(error)
    passed = "additive" in text
    return {
        **{"clause": "additive: refused among others", "first": modes[0], "second": modes[1], "backend": backend.name},
        **{"error": 0.0 if passed else math.inf, "tolerance": 0.0, "worst": text, "passed": passed, "fallback": 0.0},
    }


def table(
    of: Sequence[Backend], modes: Sequence[str] = MODES, every: bool = True, clauses: str = ""
) -> Iterator[dict[str, Any]]:
    """All rows for the ordered pairs of `modes`; `clauses`: only those that begin so."""
    for pair in itertools.product(modes, repeat=2):
        checks = [check for check in checks_of(pair, every) if check.clause.startswith(clauses)]
        for backend in of:
            for check in checks:
                yield from rows_of(check, pair, backend)
            if "box" in pair and pair != ("box", "box") and not clauses:
                yield refusal(pair, backend)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 if every row passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--backend", nargs="*", default=[], help="only backends whose name begins so")
    parser.add_argument("--mode", nargs="*", default=list(MODES), choices=MODES, help="only pairs of these")
    parser.add_argument("--clause", default="", help="only clauses that begin so")
    parser.add_argument("--all", action="store_true", help="print every row, not the worst of each clause")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="smalti-contract-") as folder:
        chosen = [
            backend
            for backend in backends(Path(folder))
            if not options.backend or backend.name.startswith(tuple(options.backend))
        ]
        rows = list(table(chosen, options.mode, clauses=options.clause))
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows, options.all)
    failed = sum(not row["passed"] for row in rows)
    print(f"{len(rows)} rows, {failed} failed", file=sys.stderr)
    return 1 if failed or not rows else 0


def _print(rows: list[dict[str, Any]], every: bool) -> None:
    """All that failed; of the others the worst per clause and backend."""
    shown = [row for row in rows if every or not row["passed"]]
    if not every:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["clause"], row["backend"]), []).append(row)
        shown += [max(group, key=lambda row: row["error"]) for group in groups.values()]
    for row in shown:
        pair = f"{row['first']}, {row['second']}"
        verdict = "ok" if row["passed"] else f"FAILED ({row['worst']})"
        print(
            f"{row['clause']:58} {pair:26} {row['backend']:17} {row['error']:8.1e} of {row['tolerance']:.0e} {verdict}"
        )


if __name__ == "__main__":
    sys.exit(main())

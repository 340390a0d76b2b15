"""Every analytic gradient against central differences in float64, per kind, mode, parameter and backend.

    python bench/gradients.py [--json] [--small] [--backend cpu emulator cuda]

EWA Gaussians alone have a compositor of their own; their rows are per output, too. Every kind and mode, alone and mixed
with every other kind, in both orders, camera and background included: `gradient_mix.py`. What has no gradient is a row
with a `reason`.

Differences mean something because the cut-off is smooth, rays never end early, and depths are too far apart for a step
to reorder them. A row passes when the largest difference is at most 1e-6 of the parameter group's largest gradient.
Pixels where almost nothing is drawn are set aside (their depth is a quotient of vanishing numbers), and so are those
next to the cap at 0.99, where alpha has a kink; their share is printed. The exit code is 1 if a row fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gradient_mix
import torch
from torch import Tensor

from smalti import Camera, Frame, GaussianDrawable, RenderSettings, render

STEP = 2e-6
"""Small, because the smooth cut-off has kinks in its second derivative; rounding costs about 1e-9."""
TOLERANCE = 1e-6
OUTPUTS = ("color", "alpha", "features", "depth")
CAMERA = ("rotation", "translation", "intrinsics")
SETTINGS = RenderSettings(depth=True, smooth_cutoff=True, transmittance_min=0.0)


@dataclass(frozen=True)
class Case:
    """One scene: options of its layers, and what is changed in every one."""

    mode: str
    options: dict[str, object]
    layers: int = 1

    @property
    def mixed_with(self) -> str:
        return "gaussian" if self.layers > 1 else "-"


CASES = (
    Case("plain", {"filter_variance": 0.3}),
    Case("compensated", {"filter_variance": 0.3, "compensated": True}),
    Case("plain+compensated", {}, layers=2),
)


def camera() -> Camera:
    """A little to the side; focal lengths that differ and a principal point off the centre."""
    position = torch.tensor([0.4, -0.3, -3.0], dtype=torch.float64)
    up = torch.tensor([0.1, -1.0, 0.0], dtype=torch.float64)
    view = Camera.look_at(position, torch.zeros_like(position), up, 0.8, (20, 14))
    return replace(view, intrinsics=torch.tensor([22.0, 25.0, 9.25, 7.5], dtype=torch.float64))


def layer(seed: int, depths: list[float], **options: object) -> GaussianDrawable:
    """Gaussians at these z around the axis; the last is a backdrop, one is beside the picture (its map is clamped)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n = len(depths)
    means = torch.cat([0.4 * normal(n, 2), torch.tensor(depths, dtype=torch.float64)[:, None]], dim=1)
    means[1, 0] = 2.2
    scales = 0.3 * torch.exp(0.3 * normal(n, 3))
    scales[1] = 0.8
    scales[-1] = 3.0
    return GaussianDrawable(
        means,
        normal(n, 4),
        scales,
        0.3 + 0.6 * torch.sigmoid(normal(n)),
        1.2 * normal(n, 3),
        0.3 * normal(n, 15, 3),
        3,
        normal(n, 2),
        **options,  # type: ignore[arg-type]
    )


def leaves_of(case: Case) -> dict[str, Tensor]:
    """All tensors of the scene by name; those of layers as `number.field`."""
    values: dict[str, Tensor] = {}
    for number, drawable in enumerate(layers_of(case)):
        for name in ("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features"):
            values[f"{number}.{name}"] = getattr(drawable, name)
    view = camera()
    values |= {name: getattr(view, name) for name in CAMERA}
    values["background"] = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def layers_of(case: Case) -> list[GaussianDrawable]:
    """One layer, or two whose depths interleave and whose filters differ."""
    if case.layers == 1:
        return [layer(1, [-0.9, 0.1, -0.3, 0.4, 1.5], **case.options)]
    return [layer(2, [-0.8, 0.0, 0.8, 1.6]), layer(3, [-0.4, 0.4, 1.2], filter_variance=0.1, compensated=True)]


def draw(case: Case, leaves: dict[str, Tensor], backend: str) -> Frame:
    drawables = []
    for number, drawable in enumerate(layers_of(case)):
        own = {k.split(".")[1]: v for k, v in leaves.items() if k.startswith(f"{number}.")}
        drawables.append(replace(drawable, **own))
    view = replace(camera(), **{name: leaves[name] for name in CAMERA})
    return render(drawables, view, background=leaves["background"], settings=SETTINGS, backend=backend)


def weights_of(frame: Frame) -> tuple[dict[str, Tensor], float]:
    """Random output cotangents, zero at the pixels set aside, and their share."""
    alpha = frame.alpha.detach()
    kept = alpha > 0.02
    # A kink of the cap can only lie where one event alone comes close to 0.99.
    kept &= (alpha - 0.99).abs() > 1e-5
    generator = torch.Generator().manual_seed(11)
    weights = {}
    for name in OUTPUTS:
        plane = getattr(frame, name)
        values = torch.randn(plane.shape, generator=generator, dtype=plane.dtype)
        weights[name] = values * (kept if plane.dim() == 2 else kept[..., None])
    return weights, float((~kept).double().mean())


def losses(frame: Frame, weights: dict[str, Tensor]) -> Tensor:
    return torch.stack([(getattr(frame, name) * weight).sum() for name, weight in weights.items()])


def differences(case: Case, leaves: dict[str, Tensor], backend: str, weights: dict[str, Tensor], entries: dict) -> dict:
    """d loss / d entry by central differences: per leaf [outputs, entries]."""
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, chosen in entries.items():
            flat = leaves[name].view(-1)
            columns = []
            for index in chosen.tolist():
                before = flat[index].item()
                sides = []
                for sign in (1, -1):
                    flat[index] = before + sign * STEP
                    sides.append(losses(draw(case, leaves, backend), weights))
                flat[index] = before
                columns.append((sides[0] - sides[1]) / (2 * STEP))
            found[name] = torch.stack(columns, dim=1)
    return found


def check(case: Case, backend: str, limit: int) -> Iterator[dict[str, object]]:
    """Rows of one case; `limit` entries per parameter, 0 for all."""
    leaves = leaves_of(case)
    frame = draw(case, leaves, backend)
    weights, share = weights_of(frame)
    values = losses(frame, weights)
    generator = torch.Generator().manual_seed(5)
    entries = {}
    for name, leaf in leaves.items():
        order = torch.randperm(leaf.numel(), generator=generator)
        entries[name] = order[:limit] if limit else order
    analytic: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for value in values:
        gradients = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            analytic[name].append(torch.zeros_like(leaf) if gradient is None else gradient)
    numeric = differences(case, leaves, backend, weights, entries)
    for name in leaves:
        for number, output in enumerate(OUTPUTS):
            exact = analytic[name][number].reshape(-1)
            difference = float((exact[entries[name]] - numeric[name][number]).abs().max())
            # Where a group has no influence at all, the difference itself must vanish.
            error = difference / (float(exact.abs().max()) or 1.0)
            yield {
                "kind": "gaussian",
                "mode": case.mode,
                "parameter": name,
                "output": output,
                "mixed_with": case.mixed_with,
                "backend": backend,
                "error": error,
                "passed": error <= TOLERANCE,
                "set_aside": share,
            }


def backends() -> list[str]:
    """Those that accept float64 here."""
    found = ["oracle"]
    if find_spec("smalti.renderers.engine.library") is not None:
        from smalti.renderers.engine import library

        found += ["cpu"] if "double" in library.available() else []
    return found


def mixed_rows(backend: str, small: bool) -> Iterator[dict[str, object]]:
    """Every kind, alone and mixed (`gradient_mix.py`)."""
    if backend != "emulator":
        yield from gradient_mix.table(backend, list(gradient_mix.mixes(small)))
        return
    from smalti.renderers.engine.emulator import Emulator

    # The kernels are compiled per set of kinds, which takes half a minute each: everything in one scene.
    with tempfile.TemporaryDirectory(prefix="smalti-gradients-") as folder, Emulator(Path(folder)).selected():
        yield from gradient_mix.table(backend, [gradient_mix.all_kinds()])


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 if every row passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--small", action="store_true", help="fewer scenes, and eight entries of every parameter")
    parser.add_argument(
        "--backend", nargs="*", default=["cpu"], help="of the mixed scenes: cpu, oracle, emulator, cuda"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [row for backend in backends() for case in CASES for row in check(case, backend, 8 if options.small else 0)]
    for backend in options.backend:
        rows += mixed_rows(backend, options.small)
    rows += gradient_mix.reasons()
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows)
    failed = sum(not row["passed"] for row in rows)
    aside = max(float(str(row["set_aside"])) for row in rows)
    print(f"{len(rows)} rows, {failed} failed; at most {aside:.1%} of a picture set aside", file=sys.stderr)
    return 1 if failed else 0


def _print(rows: list[dict[str, object]]) -> None:
    for row in rows:
        what = f"{row['kind']:12} {row['mode']!s:22} {row['parameter']!s:15} {row.get('output', row.get('order'))!s:9}"
        if "reason" in row:
            print(f"{row['kind']} {row['mode']}: {row['parameter']}: no gradient: {row['reason']}")
            continue
        verdict = "ok" if row["passed"] else "FAILED"
        print(
            f"{what} with {row['mixed_with']!s:12} {row['backend']:8} {row['error']:8.1e} "
            f"aside {row['set_aside']:.1e} {verdict}"
        )


if __name__ == "__main__":
    sys.exit(main())

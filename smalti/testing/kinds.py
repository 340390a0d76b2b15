"""The conformance suite of a kind from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import Drawable, GaussianDrawable, TriangleDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.outside import OutsideDrawable, OutsideKind, find_outside
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.testing.differences import difference, weighted
from smalti.testing.report import Report

Sample = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> parameters [n, P], float64: valid primitives, centres in [-1, 1]^3, radii of about 0.2 to 0.6."""
SIZE = (33, 25)
"""Pixels: neither is a multiple of a tile, a block, or of the other."""
GRADIENT, ASIDE = 1e-6, 1e-2
"""Limits of gradients against central differences in float64, and of the share that may be set aside."""
IMAGE_SINGLE, GRADIENT_SINGLE, PIXELS_SINGLE = 2e-5, 1e-3, 1e-2
"""Float32 against float64: relative errors, and the share of pixels where a decision may fall otherwise."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What the checks share: a kind, primitives of it, and the camera that looks at them."""

    kind: OutsideKind
    parameters: Tensor
    colors: Tensor
    camera: Camera
    settings: RenderSettings
    backend: str

    def drawable(
        self, rows: Sequence[int] | slice = slice(None), bound_scale: float = 1.0, origin_shift: float = 0.0
    ) -> OutsideDrawable:
        """Some of the primitives."""
        return OutsideDrawable(self.kind, self.parameters[rows], self.colors[rows], None, bound_scale, origin_shift)

    def draw(self, drawables: Sequence[Drawable], camera: Camera | None = None) -> Frame:
        """By the engine."""
        return render(drawables, camera or self.camera, settings=self.settings, backend=self.backend)


def check_kind(
    kind: OutsideKind | str, sample: Sample, *, seed: int = 0, backend: str = "cpu", raises: bool = True
) -> Report:
    """Hold a kind (or the one registered under a name) to what every kind must do; takes seconds, on the CPU (within
    `Emulator.selected()`, minutes with the CUDA kernels under the back end `emulator`).

    Gradients of every parameter, the colour and the camera against central differences in float64, alone and among
    Gaussians and triangles; float32 against float64; order along the ray; bounds; what must not matter (order of rows,
    batches, rows of the picture drawn apart, where on the ray the origin lies); behind the camera, around it, near
    plane, NaN; and the event against the kind's `reference`, if it has one. With `raises`, AssertionError where a check
    fails; else the report says so. EngineError where the header does not compile.
    """
    kind = find_outside(kind) if isinstance(kind, str) else kind
    generator = torch.Generator().manual_seed(seed)
    parameters = sample(6, generator).double()
    if tuple(parameters.shape) != (6, kind.width):
        raise ValueError(f"check_kind: sample(6, ...) gave shape {tuple(parameters.shape)}, not (6, {kind.width})")
    colors = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    eye, target, up = torch.tensor([[0.5, -0.6, -3.2], [0, 0, 0], [0.1, -1.0, 0.2]], dtype=torch.float64).unbind(0)
    camera = Camera.look_at(eye, target, up, 0.9, SIZE)
    stage = Stage(
        kind, parameters, colors, camera, RenderSettings(order="ray", depth=True, transmittance_min=0.0), backend
    )
    report = Report(f"kind {kind.name}")
    alpha = stage.draw([stage.drawable()]).alpha
    report.require("shows", bool(alpha.max() > 0.01), "the sample's primitives leave no trace in the picture")
    _check_gradients(report, stage)
    _check_single_precision(report, stage)
    _check_indifference(report, stage)
    _check_order(report, stage)
    _check_places(report, stage)
    _check_refused_rows(report, stage)
    if kind.reference is not None:
        _check_reference(report, stage)
    if raises:
        report.raise_failures()
    return report


def _check_gradients(report: Report, stage: Stage) -> None:
    kind, camera = stage.kind, stage.camera
    leaves = {"parameters": stage.parameters[:3], "colors": stage.colors[:3]}
    leaves |= {"rotation": camera.rotation, "translation": camera.translation, "intrinsics": camera.intrinsics}
    company: list[Drawable] = []
    near = [stage.settings.near]

    def draw(values: Mapping[str, Tensor]) -> Frame:
        pose = {name: values[name] for name in ("rotation", "translation", "intrinsics")}
        own = OutsideDrawable(kind, values["parameters"], values["colors"])
        settings = replace(stage.settings, near=near[0])
        return render([own, *company], replace(camera, **pose), settings=settings, backend=stage.backend)

    help = "is the event smooth where it counts, and are all its decisions made by Mask and select?"
    wanted = {f"parameter {name}": ("parameters", columns) for name, columns in kind.columns().items()}
    wanted |= {name: (name, None) for name in leaves if name != "parameters"}
    for title, (name, columns) in wanted.items():
        found = difference(draw, leaves, name, columns)
        report.note(f"gradient of {title}", found.error, GRADIENT, help)
        report.note(f"set aside of {title}", found.set_aside, ASIDE, "the picture jumps: an event begins with a step")
    for other in (_gaussians(), _triangles()):
        company[:] = [other]
        found = difference(draw, leaves, "parameters")
        report.note(f"gradient of parameters, with {other.kind}", found.error, GRADIENT, help)
    company.clear()
    near[0] = float((stage.parameters[:3, :3] @ camera.rotation[2] + camera.translation[2]).median())
    found = difference(draw, leaves, "parameters")
    report.note("gradient of parameters, near plane amid", found.error, GRADIENT, help)


def _check_single_precision(report: Report, stage: Stage) -> None:
    frames: list[Frame] = []
    gradients: list[Tensor] = []
    keep = torch.ones(SIZE[1], SIZE[0], dtype=torch.bool)
    for dtype in (torch.float64, torch.float32, torch.float64, torch.float32):
        parameters = stage.parameters.to(dtype, copy=True).requires_grad_(True)
        frame = stage.draw([OutsideDrawable(stage.kind, parameters, stage.colors.to(dtype))])
        frames.append(frame)
        if len(frames) == 2:
            planes = [torch.cat([f.color, f.alpha[..., None]], dim=-1).detach().double() for f in frames]
            keep = ((planes[1] - planes[0]).abs() <= IMAGE_SINGLE * max(float(planes[0].abs().max()), 1e-9)).all(-1)
        if len(frames) > 2:
            weights = torch.randn(keep.shape, generator=torch.Generator().manual_seed(3)) * keep
            (weighted(frame) * weights.to(dtype)).sum().backward()
            assert parameters.grad is not None
            gradients.append(parameters.grad.double())
    share = float((~keep).float().mean())
    report.note("float32 against float64: pixels that differ", share, PIXELS_SINGLE, "the event loses digits")
    for name, columns in stage.kind.columns().items():
        expected = gradients[0][:, columns]
        error = float((gradients[1][:, columns] - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
        report.note(f"float32 gradient of {name}", error, GRADIENT_SINGLE, "the event's derivative loses digits")


def _check_indifference(report: Report, stage: Stage) -> None:
    """What must not change the picture."""
    whole = stage.draw([stage.drawable()])

    def same(name: str, frame: Frame, help: str, rows: slice = slice(None)) -> None:
        assert frame.depth is not None
        assert whole.depth is not None
        error = float((frame.color - whole.color[rows]).abs().max())
        error = max(error, float((frame.depth * frame.alpha - (whole.depth * whole.alpha)[rows]).abs().max()))
        report.note(name, error, 1e-9, help)

    turned = [4, 2, 0, 5, 1, 3]
    same("rows in another order", stage.draw([stage.drawable(turned)]), "events depend on other rows")
    parts = [stage.drawable([0, 1]), stage.drawable([2, 3, 4, 5])]
    same("two batches", stage.draw(parts), "events depend on other rows")
    wide = stage.draw([stage.drawable(bound_scale=2.5)])
    same("a larger bound", wide, "events happen outside of the sphere of `radius`, or in front of it")
    for shift in (-1.0, 0.7):
        moved = stage.draw([stage.drawable(origin_shift=shift)])
        same(f"origin moved by {shift} radii", moved, "z must count from `origin`, which may be any point of the ray")
    fx, fy, cx, cy = stage.camera.intrinsics
    lower = replace(stage.camera, intrinsics=torch.stack([fx, fy, cx, cy - 7]), height=SIZE[1] - 7)
    same(
        "rows of the picture apart",
        stage.draw([stage.drawable()], lower),
        "events depend on other pixels",
        slice(7, None),
    )
    far = torch.tensor([10.0, -30.0, 5.0], dtype=torch.float64)
    parameters = torch.cat([stage.parameters[:, :3] + far, stage.parameters[:, 3:]], dim=1)
    camera = replace(stage.camera, translation=stage.camera.translation - stage.camera.rotation @ far)
    same(
        "elsewhere in the world",
        stage.draw([replace(stage.drawable(), parameters=parameters)], camera),
        "it depends on where it is",
    )


def _check_order(report: Report, stage: Stage) -> None:
    """The picture of all is that of each one alone, composited by depth (thin events; kinds.md section 1)."""
    if stage.kind.thick:
        return
    everything: list[Drawable] = [stage.drawable([k]) for k in range(len(stage.parameters))]
    everything += [_gaussians(slice(k, k + 1)) for k in range(3)] + [_triangles(slice(k, k + 1)) for k in range(2)]
    alone = [stage.draw([drawable]) for drawable in everything]
    together = stage.draw(everything)
    alpha = torch.stack([frame.alpha for frame in alone])
    depth = torch.stack([frame.depth for frame in alone if frame.depth is not None])
    order = depth.masked_fill(alpha == 0, torch.inf).argsort(dim=0, stable=True)
    alpha, color = alpha.gather(0, order), torch.stack([frame.color for frame in alone])
    color = color.gather(0, order[..., None].expand_as(color))
    passed = torch.cat([torch.ones_like(alpha[:1]), (1 - alpha).cumprod(0)[:-1]])
    error = float(((passed[..., None] * color).sum(0) - together.color).abs().max())
    overlap = int((alpha > 0).sum(0).max())
    report.require("primitives overlap", overlap >= 3, "the sample's primitives hardly overlap; make them larger")
    report.note(f"order of up to {overlap} events of all kinds", error, 1e-9, "z is not the event's distance")


def _check_places(report: Report, stage: Stage) -> None:
    """Behind the camera, around it, at the near plane: numbers stay numbers, and what is not seen feels nothing."""
    centre = stage.camera.centre
    back = stage.camera.rotation[2]
    settings = replace(stage.settings, near=0.3, statistics=True)
    for name, place in (("behind the camera", centre - 3 * back), ("around the camera", centre + 0 * back)):
        moved = torch.cat([0.4 * stage.parameters[:, :3] + place, stage.parameters[:, 3:]], dim=1).requires_grad_(True)
        frame = render(
            [OutsideDrawable(stage.kind, moved, stage.colors)], stage.camera, settings=settings, backend=stage.backend
        )
        weighted(frame).sum().backward()
        assert moved.grad is not None
        finite = bool(frame.color.isfinite().all()) and bool(moved.grad.isfinite().all())
        report.require(f"{name}: finite", finite, "NaN or Inf in the picture or a gradient; guard divisions and roots")
        if name.startswith("behind"):
            silent = float(frame.alpha.detach().max()) == 0 and float(moved.grad.abs().max()) == 0
            report.require(f"{name}: nothing", silent, "events behind the camera")
        assert frame.depth_first is not None
        hit = frame.ids["first"] >= 0
        report.require(f"{name}: near plane", bool((frame.depth_first[hit] >= 0.3 - 1e-9).all()), "events before near")


def _check_refused_rows(report: Report, stage: Stage) -> None:
    whole = stage.draw([stage.drawable([0, 2, 4])])
    spoilt = stage.parameters.clone()
    spoilt[1, -1], spoilt[3, 0], spoilt[5, 3 if stage.kind.width > 3 else 1] = torch.nan, torch.inf, torch.nan
    parameters = spoilt.requires_grad_(True)
    frame = stage.draw([OutsideDrawable(stage.kind, parameters, stage.colors)])
    frame.color.sum().backward()
    assert parameters.grad is not None
    report.require("NaN rows are counted", frame.visibility.skipped == 3, f"skipped {frame.visibility.skipped}, not 3")
    report.require("NaN rows do nothing", bool((frame.color == whole.color).all()), "rows reach one another")
    report.require("NaN rows feel nothing", bool((parameters.grad[1::2] == 0).all()), "a gradient at a skipped row")


def _check_reference(report: Report, stage: Stage) -> None:
    planes: list[Tensor] = []
    gradients: list[Tensor] = []
    for backend in ("oracle", stage.backend):
        parameters = stage.parameters.clone().requires_grad_(True)
        drawn = OutsideDrawable(stage.kind, parameters, stage.colors)
        frame = render([drawn], stage.camera, settings=stage.settings, backend=backend)
        plane = weighted(frame)
        (plane * torch.randn(plane.shape, generator=torch.Generator().manual_seed(5)).to(plane)).sum().backward()
        assert parameters.grad is not None
        planes.append(plane.detach())
        gradients.append(parameters.grad)
    error = float((planes[1] - planes[0]).abs().max())
    report.note("picture against the reference", error, 1e-9, "the header and the reference are two different events")
    error = float((gradients[1] - gradients[0]).abs().max()) / (float(gradients[0].abs().max()) or 1.0)
    report.note("gradient against the reference", error, GRADIENT, "the header and the reference differ")


def _gaussians(rows: slice = slice(None)) -> GaussianDrawable:
    generator = torch.Generator().manual_seed(21)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    means, turns, scales = draw(3, 3) - 0.5, draw(3, 4) + 0.1, 0.1 + 0.3 * draw(3, 3)
    opacities, colors = 0.4 + 0.4 * draw(3), draw(3, 3)
    return GaussianDrawable(means[rows], turns[rows], scales[rows], opacities[rows], colors[rows])


def _triangles(rows: slice = slice(None)) -> TriangleDrawable:
    generator = torch.Generator().manual_seed(22)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    corners, opacities, colors = 3 * draw(2, 3, 3) - 1.5, torch.full((2,), 0.6, dtype=torch.float64), draw(2, 3, 3)
    return TriangleDrawable(corners[rows], opacities[rows], colors[rows])

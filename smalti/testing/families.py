"""The conformance suite of a family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family, FamilyError, LossContext, Restructure, RowMap, family_names
from smalti.primitives.surface import icosphere
from smalti.primitives.topology import face_edges
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.testing.report import Report
from smalti.trainers.adam import Adam, AdamSettings

SIZE = (48, 40)
COUNT = 40
MOVED = 2e-3
"""Limit of a picture's difference after a similarity of world and camera alike (float32)."""
SHARED = 0.25
"""Limit of the relative change of a picture's alpha when primitives are shared into copies."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What the checks share."""

    kind: type[Family]
    metadata: Mapping[str, Any]
    positions: Tensor
    colors: Tensor
    camera: Camera

    def family(self) -> Family:
        """New primitives on the points, with all detail of colour in use."""
        family = self.kind.from_points(self.positions, self.colors, self.metadata)
        family.advance(3)
        return family

    def draw(self, family: Family, camera: Camera | None = None) -> Frame:
        """Its picture, alone."""
        camera = camera or self.camera
        settings = RenderSettings(order=family.default_order)
        return render(family.drawables(camera), camera, settings=settings)


def check_family(
    family: type[Family],
    *,
    metadata: Mapping[str, Any] | None = None,
    points: int = COUNT,
    seed: int = 0,
    raises: bool = True,
) -> Report:
    """Hold a family to what trainers, editors and files expect of every family; takes seconds, on the CPU.

    Its description, initialisers, measures, pictures and gradients, similarity, density operations with the optimiser's
    rows, a few steps of training, copies and saving. It starts from `points` points on a ball (40 or more; a surface
    needs thousands). With `raises`, AssertionError where a check fails.
    """
    generator = torch.Generator().manual_seed(seed)
    positions = 0.6 * torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    colors = torch.rand(points, 3, generator=generator)
    eye, target, up = torch.tensor([[0.4, -0.9, -2.6], [0, 0, 0], [0.0, -1.0, 0.0]]).unbind(0)
    camera = Camera.look_at(eye, target, up, 0.8, SIZE)
    stage = Stage(family, dict(metadata or {}), positions, colors, camera)
    report = Report(f"family {family.name}")
    with report.expecting("from_points", "there must be primitives to look at"):
        if len(stage.family()) == 0:
            raise ValueError(f"no primitives from {points} points")
    if report.failures:
        if raises:
            report.raise_failures()
        return report
    checks = [_check_description, _check_initialisers, _check_measures, _check_pictures, _check_similarity]
    checks += [check_parts, _check_training, _check_storage, *([_check_density] if family.grows else [])]
    for check in checks:
        with report.expecting(check.__name__.removeprefix("_").removeprefix("check_"), "this must not be raised"):
            check(report, stage)
    if raises:
        report.raise_failures()
    return report


def _check_description(report: Report, stage: Stage) -> None:
    kind = stage.kind
    report.require("name", kind.name.isidentifier() and kind.name == kind.name.lower(), "use lower case, digits and _")
    registered = kind.name in family_names()
    report.require("registered", registered, f"its package has no entry point {kind.name!r} in smalti.families")
    rates = kind.default_learning_rates()
    named = set(kind.position_parameters()) | set(kind.opacity_parameters()) | set(kind.optional_parameters())
    report.require("parameter names", named <= set(rates), f"{sorted(named - set(rates))} have no learning rate")
    report.require("learning rates", all(rate > 0 for rate in rates.values()), "all must be positive")
    plain = all(isinstance(value, bool | int | float | str) for value in kind.default_metadata().values())
    report.require("metadata are plain", plain, "only bool, int, float and str can be saved and configured")
    try:
        kind.checked_metadata({"no_such_thing": 1})
        report.require("unknown metadata", False, "checked_metadata must raise FamilyError for names it does not know")
    except FamilyError:
        report.require("unknown metadata", True, "")


def _check_initialisers(report: Report, stage: Stage) -> None:
    kind, generator = stage.kind, torch.Generator().manual_seed(1)
    bounds, ball = torch.tensor([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]]), icosphere(1)
    metadata = kind.checked_metadata(stage.metadata)
    made = {
        "from_points": stage.family(),
        "at_random": kind.at_random(bounds, 7, generator, metadata),
        "from_surface": kind.from_surface(ball, 9, generator, metadata),
        "from_family": kind.from_family(stage.family(), 5, generator, metadata),
    }
    for name, family in made.items():
        finite = all(bool(value.isfinite().all()) for value in family.parameters.values())
        report.require(name, len(family) > 0 and finite, "no primitives, or parameters that are not numbers")
    inside = bool(((made["at_random"].positions() >= bounds[0]) & (made["at_random"].positions() <= bounds[1])).all())
    report.require("at_random: inside", inside, "positions outside of the bounds")
    if kind.grows:
        places = made["from_points"].positions().detach()
        distance = (places[:, None] - stage.positions).norm(dim=2).amin(1).max()
        report.note("from_points: on the points", float(distance), 1e-4, "positions are not the points'")


def _check_measures(report: Report, stage: Stage) -> None:
    family, generator = stage.family(), torch.Generator().manual_seed(2)
    n, box = len(family), family.bounds()
    shapes = {"positions": (n, 3), "opacities": (n,), "bounds": (n, 2, 3), "volumes": (n,), "areas": (n,)}
    for name, shape in shapes.items():
        value = getattr(family, name)()
        good = tuple(value.shape) == shape and bool(value.isfinite().all())
        report.require(name, good, f"expected finite numbers of shape {shape}, got shape {tuple(value.shape)}")
    sizes, opacities = family.sizes(), family.opacities()
    report.require("sizes are lengths", sizes.shape[0] == n and bool((sizes > 0).all()), "some are not positive")
    report.require("opacities are shares", bool(((opacities >= 0) & (opacities <= 1)).all()), "some are outside 0..1")
    slack = 1e-4 * float((box[:, 1] - box[:, 0]).max())
    holds = ((family.positions() >= box[:, 0] - slack) & (family.positions() <= box[:, 1] + slack)).all()
    report.require("bounds hold positions", bool(holds), "boxes (low, high) must hold what is drawn")
    positions, colors = family.sample_points(50, generator)
    low, high = box[:, 0].amin(0) - slack, box[:, 1].amax(0) + slack
    inside = bool(((positions >= low) & (positions <= high)).all()) and tuple(positions.shape) == (50, 3)
    report.require("sample_points: positions", inside, "50 points inside of the bounds were expected")
    good = tuple(colors.shape) == (50, 3) and bool(((colors >= 0) & (colors <= 1)).all())
    report.require("sample_points: colours", good, "50 colours of 0..1 were expected")
    context = LossContext(1.0, generator)
    terms = {name: term() for name, term in family.regularizers(context).items()}
    scalar = all(value.dim() == 0 and bool(value.isfinite()) for value in terms.values())
    report.require("regularizers", scalar, "each must give one finite number")
    known = set(family.default_regularizers()) <= set(terms)
    report.require("default regularizers", known, "weights of terms that there are not")


def _check_pictures(report: Report, stage: Stage) -> None:
    family = stage.family()
    owners = family.owners()
    rows = sum(len(drawable) for drawable in family.drawables(stage.camera))
    expected = len(family) if owners is None else len(owners)
    report.require("rows drawn", rows == expected, f"{rows} drawn rows, but owners() says {expected}")
    frame = stage.draw(family)
    (frame.color * torch.rand(frame.color.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
    report.require(
        "shows", float(frame.alpha.detach().max()) > 0.01, "nothing is to be seen of 40 points in front of the camera"
    )
    report.require("none skipped", frame.visibility.skipped == 0, f"{frame.visibility.skipped} primitives are unusable")
    for name, value in family.parameters.items():
        felt = value.grad is not None and bool(value.grad.isfinite().all()) and bool((value.grad != 0).any())
        report.require(f"gradient of {name}", felt or value.numel() == 0, "it has no gradient, or one with NaN")
    box, inner = family.bounds(), torch.cat([value.detach().reshape(-1) for value in family.parameters.values()])
    corners = torch.stack([box[:, 0].amin(0), box[:, 1].amax(0)])
    shown = _reach(frame, stage.camera, corners)
    report.require("bounds hold the picture", shown and bool(inner.isfinite().all()), "it draws outside of bounds()")


def check_parts(report: Report, stage: Stage) -> None:
    """Of families whose primitives are solids of their own: each is closed, and apart they draw the same."""
    family = stage.family()
    rows = family.separate_parts()
    said = "separate_parts() gives rows exactly where part_noun is a word"
    report.require("part_noun", (rows is not None) == stage.kind.part_noun.isidentifier(), said)
    if rows is None:
        return
    expected = torch.arange(len(family))[torch.isin(torch.arange(len(family)), rows.cpu())]
    report.require(
        "parts: rows", torch.equal(rows.cpu(), expected), "expected rows of primitives, ascending, each once"
    )
    parts = [family.copy() for _ in rows]
    for part, row in zip(parts, rows, strict=True):
        part.rearrange(RowMap.keep(torch.arange(len(family), device=rows.device) == row))
    drawables = [drawable for part in parts for drawable in part.drawables(stage.camera)]
    together = render(drawables, stage.camera, settings=RenderSettings(order=family.default_order))
    distance = (together.color - stage.draw(family).color).detach().abs().max()
    report.note("parts: the same picture", float(distance), 2e-5, "apart they do not draw what they draw together")
    surfaces = [surface for part in parts if (surface := part.surface()) is not None]
    closed = all(bool((_faces_of_edges(surface.faces) == 2).all()) for surface in surfaces)
    report.require("parts: closed", closed, "the surface of a part has edges that do not have two faces")


def _faces_of_edges(faces: Tensor) -> Tensor:
    edges, place = face_edges(faces.cpu().long())
    return torch.bincount(place.reshape(-1), minlength=len(edges))


def _reach(frame: Frame, camera: Camera, corners: Tensor) -> bool:
    """Whether all that is seen lies in the projected box around everything, by a pixel."""
    points = torch.cartesian_prod(*corners.T) @ camera.rotation.T + camera.translation
    if float(points[:, 2].min()) <= 0:
        return True
    fx, fy, cx, cy = camera.intrinsics
    x, y = fx * points[:, 0] / points[:, 2] + cx, fy * points[:, 1] / points[:, 2] + cy
    rows, columns = (frame.alpha > 0.02).nonzero().unbind(1)
    across = (columns >= x.min() - 2) & (columns <= x.max() + 1)
    return bool((across & (rows >= y.min() - 2) & (rows <= y.max() + 1)).all())


def _check_similarity(report: Report, stage: Stage) -> None:
    family = stage.family()
    with torch.no_grad():
        for value in family.parameters.values():  # so that detail that depends on the direction is there
            value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(6))
    before = stage.draw(family)
    turn = matrix_from_quaternion(torch.tensor([[0.9, 0.2, -0.3, 0.5]], dtype=torch.float64))[0]
    similarity = Similarity(2.5, turn, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    volumes = family.volumes()
    family.transform(similarity)
    after = stage.draw(family, similarity.apply_camera(stage.camera))
    error = float((after.color - before.color).detach().abs().max())
    report.note("transform moves the picture along", error, MOVED, "transform must turn, scale and move all there is")
    error = float((family.volumes() - volumes * 2.5**3).abs().max()) / max(float(volumes.max()) * 2.5**3, 1e-12)
    report.note("transform scales volumes", error, 1e-3, "volumes grow with the cube of the scale")


def _check_density(report: Report, stage: Stage) -> None:
    generator, rows = torch.Generator().manual_seed(8), torch.tensor([1, 5, 7])
    stage = replace(stage, positions=stage.positions[:COUNT], colors=stage.colors[:COUNT])
    doomed = torch.zeros(COUNT, dtype=torch.bool)
    doomed[rows] = True
    changes = {
        "prune": (lambda family: family.prune(doomed), COUNT - 3),
        "clone": (lambda family: family.clone(rows), COUNT + 3),
        "split": (lambda family: family.split(rows, 2, generator), COUNT + 3),
        "relocate": (lambda family: family.relocate(torch.tensor([0, 2]), torch.tensor([1, 1])), COUNT),
        "multiply": (lambda family: family.multiply(torch.arange(COUNT)), 2 * COUNT),
    }
    for name, (change, count) in changes.items():
        family = stage.family()
        old = {key: value.detach().clone() for key, value in family.parameters.items()}
        before = stage.draw(family).alpha.detach()
        adam = Adam(AdamSettings())
        for key, value in family.parameters.items():
            adam.moments[key] = (value.detach().clone(), value.detach().square() + 1)
        done: Restructure = change(family)
        report.require(f"{name}: count", len(family) == count, f"{len(family)} primitives, not {count}")
        report.require(f"{name}: rows", _follows(done.primitives, count), "its RowMap does not fit the primitives")
        for key, value in family.parameters.items():
            adam.rearrange(key, done.parameters[key])
            kept = ~done.parameters[key].fresh
            same = adam.moments[key][0].shape == value.shape
            same = same and bool((value.detach()[kept] == adam.moments[key][0][kept]).all())
            report.require(f"{name}: moments of {key}", same, "optimiser rows part from the parameter's rows")
            report.require(f"{name}: {key} learns", value.requires_grad and value.is_leaf, "no leaf with a gradient")
        after = stage.draw(family).alpha.detach()
        if name == "clone":
            copied = all(bool((family.parameters[key][COUNT:] == old[key][rows]).all()) for key in old)
            report.require("clone: exact", copied, "a clone is an exact copy at the end")
        if name == "split":
            sizes = family.sizes().detach()
            smaller = float(sizes[COUNT - 3 :].mean()) < float(sizes[: COUNT - 3].mean())
            report.require("split: smaller", smaller, "the parts are not smaller than their parent")
        if name == "multiply":
            error = abs(float(after.mean() / before.mean()) - 1)
            report.note("multiply: draws what it drew", error, SHARED, "share_opacity must leave the picture as it is")
    family = stage.family()
    family.cap_opacities(0.05)
    report.require(
        "cap_opacities", float(family.opacities().detach().max()) <= 0.05 + 1e-5, "some are above the maximum"
    )
    family.perturb(1.0, generator)
    report.require("perturb", bool(family.positions().isfinite().all()), "positions are not numbers any more")


def _follows(rows: RowMap, count: int) -> bool:
    known = (rows.source >= 0) & (rows.source < COUNT)
    return len(rows.source) == len(rows.fresh) == count and bool(known.all())


def _check_training(report: Report, stage: Stage) -> None:
    """A few steps of Adam with the family's own rates towards a picture of other colours."""
    other = Stage(stage.kind, stage.metadata, 1.05 * stage.positions, stage.colors.flip(0), stage.camera)
    target = other.draw(other.family()).color.detach()
    family, adam = stage.family(), Adam(AdamSettings())
    family.require_gradients(True)
    losses: list[float] = []
    generator = torch.Generator().manual_seed(9)
    for step in range(25):
        family.begin_step(step / 25, generator)
        loss = (stage.draw(family).color - target).square().mean()
        losses.append(float(loss.detach()))
        loss.backward()
        adam.step(family.parameters, family.default_learning_rates())
        family.end_step()
        for value in family.parameters.values():
            value.grad = None
    ratio = losses[-1] / losses[0] if math.isfinite(losses[-1]) else math.nan
    report.note("training: loss after 25 steps, over its start", ratio, 0.95, "gradients or learning rates are off")


def _check_storage(report: Report, stage: Stage) -> None:
    family = stage.family()
    again = stage.kind(dict(family.parameters), dict(family.metadata), dict(family.constants))
    same = bool((stage.draw(again).color == stage.draw(family).color).all())
    report.require("made anew from its state", same, "parameters, metadata and constants are not all there is")
    copy = family.copy()
    with torch.no_grad():
        for value in copy.parameters.values():
            value.zero_()
    apart = any(bool((value != 0).any()) for value in family.parameters.values())
    report.require("copy is apart", apart, "a copy shares its tensors with the first")
    report.require("bytes", family.bytes > 0 and family.bytes_per_primitive > 0, "sizes must be positive")
    if stage.kind.name not in family_names():
        return
    import tempfile

    from smalti.scene.folder import load_scene, save_scene
    from smalti.scene.scene import Scene

    scene = Scene(order=stage.kind.default_order)
    scene.add("one", family)
    with tempfile.TemporaryDirectory() as folder:
        save_scene(scene, folder)
        loaded = load_scene(folder).layers["one"].family
    equal = all(torch.equal(loaded.parameters[key], value) for key, value in family.parameters.items())
    report.require("saved and loaded", equal and loaded.metadata == family.metadata, "something was lost")

"""Where a layer comes from: initialisers by name, each with settings of its own, over the family's own constructors.

Nothing here names a family: each says itself what it makes of points, of a surface, of a box of space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.similarity import Similarity
from smalti.configs.config import LayerConfig
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.hull_field import LEVEL, hull_field
from smalti.datasets.initial import one_instant
from smalti.datasets.world import World, find_world
from smalti.files import read_scene_file
from smalti.files.contents import SPLATS, contents_of
from smalti.primitives.family import Family, find_family
from smalti.primitives.surface import Surface, icosphere
from smalti.primitives.surface_nets import surface_nets
from smalti.primitives.topology import vertex_normals
from smalti.renderers.settings import RenderSettings
from smalti.scene.folder import is_scene
from smalti.scene.open_file import open_scene, splat_family
from smalti.trainers.residual import missing_points, residuals

ROOM = 1.3
"""Of what is put around the cameras, over the farthest of them."""
MOST_CELLS = 128
"""Cells of a grid along the longest side of the bounds."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What initialisers may build on."""

    dataset: Dataset
    """The training views."""
    positions: Float[Tensor, "n 3"]
    """Starting points as `data.points` gives them; none where a scene file is the start."""
    colors: Float[Tensor, "n 3"]
    generator: torch.Generator
    before: Sequence[Family] = ()
    """The layers that stand already, in order."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    settings: RenderSettings = field(default_factory=lambda: RenderSettings(order="ray", depth=True))
    """How they are drawn."""
    aligned: World | None = None
    """The capture's canonical frame, where it is known already."""
    notices: list[str] = field(default_factory=list)
    """What initialisers have to say: what a reader left out or altered, in sentences."""
    seed: int = 0
    """Of the run: the `initial_seed` of families that have one, where the layer does not say it."""

    def bounds(self, margin: float) -> Float[Tensor, "2 3"]:
        """The box of the middle 98 % of the points along each axis, larger by `margin` of its sides."""
        if len(self.positions) == 0:
            raise ConfigError("there are no points whose bounds could be filled; leave init_from out")
        low, high = np.quantile(self.positions.cpu().double().numpy(), [0.01, 0.99], axis=0)
        grown = np.maximum(high - low, 1e-3 * float(np.max(high - low)) + 1e-9) * (0.5 + margin)
        middle = 0.5 * (low + high)
        return torch.from_numpy(np.stack([middle - grown, middle + grown])).float()

    def world(self) -> World:
        """The capture's canonical frame: what `aligned` says, else found anew."""
        if self.aligned is not None:
            return self.aligned
        return find_world([view.camera for view in self.dataset.views], self.dataset.points)

    def color_near(self, positions: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """The colour of the nearest starting point."""
        found = [torch.cdist(part, self.positions.to(part)).argmin(1) for part in positions.split(256)]
        return self.colors[torch.cat(found)]


@dataclass(frozen=True, eq=False)
class Initializer:
    """One row of the table."""

    make: Callable[[type[Family], Mapping[str, Any], Ground, Mapping[str, Any]], Family]
    """(family, its metadata, ground, settings) -> primitives."""
    settings: Mapping[str, bool | int | float | str]
    """Names and defaults."""


def initial_family(layer: LayerConfig, ground: Ground) -> Family:
    """The primitives that a layer's configuration asks for. ConfigError for names and settings that do not exist,
    DatasetError where the data does not allow it, FamilyError for metadata.
    """
    where, settings = f"scene.{layer.name}", settings_of(layer)
    row, kind = INITIALIZERS[layer.initializer], find_family(layer.family)
    try:
        made = row.make(kind, metadata_of(layer, ground.seed), ground, settings)
    except ValueError as error:
        if type(error) is not ValueError and not isinstance(error, ConfigError):
            raise  # a DatasetError or a FamilyError says itself where it is from
        raise ConfigError(f"{where}: {error}") from None
    if len(made) == 0:
        raise ConfigError(
            f"{where}: {layer.initializer!r} made no primitives of family {layer.family!r} "
            f"({len(ground.positions)} points are there); start the layer from something else"
        )
    return made


def settings_of(layer: LayerConfig) -> dict[str, bool | int | float | str]:
    """Those of a layer's initialiser, its own over the defaults. ConfigError for names and types that do not exist."""
    where = f"scene.{layer.name}"
    if layer.initializer not in INITIALIZERS:
        hint = _hint(layer.initializer, INITIALIZERS)
        raise ConfigError(f"{where}.initializer: {layer.initializer!r} is not known; {hint}")
    settings = dict(INITIALIZERS[layer.initializer].settings)
    for name, value in layer.settings.items():
        if name not in settings:
            hint = _hint(name, settings) if settings else f"{layer.initializer!r} has none"
            raise ConfigError(f"{where}.settings: unknown setting {name!r}; {hint}")
        kind = type(settings[name])
        number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and kind(value) == value
        if not (isinstance(value, kind) if kind in (bool, str) else number):
            raise ConfigError(f"{where}.settings: {name} is of type {kind.__name__} and not negative, got {value!r}")
        settings[name] = kind(value)
    return settings


def metadata_of(layer: LayerConfig, seed: int) -> dict[str, Any]:
    """The family's, with the layer's own on top, and the run's seed as `initial_seed` where the family has one and the
    layer does not say it. FamilyError for what the family does not know.
    """
    kind = find_family(layer.family)
    seeded = {"initial_seed": seed} if "initial_seed" in kind.default_metadata() else {}
    return kind.checked_metadata({**seeded, **layer.metadata})


def _hint(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def _points(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    positions, colors, count = ground.positions, ground.colors, int(settings["count"])
    if 0 < count < len(positions):
        rows = torch.randperm(len(positions), generator=ground.generator)[:count].sort().values
        positions, colors = positions[rows], colors[rows]
    return family.from_points(positions, colors, metadata)


def _random(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    return family.at_random(ground.bounds(settings["margin"]), settings["count"], ground.generator, metadata)


def _world(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    """Made in the cube [-1, 1]^3 of the canonical frame, and carried to where the cameras are."""
    made = family.at_random(torch.tensor([[-1.0] * 3, [1.0] * 3]), settings["count"], ground.generator, metadata)
    made.transform(ground.world().input_from_canonical)
    return made


def _floor(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    """As `world`, with its middle at the height of the ground, where the capture tells it."""
    made, world = _world(family, metadata, ground, {"count": 1}), ground.world()
    if world.ground is not None:
        middle = world.canonical_from_input.apply(made.positions().detach()).mean(0)
        rise = (world.ground - float(middle[1])) * world.unit
        made.transform(Similarity(1.0, torch.eye(3), rise * torch.from_numpy(world.up)))
    return made


def _around(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    """As `world`, enlarged about its middle until it holds all cameras with room to spare: one that stood outside would
    see nothing else.
    """
    made, world = _world(family, metadata, ground, {"count": 1}), ground.world()
    bounds = made.bounds().detach().double()
    middle = bounds.mean(dim=1).mean(dim=0)
    centres = torch.stack([view.camera.centre.detach().double() for view in ground.dataset.views])
    needed = ROOM * float((centres - middle).norm(dim=1).max())
    inside = 0.5 * float((bounds[:, 1] - bounds[:, 0]).min())
    if needed > inside > 0:
        factor = needed / inside
        made.transform(Similarity(factor, torch.eye(3), (1.0 - factor) * middle))
        away = needed / (ROOM * world.unit)
        ground.notices.append(
            f"the cameras stand up to {away:.3g} units of the canonical frame away: what lies around them is made "
            f"{factor:.3g} times larger"
        )
    return made


def _grid(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    bounds = ground.bounds(settings["margin"])
    cells, edge = _cells(ground, bounds, int(settings["count"]), bool(settings["occupied"]))
    positions = bounds[0] + (cells.float() + 0.5) * edge
    return family.from_points(positions, ground.color_near(positions), metadata)


def _hull(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    return _on_surface(family, metadata, ground, hull_surface(one_instant(ground.dataset), settings["faces"]), settings)


def _missing(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    """Points where the layers before this one lack something."""
    views = residuals(one_instant(ground.dataset), ground.before, torch.tensor(ground.background), ground.settings)
    bounds = ground.bounds(settings["margin"])
    return family.from_points(*missing_points(views, bounds, settings["count"], ground.generator), metadata)


def hull_surface(dataset: Dataset, faces: int) -> Surface:
    """The visual hull of one instant as about `faces` coloured triangles. DatasetError where it cannot be made."""
    remedy = "Start the layer from something else (initializer: points, spheres)"
    try:
        field = hull_field(dataset, faces)
    except DatasetError as error:
        raise DatasetError(error.file, error.record, error.problem, remedy) from error
    surface = surface_nets(torch.from_numpy(field.values), LEVEL)
    if not len(surface.faces):
        problem = f"it is too thin for a surface of {faces} faces"
        raise DatasetError(dataset.root, "visual hull", problem, f"Ask for more faces. {remedy}")
    vertices = torch.from_numpy(field.origin) + field.edge * surface.vertices.double()
    colors = field.colors(vertices.numpy(), vertex_normals(vertices, surface.faces).numpy())
    return Surface(vertices.float(), surface.faces, torch.from_numpy(colors).float())


def _spheres(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    """One ellipsoid in the bounds, or spheres in the cells where the points are."""
    bounds, ball = ground.bounds(settings["margin"]), icosphere(settings["level"])
    if settings["count"] <= 1:
        centres, radii = bounds.mean(0, keepdim=True), 0.5 * (bounds[1:] - bounds[:1])
    else:
        cells, edge = _cells(ground, bounds, settings["count"], occupied=True)
        centres, radii = bounds[0] + (cells.float() + 0.5) * edge, torch.full((len(cells), 3), 0.5 * edge)
    vertices = (centres[:, None] + radii[:, None] * ball.vertices.float()).reshape(-1, 3)
    offsets = torch.arange(len(centres))[:, None, None] * len(ball.vertices)
    faces = (offsets + ball.faces).reshape(-1, 3)
    return _on_surface(family, metadata, ground, Surface(vertices, faces, ground.color_near(vertices)), settings)


def _file(family: type[Family], metadata: Mapping[str, Any], ground: Ground, settings: Mapping[str, Any]) -> Family:
    if not settings["path"]:
        raise ConfigError("settings: the initialiser 'file' needs the path of a scene file or folder")
    return layer_from_file(family, settings["path"], settings["layer"], ground.notices)


def _on_surface(
    family: type[Family], metadata: Mapping[str, Any], ground: Ground, surface: Surface, settings: Mapping[str, Any]
) -> Family:
    """The surface itself, or so many primitives on it."""
    if settings.get("primitives", 0):
        return family.from_surface(surface, settings["primitives"], ground.generator, metadata)
    assert surface.colors is not None
    return family.from_mesh(surface.vertices, surface.faces, surface.colors, metadata)


def _cells(
    ground: Ground, bounds: Float[Tensor, "2 3"], count: int, occupied: bool
) -> tuple[Int[Tensor, "k 3"], float]:
    """At most `count` cubes of a grid that begins at the low corner, as fine as may be, and their edge; with `occupied`
    only those that hold points. At least one.
    """
    sides = (bounds[1] - bounds[0]).double()
    inside = ((ground.positions > bounds[0]) & (ground.positions < bounds[1])).all(1)
    local = (ground.positions[inside] - bounds[0]).double()
    best: tuple[Tensor, float] | None = None
    for along in range(1, MOST_CELLS + 1):
        edge = float(sides.max()) / along
        if occupied:
            cells = torch.unique((local / edge).floor().long(), dim=0)
        else:
            axes = [torch.arange(max(1, round(float(side) / edge))) for side in sides]
            cells = torch.cartesian_prod(*axes).reshape(-1, 3)
        if best is not None and len(cells) > count:
            break
        best = (cells, edge)
    assert best is not None
    return best


INITIALIZERS: dict[str, Initializer] = {
    "points": Initializer(_points, {"count": 0}),
    "random": Initializer(_random, {"count": 1000, "margin": 0.1}),
    "world": Initializer(_world, {"count": 10}),
    "floor": Initializer(_floor, {}),
    "around": Initializer(_around, {}),
    "grid": Initializer(_grid, {"count": 64, "margin": 0.1, "occupied": False}),
    "missing": Initializer(_missing, {"count": 1000, "margin": 0.1}),
    "hull": Initializer(_hull, {"faces": 2000, "primitives": 0}),
    "spheres": Initializer(_spheres, {"count": 1, "level": 3, "margin": 0.1, "primitives": 0}),
    "file": Initializer(_file, {"path": "", "layer": ""}),
}
"""Name -> initialiser. A new one is one function and one row."""


def layer_from_file(
    family: type[Family], path: str | Path, layer: str = "", notices: list[str] | None = None
) -> Family:
    """The primitives of a file of splats, or of one layer (by default the only one) of a scene or a file of meshes or
    blocks, with the metadata that it states. `notices` takes what its reader says. ConfigError where it has no such
    layer, or one of another family.
    """
    if holds_splats(path):
        return splats_from_file(family, path, notices)[0]
    opened = open_scene(path)
    (notices if notices is not None else []).extend(f"{Path(path).name}: {text}" for text in opened.notices)
    scene = opened.scene.flattened()
    names = list(scene.layers)
    if not layer and len(names) != 1:
        raise ConfigError(f"{path}: which layer? It holds {', '.join(names)}")
    if layer and layer not in names:
        raise ConfigError(f"{path}: there is no layer {layer!r}; {_hint(layer, scene.layers)}")
    found = scene.layers[layer or names[0]].family
    if not isinstance(found, family):
        raise ConfigError(f"{path}: layer {layer or names[0]!r} is of family {found.name!r}, not {family.name!r}")
    return found


def holds_splats(path: str | Path) -> bool:
    """Whether a path is a file of splats and nothing else, as opposed to a scene and to meshes or blocks."""
    if is_scene(path):
        return False
    return Path(path).is_dir() or not Path(path).exists() or contents_of(path) == frozenset({SPLATS})


def splats_from_file(
    family: type[Family], path: str | Path, notices: list[str] | None = None
) -> tuple[Family, Literal["centre", "ray"]]:
    """The primitives of a scene file, with the metadata and the compositing order that it states. `notices` takes what
    its reader says.
    """
    splats = read_scene_file(path)
    (notices if notices is not None else []).extend(f"{Path(path).name}: {text}" for text in splats.notices)
    return splat_family(splats, family), "ray" if splats.metadata.order == "ray" else "centre"

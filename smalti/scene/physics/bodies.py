"""The rigid bodies of a scene: every block of a layer of superquadrics, every closed mesh."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family
from smalti.primitives.meshes import Meshes
from smalti.primitives.rows import RowMap
from smalti.primitives.superquadric_shape import surface_points, template
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import Surface
from smalti.scene.changes import shallow
from smalti.scene.physics.mass import MassProperties, convexity, mesh_mass, superquadric_mass
from smalti.scene.scene import Layer, Scene

SOLID = 0.5
"""Blocks above this opacity are bodies."""
CONVEX = 1e-3
"""Engines collide meshes by their convex hull; what lies deeper below it than this share of the size is noted."""

RESERVED = ("world", "floor")
"""Names that engines or the files give to something else."""
MOVING = " moving"
"""Behind a body's name: the layer of its part where it has been posed."""


@dataclass(frozen=True, eq=False)
class Body:
    """A rigid body and what of the scene moves with it. Lengths in scene units."""

    name: str
    """Of letters and digits that files and engines take; no two bodies share one, in whatever case."""
    layer: str
    part: Family
    """Its primitives, where the scene has them."""
    place: Similarity
    """scene_from_body: turns and moves, scale 1."""
    surface: Surface
    """Closed, in the body's own axes."""
    mass: MassProperties
    """In the body's own axes, density 1."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """What of a scene moves, and what stays."""

    moving: tuple[Body, ...]
    scene: Scene
    """Flattened; the layers of the bodies hold what is left of them."""
    notices: tuple[str, ...]
    """What an engine will not see as it is drawn, in sentences."""

    def posed(self, places: Sequence[Similarity]) -> Scene:
        """The scene with every body at its `scene_from_body`. The scene itself stays as it is."""
        if len(places) != len(self.moving):
            raise ValueError(f"posed: there are {len(self.moving)} bodies, but {len(places)} places")
        result = self.scene.like()
        for layer in self.scene:
            result.add(layer.name, layer.family, visible=layer.visible)
        for body, place in zip(self.moving, places, strict=True):
            part = body.part.copy()
            part.transform(place @ body.place.inverse)
            part.require_gradients(False)
            result.add(f"{body.name}{MOVING}", part)
        return result


def bodies_of(scene: Scene, names: Sequence[str] | None = None, level: int = 3) -> Bodies:
    """Of the visible layers (those in `names`): a body for each block of a layer of superquadrics with an opacity above
    one half, as a mesh of the icosphere's `level` and the smooth shape's mass; one for each layer that is a mesh.

    ValueError for a mesh that is not closed, for a layer of another family that was named, and where there is nothing.
    Without `names`, other families and open meshes stay where they are.

    >>> from smalti.scene import Scene
    >>> from smalti.primitives.meshes import Meshes
    >>> from smalti.scene.physics import bodies_of
    >>> scene = Scene()
    >>> layer = scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0))
    >>> [(body.name, round(body.mass.mass, 1)) for body in bodies_of(scene).moving]
    [('ball', 4.2)]
    """
    rest = scene.flattened()
    for name in names or ():
        if name not in rest.layers:
            raise ValueError(f"bodies: there is no layer {name!r}; there are {', '.join(rest.layers)}")
    moving: list[Body] = []
    notices: list[str] = []
    layers_of_parts = [name.removesuffix(MOVING) for name in rest.layers if name.endswith(MOVING)]
    taken = {name.casefold() for name in (*RESERVED, *layers_of_parts)}
    for held in list(rest):
        if not (held.visible if names is None else held.name in names) or not len(held.family):
            continue
        made = [_with_free_name(body, taken) for body in _made(held, level, named=names is not None)]
        moving += made
        notices += [notice for body in made if (notice := _hull_notice(body))]
        _take_out(rest, held, made)
    if not moving:
        raise ValueError("bodies: there is no block and no closed mesh; convert a layer to meshes first")
    return Bodies(tuple(moving), rest, tuple(notices))


def _made(held: Layer, level: int, named: bool) -> list[Body]:
    if isinstance(held.family, Superquadrics):
        return _blocks(held.name, held.family, level)
    if not isinstance(held.family, Meshes):
        if named:
            raise ValueError(
                f"bodies: layer {held.name!r} is of family {held.family.name!r}, which has no solid shape; "
                "convert it to meshes (smalti.scene.conversions)"
            )
        return []
    surface = held.family.surface()
    try:
        mass = mesh_mass(surface)
    except ValueError as error:
        if named:
            raise ValueError(f"bodies: layer {held.name!r}: {error}") from error
        return []
    centre = mass.centre.to(surface.vertices)
    local = Surface((surface.vertices - centre).detach().cpu(), surface.faces.cpu())
    mass = MassProperties(mass.mass, torch.zeros(3, dtype=torch.float64), mass.inertia)
    place = Similarity(translation=centre.detach().double().cpu())
    return [Body(_plain(held.name), held.name, held.family, place, local, mass)]


@torch.no_grad()
def _blocks(name: str, family: Superquadrics, level: int) -> list[Body]:
    shape, bodies = template(level), list[Body]()
    directions, exponents = shape.directions, family.exponents().detach().double().cpu()
    sizes, axes = family.sizes().detach().double().cpu(), _orthonormal(family.axes().detach().double().cpu())
    centres = family.positions().detach().double().cpu()
    for row in torch.nonzero(family.opacities().cpu() > SOLID).squeeze(1).tolist():
        part = shallow(family)
        part.rearrange(RowMap.keep(torch.arange(len(family), device=family.device) == row))
        vertices = surface_points(directions, exponents[row, None])[0] * sizes[row]
        place = Similarity(rotation=axes[row], translation=centres[row])
        surface = Surface(vertices.float(), shape.faces)
        mass = superquadric_mass(exponents[row], sizes[row])
        bodies.append(Body(f"{_plain(name)}-{row}", name, part, place, surface, mass))
    return bodies


def _orthonormal(frames: Tensor) -> Tensor:
    """In double precision what was orthonormal in single."""
    left, _, right = torch.linalg.svd(frames)
    return left @ right


def _take_out(scene: Scene, held: Layer, bodies: Sequence[Body]) -> None:
    """Leave in the scene what of the layer is no body."""
    if not bodies:
        return
    if not isinstance(held.family, Superquadrics):
        del scene.layers[held.name]
        return
    left = RowMap.keep(held.family.opacities().detach() <= SOLID)
    if len(left.source):
        held.family.rearrange(left)
    else:
        del scene.layers[held.name]


def _hull_notice(body: Body) -> str:
    deep = convexity(body.surface)
    if deep <= CONVEX:
        return ""
    return f"{body.name} is not convex (by {deep:.0%} of its size); engines collide its convex hull"


def _with_free_name(body: Body, taken: set[str]) -> Body:
    """With a number behind its name where that is taken; `taken` grows."""
    name, number = body.name, 2
    while name.casefold() in taken:
        name, number = f"{body.name}-{number}", number + 1
    taken.add(name.casefold())
    return replace(body, name=name)


def _plain(name: str) -> str:
    """A name that XML, files and engines take."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)

"""From one family to another, with the image error that it costs; and the same as an edit of a scene.

Which way is taken follows from what the source draws and from the target, in the order of `ROUTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from smalti.cameras.camera import Camera
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import Family, find_family
from smalti.primitives.meshes import Meshes
from smalti.primitives.splats import OpacitySplats
from smalti.scene.changes import EditError
from smalti.scene.conversions.errors import ImageError, image_error
from smalti.scene.conversions.fitting import fit_to
from smalti.scene.conversions.fusion import Fusion, fused_mesh
from smalti.scene.conversions.sources import Source, cameras_around, extent, families, pictures
from smalti.scene.conversions.splats import AxisChange, SurfaceSampling, on_triangles, with_axes
from smalti.scene.conversions.triangles import drawn_triangles, mesh_of
from smalti.scene.conversions.voxels import Voxelization, voxelized
from smalti.scene.history import Added, Removed
from smalti.scene.scene import Scene
from smalti.scene.selection import named


@dataclass(frozen=True, eq=False)
class Conversion:
    """A converted family and what it cost."""

    family: Family
    error: ImageError
    route: str
    """How it was made, a name of `ROUTES`."""

    def __str__(self) -> str:
        return f"{self.route} -> {len(self.family)} {self.family.name}: {self.error}"


@dataclass(frozen=True)
class NoSettings:
    """Of an exact conversion."""


@dataclass(frozen=True, eq=False)
class Route:
    """A way to a target."""

    name: str
    target: type[Family]
    """The class of what it makes, or one above it."""
    fits: Callable[[Family | None], bool]
    """Whether it can take this family; None stands for several layers."""
    settings: type[Any]
    make: Callable[[Source, type[Family], Sequence[Camera], Any], Family]
    """Of source, target, cameras to look from, and settings."""


def convert(
    source: Source,
    to: str,
    cameras: Sequence[Camera] | None = None,
    measured: Sequence[Camera] | None = None,
    **settings: Any,
) -> Conversion:
    """A family, or what is visible of a scene, as a family named `to`, and how far its pictures are from the original.

    `cameras` are looked from where the way goes through pictures (24 around the source by default); the error is
    measured from `measured`, else from `cameras`, and by default from 12 others in between. `settings` are those of
    the way taken (`route_for(...).settings`), each with a default. Not differentiable. ValueError where there is no
    way, for an unknown setting, and where there is nothing to see.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.conversions import convert
    >>> result = convert(demo_scene()["chair"].family, "surfels")
    >>> len(result.family), result.route, result.error.psnr > 20
    (8, 'axes', True)
    """
    kind = find_family(to)
    several = len(families(source)) > 1
    whole = source if several else families(source)[0] if families(source) else None
    if whole is None:
        raise ValueError("convert: there is nothing to convert; no visible layer has a primitive")
    route = route_for(None if several else cast(Family, whole), to)
    options = _options(route, settings)
    if cameras is not None and not len(cameras):
        raise ValueError("convert: expected at least one camera; leave `cameras` out for some around the source")
    held_out = measured is not None or cameras is None
    if cameras is None:
        bounds = extent(whole)
        cameras = cameras_around(bounds)
        measured = cameras_around(bounds, 12, turn=0.5) if measured is None else measured
    made = route.make(whole, kind, cameras, options)
    steps = int(getattr(options, "steps", 0))
    if steps and route.name != "voxels":  # which fits its boxes itself
        fit_to(made, pictures(whole, cameras), steps)
    return Conversion(made, image_error(whole, made, measured or cameras, held_out=held_out), route.name)


def convert_layer(
    scene: Scene, name: str, to: str, cameras: Sequence[Camera] | None = None, **settings: Any
) -> Conversion:
    """`convert` a layer in its place, as one edit that can be undone. Cameras stand in the scene.

    The layer keeps its name, place, visibility and similarity; the scene keeps its order. EditError where the layer is
    locked; else as `convert`.

    >>> from smalti.scene import convert_layer, demo_scene
    >>> scene = demo_scene()
    >>> done = convert_layer(scene, "chair", "surfels")
    >>> scene["chair"].family.name, scene.undo(), scene["chair"].family.name
    ('surfels', 'convert', 'gaussians')
    """
    from smalti.scene.scene import Layer

    held = named(scene, name)
    if held.locked:
        raise EditError(f"convert: layer {name!r} is locked; set scene[{name!r}].locked = False first")
    if not len(held.family):
        raise EditError(f"convert: layer {name!r} is empty")
    layer_from_scene = held.similarity.inverse
    seen = None if cameras is None else [layer_from_scene.apply_camera(camera) for camera in cameras]
    kind = find_family(to)
    for other in scene:
        if other is not held and isinstance(other.family, kind):  # what all layers of one picture have to share
            scale = other.similarity.scale / held.similarity.scale
            known = {field.name for field in fields(route_for(held.family, to).settings)}
            for key in set(kind.common_metadata()) & known:
                settings.setdefault(key, float(other.family.metadata[key]) * scale)
    result = convert(held.family, to, seen, **settings)
    place = list(scene.layers).index(name)
    layer = Layer(name, result.family, held.visible, held.locked, held.similarity)
    scene.history.perform(scene, "convert", [Removed(held, place), Added(layer, place)])
    return result


def route_for(source: Family | None, to: str) -> Route:
    """The way from a family (None: several layers) to the family named `to`; ValueError where there is none.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.conversions import route_for
    >>> route_for(demo_scene()["chair"].family, "meshes").name
    'fusion'
    """
    kind = find_family(to)
    if source is not None and type(source) is kind:
        return ROUTES[0]
    for route in ROUTES[1:]:
        if issubclass(kind, route.target) and route.fits(source):
            return route
    possible = sorted({word for word in TARGETS if issubclass(find_family(word), tuple(r.target for r in ROUTES[1:]))})
    raise ValueError(f"convert: there is no way to the family {to!r}; there are ways to {', '.join(possible)}")


def _options(route: Route, settings: dict[str, Any]) -> Any:
    known = [field.name for field in fields(route.settings)]
    for name in settings:
        if name not in known:
            offered = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"convert: the way {route.name!r} has no setting {name!r}; {offered}")
    return route.settings(**settings)


def _draws_triangles(source: Family | None) -> bool:
    return source is not None and drawn_triangles(source) is not None


def _mesh(source: Source, kind: type[Family], cameras: Sequence[Camera], options: Any) -> Family:
    family = cast(Family, source)
    drawn = drawn_triangles(family)
    assert drawn is not None
    return mesh_of(family, drawn)


def _flat_splats(source: Source, kind: type[Family], cameras: Sequence[Camera], options: Any) -> Family:
    drawn = drawn_triangles(cast(Family, source))
    assert drawn is not None
    return on_triangles(drawn, cast(type[OpacitySplats], kind), options)


def _fused_splats(source: Source, kind: type[Family], cameras: Sequence[Camera], options: Any) -> Family:
    mesh = fused_mesh(source, cameras, Fusion(smooth=3))
    drawn = drawn_triangles(mesh)
    assert drawn is not None
    return on_triangles(drawn, cast(type[OpacitySplats], kind), options)


ROUTES: tuple[Route, ...] = (
    Route("copy", Family, lambda source: True, NoSettings, lambda source, *_: cast(Family, source).copy()),
    Route("triangles", Meshes, _draws_triangles, NoSettings, _mesh),
    Route("fusion", Meshes, lambda source: True, Fusion, lambda source, _, seen, how: fused_mesh(source, seen, how)),
    Route(
        *("axes", OpacitySplats, lambda source: isinstance(source, OpacitySplats), AxisChange),
        lambda source, kind, _, how: with_axes(cast(OpacitySplats, source), cast(type[OpacitySplats], kind), how),
    ),
    Route("surface", OpacitySplats, _draws_triangles, SurfaceSampling, _flat_splats),
    Route("fused surface", OpacitySplats, lambda source: True, SurfaceSampling, _fused_splats),
    Route(
        *("voxels", Boxes, lambda source: True, Voxelization),
        lambda source, _, seen, how: voxelized(source, pictures(source, seen), how),
    ),
)
"""In the order in which they are tried.

copy: the family itself. triangles: the drawn triangles as they are. fusion: a mesh from rendered depth. axes: the same
splats with two axes or three. surface: flat splats on the drawn triangles. fused surface: the same on a fused mesh.
voxels: boxes, splatted and fitted.
"""
TARGETS = ("boxes", "gaussians", "meshes", "ray_gaussians", "surfels")

"""A scene's bodies as folders for physics engines: MJCF (MuJoCo) and URDF (PyBullet, Drake, Isaac), meshes as OBJ.

Lengths in the files are metres, masses kilograms, inertias kg m^2 about the centre of mass; axes are the scene's. Every
body carries its mass properties explicitly, so that no engine needs to guess them from the mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix
from smalti.cameras.similarity import Similarity
from smalti.primitives.surface import Surface, tangent_frames
from smalti.scene.physics.bodies import Bodies, Body, bodies_of
from smalti.scene.physics.mass import MassProperties
from smalti.scene.scene import Scene

GRAVITY = 9.81


@dataclass(frozen=True)
class World:
    """What a scene does not say about its physics."""

    density: float = 1000.0
    """Of all bodies, kg per cubic metre."""
    metres: float = 1.0
    """Of one scene unit."""
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)
    """In the scene; gravity points the other way. The default is that of data sets whose y axis points down."""
    floor: float | None = None
    """Height of a floor along `up`, scene units; None: none. (MJCF alone.)"""
    friction: float = 0.8
    """Sliding coefficient of all surfaces."""
    level: int = 3
    """Of the icosphere that blocks are written as."""

    def __post_init__(self) -> None:
        if not (self.density > 0 and self.metres > 0 and math.hypot(*self.up) > 0 and self.friction >= 0):
            raise ValueError("World: density, metres and the length of up must be positive, friction not negative")

    @property
    def upwards(self) -> Float[Tensor, "3"]:
        """Unit vector."""
        return torch.nn.functional.normalize(torch.tensor(self.up, dtype=torch.float64), dim=0)


@dataclass(frozen=True, eq=False)
class Exported:
    """What was written, and how it moves the scene."""

    path: Path
    """The MJCF file, or the folder of URDF files."""
    bodies: Bodies
    world: World

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bodies, as in the files, in order."""
        return tuple(body.name for body in self.bodies.moving)

    @property
    def notices(self) -> tuple[str, ...]:
        """What an engine will not see as it is drawn, in sentences."""
        return self.bodies.notices

    def posed(self, positions: Float[Tensor, "n 3"], quaternions: Float[Tensor, "n 4"]) -> Scene:
        """The scene with its bodies where an engine says: positions of the bodies' frames in metres, quaternions
        (w, x, y, z), in the order of `names`.
        """
        turns = matrix_from_quaternion(torch.nn.functional.normalize(quaternions.double(), dim=1))
        moves = positions.double() / self.world.metres
        return self.bodies.posed(
            [Similarity(rotation=turn, translation=move) for turn, move in zip(turns, moves, strict=True)]
        )


def to_mjcf(
    scene: Scene, folder: Path | str, world: World | None = None, names: Sequence[str] | None = None
) -> Exported:
    """Write `scene.xml` and one OBJ per body into `folder`: every body free, a floor where the world has one.

    Which layers become bodies: `bodies_of`, whose errors these are.

    >>> import tempfile
    >>> from smalti.primitives.meshes import Meshes
    >>> from smalti.scene import Scene
    >>> from smalti.scene.physics import World, to_mjcf
    >>> scene = Scene()
    >>> layer = scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_mjcf(scene, folder, World(floor=-1.0)).names
    ('ball',)
    """
    world = world or World()
    bodies, folder = bodies_of(scene, names, world.level), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    root = ElementTree.Element("mujoco", model="smalti")
    ElementTree.SubElement(root, "compiler", angle="radian", autolimits="true")
    options = {"gravity": _words(-GRAVITY * world.upwards), "timestep": "0.002", "integrator": "implicitfast"}
    ElementTree.SubElement(ElementTree.SubElement(root, "option", options), "flag", energy="enable")
    defaults = ElementTree.SubElement(root, "default")
    ElementTree.SubElement(defaults, "geom", friction=f"{world.friction:g} 0.005 0.0001")
    assets, space = ElementTree.SubElement(root, "asset"), ElementTree.SubElement(root, "worldbody")
    if world.floor is not None:
        frame = quaternion_from_matrix(tangent_frames(world.upwards[None]))[0]
        place = world.floor * world.metres * world.upwards
        floor = {"name": "floor", "type": "plane", "size": "0 0 1", "pos": _words(place), "quat": _words(frame)}
        ElementTree.SubElement(space, "geom", floor)
    for body in bodies.moving:
        _write_obj(folder / f"{body.name}.obj", body.surface, world.metres)
        ElementTree.SubElement(assets, "mesh", name=body.name, file=f"{body.name}.obj")
        pose = {"pos": _words(body.place.translation * world.metres), "quat": _words(_quaternion(body))}
        node = ElementTree.SubElement(space, "body", {"name": body.name, **pose})
        ElementTree.SubElement(node, "freejoint", name=body.name)
        mass = body.mass.scaled(world.density, world.metres)
        ElementTree.SubElement(
            *(node, "inertial"), pos=_words(mass.centre), mass=repr(mass.mass), fullinertia=_words(_six(mass))
        )
        ElementTree.SubElement(node, "geom", name=body.name, type="mesh", mesh=body.name)
    path = folder / "scene.xml"
    _write_xml(path, root)
    return Exported(path, bodies, world)


def to_urdf(
    scene: Scene, folder: Path | str, world: World | None = None, names: Sequence[str] | None = None
) -> Exported:
    """Write a URDF file and an OBJ per body into `folder`: each is a robot of one link, to be loaded at the pose that
    `Exported.bodies` holds (a URDF has no free bodies of several; `floor`, friction and gravity are the engine's).

    >>> import tempfile
    >>> from pathlib import Path
    >>> from smalti.primitives.meshes import Meshes
    >>> from smalti.scene import Scene
    >>> from smalti.scene.physics import to_urdf
    >>> scene = Scene()
    >>> layer = scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = to_urdf(scene, folder)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['ball.obj', 'ball.urdf']
    """
    world = world or World()
    bodies, folder = bodies_of(scene, names, world.level), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for body in bodies.moving:
        _write_obj(folder / f"{body.name}.obj", body.surface, world.metres)
        root = ElementTree.Element("robot", name=body.name)
        link = ElementTree.SubElement(root, "link", name=body.name)
        mass = body.mass.scaled(world.density, world.metres)
        inertial = ElementTree.SubElement(link, "inertial")
        ElementTree.SubElement(inertial, "origin", xyz=_words(mass.centre), rpy="0 0 0")
        ElementTree.SubElement(inertial, "mass", value=repr(mass.mass))
        named = zip(("ixx", "iyy", "izz", "ixy", "ixz", "iyz"), _six(mass).tolist(), strict=True)
        ElementTree.SubElement(inertial, "inertia", {key: repr(value) for key, value in named})
        for use in ("visual", "collision"):
            geometry = ElementTree.SubElement(ElementTree.SubElement(link, use), "geometry")
            ElementTree.SubElement(geometry, "mesh", filename=f"{body.name}.obj")
        _write_xml(folder / f"{body.name}.urdf", root)
    return Exported(folder, bodies, world)


def _quaternion(body: Body) -> Float[Tensor, "4"]:
    return quaternion_from_matrix(body.place.rotation.double())


def _six(mass: MassProperties) -> Float[Tensor, "6"]:
    """xx, yy, zz, xy, xz, yz."""
    return mass.inertia[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def _words(values: Tensor) -> str:
    return " ".join(repr(value) for value in values.double().tolist())


def _write_xml(path: Path, root: ElementTree.Element) -> None:
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _write_obj(path: Path, surface: Surface, metres: float) -> None:
    points = (surface.vertices.double() * metres).tolist()
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in points]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in surface.faces.tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

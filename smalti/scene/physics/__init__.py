"""Blocks and closed meshes of a scene as rigid bodies (`docs/converting-families.md`, section on physics)."""

from smalti.scene.physics.bodies import Bodies, Body, bodies_of
from smalti.scene.physics.export import Exported, World, to_mjcf, to_urdf
from smalti.scene.physics.mass import MassProperties, mesh_mass, superquadric_mass
from smalti.scene.physics.simulate import Motion, simulate

__all__ = [
    "Bodies",
    "Body",
    "Exported",
    "MassProperties",
    "Motion",
    "World",
    "bodies_of",
    "mesh_mass",
    "simulate",
    "superquadric_mass",
    "to_mjcf",
    "to_urdf",
]

"""PyTorch3D: cameras, meshes with textures, both ways, and what its soft rasteriser's settings are here.

What comes from there is read by its documented attributes and methods (release 0.7); what goes there is made by its
constructors, or handed out as their keyword arguments, for which the package is not needed.
"""

from smalti.bridges.pytorch3d.cameras import camera_arguments, from_cameras, to_cameras
from smalti.bridges.pytorch3d.meshes import from_meshes, mesh_arguments, to_meshes
from smalti.bridges.pytorch3d.rasterizer import SoftRasterizer, from_raster_settings

__all__ = [
    "SoftRasterizer",
    "camera_arguments",
    "from_cameras",
    "from_meshes",
    "from_raster_settings",
    "mesh_arguments",
    "to_cameras",
    "to_meshes",
]

"""Mitsuba 3: cameras, meshes and Gaussians as what `mitsuba.load_dict` takes. One way: there is nothing to read back.

Choose a variant first (`mitsuba.set_variant("llvm_ad_rgb")`). Mitsuba works in linear light, so colours, which are the
display's here, are made linear at the edge and interpolated as such; its pictures are display-encoded again where they
are written with 8 bits.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from smalti.bridges import BridgeUnavailable, package
from smalti.bridges.plain import mesh_of, warn
from smalti.cameras.camera import Camera
from smalti.files.mesh import MeshFile, unshared_corners
from smalti.files.mesh_files import goes_around
from smalti.primitives.family import Family
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.ray_gaussians import RayGaussians
from smalti.primitives.splats import OpacitySplats
from smalti.scene.scene import Scene

EXTENT = math.sqrt(2 * math.log(255))
"""Standard deviations at which an opaque Gaussian falls to 1/255: where ours end."""
Look = Literal["emissive", "diffuse"]


def to_sensor(camera: Camera, samples: int = 16) -> dict[str, Any]:
    """A `perspective` sensor with a film of the camera's size, box-filtered; its pictures are ours, pixel by pixel.

    Raises ValueError for lenses other than pinholes, and for pixels that are not square (to 1e-4).
    """
    if camera.model != "PINHOLE" or any(camera.distortion):
        raise ValueError(f"to_sensor: expected a pinhole camera, got {camera.model}; undistort first (smalti.cameras)")
    fx, fy, cx, cy = camera.intrinsics.detach().double().tolist()
    if abs(fx - fy) > 1e-4 * fx:
        height = round(camera.height * fx / fy)
        raise ValueError(
            f"to_sensor: Mitsuba's pixels are square, but fx is {fx:.6g} and fy {fy:.6g}; draw "
            f"camera.scaled_to({camera.width}, {height}) instead"
        )
    pose = camera.world_from_camera.detach().double().numpy() @ np.diag([-1.0, -1.0, 1.0, 1.0])  # x left, y up
    film = {"type": "hdrfilm", "width": camera.width, "height": camera.height, "rfilter": {"type": "box"}}
    return {
        "type": "perspective",
        "to_world": _mitsuba().ScalarTransform4f(pose),
        "fov": math.degrees(2 * math.atan(0.5 * camera.width / fx)),
        "fov_axis": "x",
        "principal_point_offset_x": 0.5 - cx / camera.width,
        "principal_point_offset_y": 0.5 - cy / camera.height,
        "film": {**film, "pixel_format": "rgba", "component_format": "float32"},
        "sampler": {"type": "independent", "sample_count": samples},
    }


def to_ellipsoids(family: Family) -> dict[str, Any]:
    """An `ellipsoids` shape for the integrator `volprim_rf_basic`, of `gaussians` or `ray_gaussians` (maximum).

    There the response on the ray counts, as in ours of `ray_gaussians`; EWA's screen filter has no counterpart. Colour
    is taken in the ray's direction, not the centre's; Gaussians are ordered by where the ray enters them, not by where
    they peak; and an opacity ends at 0.9999, not 0.99. Raises ValueError for other families.
    """
    integral = family.metadata.get("response") == "integral"
    if not isinstance(family, OpacitySplats) or not isinstance(family, (Gaussians, RayGaussians)) or integral:
        which = f"{family.name!r} of response 'integral'" if integral else repr(family.name)
        raise ValueError(f"to_ellipsoids: expected gaussians or ray_gaussians of response 'maximum', got {which}")
    drawn, count = family.drawn(), len(family)
    rest = [] if drawn["sh_rest"] is None else [drawn["sh_rest"][:, : (drawn["sh_degree"] + 1) ** 2 - 1]]
    harmonics = torch.cat([drawn["sh_dc"][:, None], *rest], dim=1)
    turned = torch.nn.functional.normalize(drawn["quaternions"], dim=1)[:, [1, 2, 3, 0]]  # x, y, z, w
    tensors = {"centers": drawn["means"], "scales": drawn["scales"], "quaternions": turned}
    tensors |= {"opacities": family.opacities()[:, None], "sh_coeffs": harmonics.reshape(count, -1)}
    make = _mitsuba().TensorXf
    arrays = {name: make(np.ascontiguousarray(value.detach().float().cpu())) for name, value in tensors.items()}
    return {"type": "ellipsoids", **arrays, "extent": EXTENT, "extent_adaptive_clamping": False}


def to_mesh(family: Family, look: Look = "emissive", name: str = "mesh") -> Any:
    """A `mitsuba.Mesh` of a family that draws triangles, with its texture or its colours at the vertices.

    `emissive` shines with the colours that we draw, on the outside alone, to be looked at (with colours at the vertices
    and a scalar variant, Mitsuba 3.9 ends in a segmentation fault where it samples such a light: `max_depth` above 1);
    `diffuse` reflects them, on both sides, and needs lights. Raises ValueError for families without triangles; warns of
    opacities.
    """
    mitsuba, mesh = _mitsuba(), mesh_of(family, repeats=True)
    textured = mesh.uvs is not None and mesh.texture is not None
    color = _bitmap(mesh, goes_around(family, mesh)) if textured else {"type": "mesh_attribute", "name": "vertex_color"}
    properties = mitsuba.Properties()
    if look == "emissive":
        properties["emitter"] = mitsuba.load_dict({"type": "area", "radiance": color})
        color = {"type": "rgb", "value": 0.0}
    both = {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": color}}
    properties["bsdf"] = mitsuba.load_dict(both)
    vertices, faces, uvs = mesh.vertices, mesh.faces, None
    if textured:
        rows, uvs, faces = unshared_corners(mesh)
        vertices = vertices[rows]
    made = mitsuba.Mesh(name, len(vertices), len(faces), has_vertex_texcoords=textured, props=properties)
    if not textured:
        colors = np.full_like(vertices, 0.5) if mesh.colors is None else mesh.colors
        made.add_attribute("vertex_color", 3, linear(colors).astype(np.float32).ravel())
    values = mitsuba.traverse(made)
    values["vertex_positions"] = np.ascontiguousarray(vertices, np.float32).ravel()
    values["faces"] = np.ascontiguousarray(faces, np.uint32).ravel()
    if uvs is not None:
        values["vertex_texcoords"] = uvs.astype(np.float32).ravel()
    values.update()
    return made


def to_scene(scene: Scene, camera: Camera, *, look: Look = "emissive", samples: int = 16) -> dict[str, Any]:
    """All visible layers seen by `camera`, with an integrator, for `mitsuba.load_dict`; transforms are applied.

    Gaussians alone are drawn by `volprim_rf_basic`, which knows no background (a warning says so where the scene has
    one), triangles by `path`, before the scene's background. Mitsuba has no integrator for both: of a mix both are in
    the result, `path` is chosen, and a warning says so. Layers of other families are left out with a warning;
    ValueError where none is left.
    """
    made: dict[str, Any] = {"type": "scene", "sensor": to_sensor(camera, samples)}
    splats, surfaces = 0, 0
    for number, layer in enumerate(scene.flattened().visible_layers()):
        key = f"layer_{number}"  # names must not hold dots
        if layer.family.surface() is not None:
            made[key], surfaces = to_mesh(layer.family, look, layer.name), surfaces + 1
        elif isinstance(layer.family, (Gaussians, RayGaussians)):
            made[key], splats = to_ellipsoids(layer.family), splats + 1
        else:
            warn(f"layer {layer.name!r}: Mitsuba has no shape for {layer.family.name}; it was left out")
    if splats + surfaces == 0:
        raise ValueError("to_scene: no visible layer is of a family that Mitsuba has a shape for")
    if splats and surfaces:
        warn("Gaussians and triangles: Mitsuba has no integrator that draws both; `path` shows the triangles alone")
    if surfaces:
        made["integrator"] = {"type": "path", "max_depth": 1 if look == "emissive" else 8}
        if scene.background is not None:
            value = linear(np.array(scene.background)).tolist()
            made["background"] = {"type": "constant", "radiance": {"type": "rgb", "value": value}}
    else:
        if scene.background is not None and any(scene.background):
            warn("the background was left out: Mitsuba's integrator of Gaussians knows none; lay the picture over it")
        made["integrator"] = {"type": "volprim_rf_basic", "max_depth": 1024, "srgb_primitives": True}
    return made


def linear(colors: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Display-encoded colours (sRGB, IEC 61966-2-1) in linear light."""
    high = ((np.maximum(colors, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(colors <= 0.04045, colors / 12.92, high)


def _bitmap(mesh: MeshFile, repeats: bool) -> dict[str, Any]:
    """The texture; Mitsuba makes 8-bit pictures linear itself. One that goes on around has one way for both directions:
    in v half a texel at the edges mixes with the other edge.
    """
    assert mesh.texture is not None
    if mesh.texture.shape[2] == 4:
        warn("the opacities of the texels were left out")
    bitmap = _mitsuba().Bitmap(np.ascontiguousarray(mesh.texture[..., :3]))
    wrap = "repeat" if repeats else "clamp"
    return {"type": "bitmap", "bitmap": bitmap, "wrap_mode": wrap, "filter_type": "bilinear"}


def _mitsuba() -> Any:
    """The package, with a variant chosen by the caller: ours to take, not to choose."""
    mitsuba = package("mitsuba", "pip install mitsuba")
    if mitsuba.variant() is None:
        raise BridgeUnavailable('Mitsuba has no variant yet; call mitsuba.set_variant("llvm_ad_rgb") first')
    return mitsuba

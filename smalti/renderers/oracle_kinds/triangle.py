"""Kind `triangle`: hard, antialiased or soft edges, interpolated channels or a texture (kinds.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.mipmaps import mipmap_count, mipmap_sizes
from smalti.renderers.oracle_kinds.events import Events, View, faded, usable_rows
from smalti.renderers.oracle_kinds.outlines import Outlines
from smalti.renderers.oracle_kinds.texture import bilinear, mipmapped

SOFT_MIN = 1e-4
"""`soft`: share of the opacity below which an event is dropped."""


@dataclass(frozen=True, eq=False)
class Hits:
    """Rays that meet a triangle or pass close enough to its outline."""

    barycentrics: Float[Tensor, "k 3"]
    """Clamped to the triangle."""
    z: Float[Tensor, "k"]
    coverage: Float[Tensor, "k"]
    drawn: Bool[Tensor, "k"]


class TriangleKind:
    """Homogeneous: with e_i = q_(i+1) x q_(i+2), the barycentrics of the ray d are e_i . d over their sum."""

    def __init__(self, drawable: TriangleDrawable, camera: Camera, near: float) -> None:
        self.drawable, self.camera = drawable, camera
        usable = _usable(drawable)
        with torch.no_grad():  # overflow
            q = _dot(drawable.corners[:, :, None], camera.rotation) + camera.translation
            usable &= _dot(q[:, 0], _cross(q[:, 1], q[:, 2])).isfinite()
        self.keys = (drawable.corners.mean(1) @ camera.rotation[2] + camera.translation[2]).detach()
        self.skipped = int((~usable).sum())
        self.rows = usable.nonzero()[:, 0]
        corners = drawable.corners[self.rows]
        self.q = _dot(corners[:, :, None], camera.rotation) + camera.translation
        self.edges = _cross(self.q[:, [1, 2, 0]], self.q[:, [2, 0, 1]])
        self.side = _side(self.q.detach(), self.edges.detach())
        self.silhouettes = self._silhouettes(usable)
        self.outlines = Outlines.of(self.q, camera, near)
        flat = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.flat_normals = torch.nn.functional.normalize(flat, dim=-1)

    def events(self, view: View) -> Events:
        """One event per pixel and triangle that is hit, or near whose outline the ray passes."""
        with torch.no_grad():
            pixel, row = view.pairs(len(self.rows))
            facing = self.side[row] != 0
            pixel, row = pixel[facing], row[facing]
            some = self._weights(view, pixel, row).clamp(min=0).sum(-1) > 0
            pixel, row = pixel[some], row[some]
            hits = self._meet(view, pixel, row)
            drawn = hits.drawn & (hits.coverage > 0) & (hits.z >= view.settings.near) & hits.z.isfinite()
            if self.drawable.texture is not None:
                color, share = self._shade(row, hits.barycentrics, hits.z)
                drawn &= color.isfinite().all(-1) & share.isfinite()
        pixel, row = pixel[drawn], row[drawn]
        hits = self._meet(view, pixel, row)

        primitive = self.rows[row]
        barycentrics = hits.barycentrics.detach() if self.drawable.detach_barycentrics else hits.barycentrics
        color, opacity = self._shade(row, barycentrics, hits.z)
        alpha = (self.drawable.opacities[primitive].clamp(0, 1) * opacity).clamp(0, 1) * hits.coverage
        features = None
        if self.drawable.features is not None:
            features = (barycentrics[:, :, None] * self.drawable.features[primitive]).sum(1)
        normal = self._normals(view.directions[pixel], row, barycentrics)
        return Events(pixel, primitive, hits.z, None, alpha, color, features, normal)

    def _weights(self, view: View, pixel: Tensor, row: Tensor) -> Tensor:
        """e_i . d, turned so that all are positive inside."""
        return self.side[row][:, None] * _dot(self.edges[row], view.directions[pixel][:, None])

    def _meet(self, view: View, pixel: Tensor, row: Tensor) -> Hits:
        w = self._weights(view, pixel, row)
        clamped = w.clamp(min=0)
        barycentrics = clamped / clamped.sum(-1, keepdim=True)  # divided by det they would be the same
        z = (barycentrics * self.q[row][:, :, 2]).sum(-1)
        owned = (w > 0) | ((w == 0) & _owns_edge(self.side[row][:, None, None] * self.edges[row]))
        if self.drawable.edges == "hard":
            return Hits(barycentrics, z, torch.ones_like(z), owned.all(-1))
        if self.drawable.edges == "antialiased":
            coverage = (0.5 + self._pixels_inside(view, pixel, row, w)).clamp(0, 1)
            return Hits(barycentrics, z, coverage, (owned | self.silhouettes[row]).all(-1))
        outside = ~((w >= 0).all(-1) & (z >= view.settings.near))
        to_ndc = 2 / min(view.camera.width, view.camera.height)
        squared = self.outlines.squared_distances(view.pixels[pixel], row).min(-1).values * to_ndc**2
        share = torch.exp(-torch.where(outside, squared, 0) / self.drawable.sigma)
        drawn = share.detach() >= SOFT_MIN
        return Hits(barycentrics, z, faded(share, share / SOFT_MIN, view.settings.smooth_cutoff), drawn)

    def _pixels_inside(self, view: View, pixel: Tensor, row: Tensor, w: Tensor) -> Tensor:
        """Signed distance in pixels: inside to the nearest silhouette's line, outside to the nearest one's segment."""
        fx, fy = self.camera.intrinsics[0], self.camera.intrinsics[1]
        slope = (self.edges[row][..., 0] / fx).square() + (self.edges[row][..., 1] / fy).square()
        silhouette, has_line = self.silhouettes[row], slope > 0
        line = torch.where(silhouette & has_line, w / torch.where(has_line, slope, 1).sqrt(), torch.inf)
        # The edge opposite to corner i runs from corner i + 1 to i + 2.
        squared = self.outlines.squared_distances(view.pixels[pixel], row)[:, [1, 2, 0]]
        squared = torch.where(silhouette & (w < 0), squared, torch.inf).min(-1).values
        outside = (silhouette & (w < 0)).any(-1)
        apart = outside & (squared > 0)
        segment = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
        return torch.where(outside, -segment, line.min(-1).values)

    def _silhouettes(self, usable: Tensor) -> Tensor:
        """[m, 3]: the edge opposite to corner i has no neighbour, or one that faces the other way."""
        neighbours = self.drawable.neighbours
        if neighbours is None:
            return torch.ones(len(self.rows), 3, dtype=torch.bool, device=self.rows.device)
        side = self.side.new_zeros(len(usable))
        side[self.rows] = self.side
        # Column j is the edge from corner j to j + 1, opposite to corner j + 2.
        across = neighbours[self.rows][:, [1, 2, 0]].long()
        exists = (across >= 0) & (across < len(usable))
        return ~exists | (side[across.clamp(0, len(usable) - 1)] != self.side[:, None])

    def _shade(self, row: Tensor, barycentrics: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Colour, and what the texture's alpha makes of the opacity."""
        drawable, primitive = self.drawable, self.rows[row]
        opaque = barycentrics.new_ones(len(primitive))
        if drawable.colors is not None:
            return (barycentrics[:, :, None] * drawable.colors[primitive]).sum(1), opaque
        assert drawable.texture is not None
        assert drawable.uvs is not None
        uv = (barycentrics[:, :, None] * drawable.uvs[primitive]).sum(1)
        levels = self._levels(drawable.texture)
        if len(levels) == 1:
            texel = bilinear(drawable.texture, uv, drawable.wrap)
        else:
            width = self._pixel_width(row, barycentrics, z).clamp(1, 2.0 ** (len(levels) - 1))
            texel = mipmapped(levels, uv, width, drawable.wrap)
        return texel[:, :3], texel[:, 3] if texel.shape[1] == 4 else opaque

    def _levels(self, texture: Tensor) -> list[Tensor]:
        mipmaps = self.drawable.mipmaps
        if mipmaps is None:
            return [texture]
        height, width = texture.shape[:2]
        sizes = mipmap_sizes(height, width, mipmap_count(height, width, len(mipmaps)))
        parts = mipmaps.split([rows * columns for rows, columns in sizes])
        return [texture, *(part.reshape(*size, -1) for part, size in zip(parts, sizes, strict=True))]

    def _pixel_width(self, row: Tensor, barycentrics: Tensor, z: Tensor) -> Tensor:
        """Texels that a step of one pixel crosses, where the ray meets the triangle (the root of the mean square over
        all directions on the screen).
        """
        drawable = self.drawable
        assert drawable.texture is not None
        assert drawable.uvs is not None
        # Of the barycentrics over z, which are affine on the screen: [k, corner, x or y].
        slopes = self.edges[row][:, :, :2] / self.camera.intrinsics[:2]
        slopes = slopes / _dot(self.q[row][:, 0], self.edges[row][:, 0])[:, None, None]
        slopes = z[:, None, None] * (slopes - barycentrics[:, :, None] * slopes.sum(1, keepdim=True))
        if drawable.detach_barycentrics:
            slopes = slopes.detach()
        height, width = drawable.texture.shape[:2]
        places = drawable.uvs[self.rows[row]] * drawable.uvs.new_tensor([width, height])
        texels = ((places - places[:, :1])[:, :, :, None] * slopes[:, :, None]).sum(1)
        # Not of nothing, where a root has no slope; narrower than a texel is one all the same.
        return (texels.square().sum((1, 2)) / 2).clamp(min=0.25).sqrt()

    def _normals(self, directions: Tensor, row: Tensor, barycentrics: Tensor) -> Tensor:
        """Unit normals in world axes, turned towards the camera."""
        normal = self.flat_normals[row]
        if self.drawable.normals is not None:
            normal = (barycentrics[:, :, None] * self.drawable.normals[self.rows[row]]).sum(1)
            normal = torch.nn.functional.normalize(normal, dim=-1)
        away = (normal * (directions @ self.camera.rotation)).sum(-1, keepdim=True).detach() > 0
        return torch.where(away, -normal, normal)


def _usable(drawable: TriangleDrawable) -> Tensor:
    given = [drawable.corners, drawable.opacities, drawable.colors, drawable.features, drawable.normals, drawable.uvs]
    return usable_rows(len(drawable), given, [])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the last axis. As separate operations, so that neighbours get the same bits from the same corners."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Exactly -(b x a), which a product fused with a sum would not be."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=-1)


def _side(q: Tensor, edges: Tensor) -> Tensor:
    """Which way triangles face the camera: the sign of q_0 . (q_1 x q_2), 0 where seen edge-on."""
    det = (q[:, 0] * edges[:, 0]).sum(-1)
    size = q[:, 0].norm(dim=-1) * (q[:, 1] - q[:, 0]).norm(dim=-1) * (q[:, 2] - q[:, 0]).norm(dim=-1)
    return torch.where(det.abs() > 1e-9 * size, torch.sign(det), 0)


def _owns_edge(inward: Tensor) -> Tensor:
    """Of two triangles on either side of an edge through the pixel centre, one owns it; `inward`: e_i turned inside.

    As if every pixel lay a trifle further down, and a yet smaller trifle to the left."""
    x, y = inward[..., 0], inward[..., 1]
    return (y > 0) | ((y == 0) & (x < 0))

"""The specification of the compositor in plain torch, derived by autograd.

Pictures of EWA Gaussians alone are drawn here, `docs/gaussian-kind.md` line by line; any other mix in `oracle_kinds`.
It judges the engine in tests and is no product path. It computes in the dtype of the means (float64 in tests). Nothing
is masked that could be NaN: primitives that are not drawn are dropped by index, before the mathematics that would fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import Drawable, GaussianDrawable
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.settings import ALPHA_MAX, ALPHA_MIN, DEPTH_WEIGHT_MIN, RenderSettings
from smalti.renderers.spherical_harmonics import gaussian_color

TILE = 16
"""Pixels; a tile is composited as one (pixels x primitives) table."""
TABLE_LIMIT = 20_000_000
"""Table entries of a picture above which tiles are recomputed in the backward pass instead of kept."""


Watch = Callable[[Tensor], None] | None
"""Told the gradient of every (pixel, primitive) offset of a tile in the backward pass."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians on the screen, one row each."""

    centres: Float[Tensor, "m 2"]
    """Pixels."""
    covariances: Float[Tensor, "m 3"]
    """xx, xy, yy in square pixels, filter included."""
    determinants: Float[Tensor, "m"]
    opacities: Float[Tensor, "m"]
    """Compensated where the drawable asks for it."""
    depths: Float[Tensor, "m"]
    """Camera z of the mean."""
    colors: Float[Tensor, "m 3"]
    """Before the clamp at zero."""
    features: Float[Tensor, "m f"]

    @property
    def conics(self) -> Float[Tensor, "m 3"]:
        """Inverse covariances: xx, xy, yy."""
        xx, xy, yy = self.covariances.unbind(-1)
        return torch.stack([yy, -xy, xx], dim=-1) / self.determinants[:, None]

    @property
    def half_extents(self) -> Float[Tensor, "m 2"]:
        """Half width and height in pixels of the box around the ellipse alpha = 1/255."""
        reach = 2 * torch.log(self.opacities / ALPHA_MIN)
        return (reach[:, None] * self.covariances[:, [0, 2]]).sqrt()

    def rows(self, index: Int[Tensor, "k"] | Bool[Tensor, "m"]) -> Splats:
        """The rows named by `index`."""
        return Splats(**{name: value[index] for name, value in vars(self).items()})


def render_oracle(
    drawables: Sequence[Drawable],
    camera: Camera,
    background: Float[Tensor, "3"] | Float[Tensor, "h w 3"] | None,
    settings: RenderSettings,
) -> Frame:
    """Composite `drawables` over `background`; arguments and gradients as in `smalti.render`, which checks them."""
    alone = [drawable for drawable in drawables if isinstance(drawable, GaussianDrawable)]
    if len(alone) < len(drawables) or settings.normals or len({d.features is None for d in alone}) > 1:
        from smalti.renderers.oracle_kinds.picture import render_mix

        return render_mix(drawables, camera, background, settings)
    return _render_gaussians(alone, camera, background, settings)


def _render_gaussians(
    drawables: Sequence[GaussianDrawable], camera: Camera, background: Tensor | None, settings: RenderSettings
) -> Frame:
    """`order="ray"` is the same as `"centre"`, because an EWA Gaussian's event lies at its mean."""
    like = drawables[0].means
    names = ("rotation", "translation", "intrinsics")
    camera = replace(camera, **{name: getattr(camera, name).to(like) for name in names})

    parts, rows, depths, skipped, first_row = [], [], [], 0, 0
    for drawable in drawables:
        drawn, unusable, z = choose(drawable, camera, settings)
        parts.append(project(drawable, camera, drawn))
        rows.append(drawn + first_row)
        depths.append(z)
        skipped += unusable
        first_row += len(drawable)
    splats = Splats(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})
    row = torch.cat(rows)
    order = torch.argsort(splats.depths.detach(), stable=True)  # rows ascend, so ties fall to the lower index
    splats, row = splats.rows(order), row[order]

    screen = ScreenGradient(splats.centres, row, first_row, settings.absolute_gradient)
    picture = composite_picture(splats, camera, settings, screen)
    visible = torch.zeros(first_row, dtype=torch.bool, device=like.device)
    radii = torch.zeros(first_row, dtype=like.dtype, device=like.device)
    visible[row], radii[row] = True, splats.half_extents.detach().amax(-1)
    visibility = Visibility(visible, radii, torch.cat(depths), skipped, picture.intersections, screen.found)
    frame = _frame(picture, splats, row, visibility, settings)
    if background is None:
        return frame
    return replace(frame, color=frame.color + picture.transmittance[..., None] * background.to(like))


def choose(
    drawable: GaussianDrawable, camera: Camera, settings: RenderSettings
) -> tuple[Int[Tensor, "m"], int, Float[Tensor, "n"]]:
    """Rows to draw, the number of unusable primitives, and camera z of all means. Not differentiable."""
    with torch.no_grad():
        tensors = [drawable.means, drawable.quaternions, drawable.scales, drawable.opacities[:, None]]
        tensors += [] if drawable.features is None else [drawable.features]
        length = drawable.quaternions.square().sum(-1)
        usable = (length >= 1e-24) & length.isfinite() & (drawable.scales > 0).all(-1)
        for tensor in tensors:
            usable &= tensor.isfinite().all(-1)
        z = drawable.means @ camera.rotation[2] + camera.translation[2]
        candidates = (usable & (z >= settings.near)).nonzero()[:, 0]
        splats = project(drawable, camera, candidates)
        shape = torch.cat([splats.centres, splats.covariances, splats.determinants[:, None], splats.conics], dim=1)
        finite = shape.isfinite().all(-1)
        # Opacity before the overlap: the reach of an ellipse is defined only where alpha gets to 1/255 at all.
        drawn = (finite & (splats.opacities >= ALPHA_MIN)).nonzero()[:, 0]
        drawn = drawn[_touches_picture(splats.rows(drawn), camera)]
        # A colour is judged last, because it is computed for what is drawn only.
        colored = splats.colors[drawn].isfinite().all(-1)
        skipped = int((~usable).sum() + (~finite).sum() + (~colored).sum())
        drawn = drawn[colored]
        return candidates[drawn], skipped, z


def project(drawable: GaussianDrawable, camera: Camera, rows: Int[Tensor, "m"]) -> Splats:
    """EWA projection (Zwicker et al. 2001; Kerbl et al. 2023, eq. 5) of the given rows."""
    means, opacities = drawable.means[rows], drawable.opacities[rows]
    fx, fy, cx, cy = camera.intrinsics.unbind()
    x, y, z = (means @ camera.rotation.T + camera.translation).unbind(-1)
    centres = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    # The local affine map is taken no further outside the picture than 0.3 of its half-tangent.
    margin_u, margin_v = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    u = torch.clamp(x / z, -cx / fx - margin_u, (camera.width - cx) / fx + margin_u)
    v = torch.clamp(y / z, -cy / fy - margin_v, (camera.height - cy) / fy + margin_v)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).reshape(-1, 2, 3)
    axes = rotation_matrices(drawable.quaternions[rows]) * drawable.scales[rows][:, None, :]
    first, second = (jacobian @ camera.rotation @ axes).unbind(1)

    spread = drawable.filter_variance
    xx, xy, yy = (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
    area = torch.linalg.cross(first, second).square().sum(-1)
    determinants = area + spread * (xx + yy) + spread**2
    if drawable.compensated:
        opacities = opacities * (area / determinants).sqrt()

    directions = torch.nn.functional.normalize(means - camera.centre, dim=-1)
    rest = None if drawable.sh_rest is None else drawable.sh_rest[rows]
    colors = gaussian_color(drawable.sh_dc[rows], rest, drawable.sh_degree, directions)
    features = means.new_zeros(len(rows), 0) if drawable.features is None else drawable.features[rows]
    covariances = torch.stack([xx + spread, xy, yy + spread], dim=-1)
    return Splats(centres, covariances, determinants, opacities, z, colors, features)


def rotation_matrices(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions w, x, y, z of any length but zero."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(entries, dim=-1).reshape(-1, 3, 3)


def composite(
    pixels: Float[Tensor, "p 2"], splats: Splats, channels: Float[Tensor, "m c"], settings: RenderSettings, watch: Watch
) -> tuple[Float[Tensor, "p c"], Float[Tensor, "p"], Float[Tensor, "p m"]]:
    """Front to back over sorted `splats`: sum of T a c, the transmittance left, and the alpha of each event."""
    offsets = pixels[:, None] - splats.centres
    if watch is not None and offsets.requires_grad:
        offsets.register_hook(watch)
    dx, dy = offsets.unbind(-1)
    xx, xy, yy = splats.conics.unbind(-1)
    alpha = splats.opacities * torch.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))
    alpha = alpha.clamp(max=ALPHA_MAX)
    drawn = alpha.detach() >= ALPHA_MIN
    if settings.smooth_cutoff:
        step = (alpha / ALPHA_MIN - 1).clamp(0, 1)
        alpha = alpha * step * step * (3 - 2 * step)
    # The ray ends after the event that brings T below the limit: an event counts if T before it had not yet fallen.
    before = transmittance_before(torch.where(drawn, alpha, 0).detach())
    alpha = torch.where(drawn & (before >= settings.transmittance_min), alpha, 0)
    weights = transmittance_before(alpha) * alpha
    return weights @ channels, (1 - alpha).prod(dim=1), alpha


def transmittance_before(alpha: Float[Tensor, "p m"]) -> Float[Tensor, "p m"]:
    """What reaches each event: the product of 1 - alpha over the events in front of it."""
    return torch.cat([alpha.new_ones(len(alpha), 1), 1 - alpha], dim=1)[:, :-1].cumprod(dim=1)


def name_events(alpha: Float[Tensor, "p m"]) -> list[Int[Tensor, "p"]]:
    """Columns of the first, the median and the dominant event of each pixel, -1 for none."""
    pixels, count = alpha.shape
    if count == 0:
        return [torch.full((pixels,), -1, device=alpha.device)] * 3
    before = transmittance_before(alpha)
    weights = before * alpha
    hit = weights > 0
    # `argmax` gives the first of equals, so on a mask it finds the first True.
    halved = before * (1 - alpha) <= 0.5
    found = [
        (hit.byte().argmax(1), hit.any(1)),
        (halved.byte().argmax(1), halved.any(1)),
        (weights.argmax(1), hit.any(1)),
    ]
    return [torch.where(exists, column, -1) for column, exists in found]


@dataclass(frozen=True, eq=False)
class Picture:
    """All tiles composited, before the background."""

    channels: Float[Tensor, "h w c"]
    """Sums of T a times: color, features, camera z, 1."""
    transmittance: Float[Tensor, "h w"]
    ids: dict[str, Int[Tensor, "h w"]]
    """Rows of the sorted splats, -1 for none."""
    contribution_sum: Float[Tensor, "m"]
    contribution_max: Float[Tensor, "m"]
    intersections: int


def composite_picture(splats: Splats, camera: Camera, settings: RenderSettings, screen: ScreenGradient) -> Picture:
    """Every tile with the splats whose boxes reach into it."""
    depths = splats.depths
    channels = [splats.colors.clamp(min=0), splats.features, depths[:, None], torch.ones_like(depths)[:, None]]
    channels = torch.cat(channels, dim=1)
    tiles = list_tiles(splats, camera)
    entries = sum(len(listed) for _, listed in tiles)
    recompute = torch.is_grad_enabled() and entries * TILE**2 > TABLE_LIMIT

    contribution_sum, contribution_max = torch.zeros_like(depths.detach()), torch.zeros_like(depths.detach())
    planes: list[list[Tensor]] = []
    for (left, top, right, bottom), listed in tiles:
        x = torch.arange(left, right, device=depths.device, dtype=depths.dtype) + 0.5
        y = torch.arange(top, bottom, device=depths.device, dtype=depths.dtype) + 0.5
        pixels = torch.cartesian_prod(y, x).flip(-1)
        arguments = (pixels, splats.rows(listed), channels[listed], settings, screen.watch(listed))
        if recompute:
            total, left_over, alpha = checkpoint(composite, *arguments, use_reentrant=False)
        else:
            total, left_over, alpha = composite(*arguments)
        tile = [total, left_over]
        if settings.statistics and len(listed):
            alpha = alpha.detach()
            weights = transmittance_before(alpha) * alpha
            contribution_sum[listed] += weights.sum(0)
            contribution_max[listed] = torch.maximum(contribution_max[listed], weights.amax(0))
        if settings.statistics:
            # Column -1 (none) reads the last entry of the padded list, which is -1 as well.
            padded = torch.cat([listed, listed.new_tensor([-1])])
            tile += [padded[columns] for columns in name_events(alpha.detach())]
        planes.append([plane.reshape(bottom - top, right - left, *plane.shape[1:]) for plane in tile])

    across = -(-camera.width // TILE)
    bands = [planes[start : start + across] for start in range(0, len(planes), across)]
    whole = [torch.cat([torch.cat([tile[k] for tile in band], 1) for band in bands]) for k in range(len(planes[0]))]
    names = ["first", "median", "dominant"] if settings.statistics else []
    ids = dict(zip(names, whole[2:], strict=True))
    return Picture(whole[0], whole[1], ids, contribution_sum, contribution_max, entries)


def list_tiles(splats: Splats, camera: Camera) -> list[tuple[tuple[int, int, int, int], Int[Tensor, "k"]]]:
    """(left, top, right, bottom) of each tile, row by row, and the splats to try there, front to back."""
    with torch.no_grad():
        # A hair wider than the ellipse: the pixel decides, not the rounding of its box.
        half = splats.half_extents * (1 + 1e-4) + 1e-2
        low, high = splats.centres - half, splats.centres + half
    tiles = []
    for top in range(0, camera.height, TILE):
        bottom = min(top + TILE, camera.height)
        band = ((low[:, 1] <= bottom) & (high[:, 1] >= top)).nonzero()[:, 0]
        for left in range(0, camera.width, TILE):
            right = min(left + TILE, camera.width)
            listed = band[(low[band, 0] <= right) & (high[band, 0] >= left)]
            tiles.append(((left, top, right, bottom), listed))
    return tiles


class ScreenGradient:
    """Collects the gradient of the projected centres while autograd passes them; rows as in the drawables."""

    def __init__(self, centres: Float[Tensor, "m 2"], row: Int[Tensor, "m"], count: int, absolute: bool) -> None:
        self.found: dict[str, Tensor] = {}
        self._row, self._absolute = row, absolute and centres.requires_grad
        if centres.requires_grad:
            names = ["sum", "absolute"] if self._absolute else ["sum"]
            self.found.update({name: centres.new_zeros(count, 2).detach() for name in names})
            centres.register_hook(self._add_sum)

    def _add_sum(self, gradient: Tensor) -> None:
        self.found["sum"][self._row] += gradient.detach()

    def watch(self, listed: Int[Tensor, "k"]) -> Watch:
        """A hook for the offsets (pixel - centre) of one tile; the sign does not matter to what it sums."""
        if not self._absolute:
            return None

        def add_absolute(gradient: Tensor) -> None:
            self.found["absolute"][self._row[listed]] += gradient.detach().abs().sum(0)

        return add_absolute


def _touches_picture(splats: Splats, camera: Camera) -> Bool[Tensor, "m"]:
    """True where the ellipse alpha >= 1/255 overlaps the rectangle [0, width] x [0, height]."""
    (cx, cy), (xx, xy, yy) = splats.centres.unbind(-1), splats.conics.unbind(-1)
    reach = 2 * torch.log(splats.opacities / ALPHA_MIN)
    touches = (cx >= 0) & (cx <= camera.width) & (cy >= 0) & (cy <= camera.height)
    # The quadratic form is convex: seen from a centre outside, its least value on the rectangle lies on an edge.
    for edge in (0, camera.width):
        dx = edge - cx
        dy = (cy - xy / yy * dx).clamp(0, camera.height) - cy
        touches |= xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy <= reach
    for edge in (0, camera.height):
        dy = edge - cy
        dx = (cx - xy / xx * dy).clamp(0, camera.width) - cx
        touches |= xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy <= reach
    return touches


def _frame(
    picture: Picture, splats: Splats, row: Int[Tensor, "m"], visibility: Visibility, settings: RenderSettings
) -> Frame:
    """Sort the channels into a frame; the background is not yet there."""
    color, features, depth, weight = picture.channels.split([3, splats.features.shape[1], 1, 1], dim=-1)
    frame = Frame(color, 1 - picture.transmittance, visibility, features if features.shape[-1] else None)
    if settings.depth:
        depth, weight = depth[..., 0], weight[..., 0]
        hit = weight > DEPTH_WEIGHT_MIN
        frame = replace(frame, depth=torch.where(hit, depth / torch.where(hit, weight, 1), 0))
    if not settings.statistics:
        return frame
    none = row.new_tensor([-1])
    of_event = {name: torch.cat([splats.depths, splats.depths.new_zeros(1)])[ids] for name, ids in picture.ids.items()}
    total, largest = (splats.depths.new_zeros(len(visibility.visible)).detach() for _ in range(2))
    total[row], largest[row] = picture.contribution_sum, picture.contribution_max
    return replace(
        frame,
        depth_median=of_event["median"],
        depth_first=of_event["first"],
        ids={name: torch.cat([row, none])[ids] for name, ids in picture.ids.items()},
        contribution_sum=total,
        contribution_max=largest,
    )

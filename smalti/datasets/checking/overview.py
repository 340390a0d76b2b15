"""The overview picture: cameras and points from above and from the side, with the outliers named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from smalti.cameras.models import unproject
from smalti.datasets.checking.geometry import Poses
from smalti.datasets.checking.report import CheckReport
from smalti.datasets.dataset import Dataset, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 30_000
TRAIN, TEST, BAD = "#1f5fa8", "#2e8b57", "#d02020"
NAME_ALL = 12
"""Sets with at most this many cameras have every camera named."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Axes of the drawing in the world: horizontal, second horizontal, up."""

    axes: Float[np.ndarray, "3 3"]
    origin: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """World points in the axes of the drawing."""
        return (points - self.origin) @ self.axes.T


def drawing_frame(poses: Poses, origin: np.ndarray) -> Frame:
    """Up is where the cameras' upper edges point on average, else across the plane of the cameras; no file says it."""
    up = -poses.rotation[:, 1].mean(0)
    spread = poses.centre - poses.centre.mean(0)
    if np.linalg.norm(up) < 0.5 and len(poses.centre) > 2:  # cameras on their sides, as on many turntables
        across = np.linalg.svd(spread, full_matrices=False)[2][-1]
        up = across if across @ up >= 0 else -across
    if np.linalg.norm(up) < 1e-9:
        up = np.array([0.0, 0.0, 1.0])
    up = up / np.linalg.norm(up)
    level = spread - np.outer(spread @ up, up)
    wide = (
        np.linalg.svd(level, full_matrices=False)[2][0]
        if np.abs(level).max() > 1e-9
        else np.eye(3)[np.abs(up).argmin()]
    )
    wide = wide - (wide @ up) * up
    wide = wide / np.linalg.norm(wide)
    return Frame(np.stack([wide, np.cross(up, wide), up]), origin)


def frustum(view: View, depth: float) -> Float[np.ndarray, "5 3"]:
    """The camera's centre and the corners of its picture at `depth`, world axes; very wide lenses drawn narrower."""
    camera = view.camera
    width, height = float(camera.width), float(camera.height)
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    rays, valid = unproject(camera, corners)
    fallback = np.array([[-0.5, -0.4, 1.0], [0.5, -0.4, 1.0], [0.5, 0.4, 1.0], [-0.5, 0.4, 1.0]])
    rays = np.where((valid & (np.nan_to_num(rays[:, 2]) > 0.3))[:, None], rays, fallback)
    rays = rays / rays[:, 2:] * depth
    rotation = camera.rotation.detach().double().numpy()
    centre = -rotation.T @ camera.translation.detach().double().numpy()
    return np.concatenate([centre[None], rays @ rotation + centre])


def draw_overview(
    dataset: Dataset, poses: Poses, report: CheckReport, path: Path, matched: Float[np.ndarray, "n 3"] | None = None
) -> None:
    """Writes the picture (PNG). `report` gives the scale, the outliers and the caption.

    `matched` are points to draw where the file has none of its own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 8.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    frame = drawing_frame(poses, np.array(report.scale.centre))
    views = [dataset.views[row] for row in _one_per_pose(poses)]
    depth = (0.12 if len(views) <= 40 else 0.07) * max(report.scale.camera_distance, 1e-9)
    frusta = np.stack([frame(frustum(view, depth)) for view in views])
    own = dataset.points
    if own is not None and len(own.positions):
        points, colors = _cloud(frame, own.positions, own.colors / 255.0)
    else:
        points, colors = _cloud(frame, np.zeros((0, 3)) if matched is None else matched, None)
    unit = "m" if report.scale.unit == "metres" else "units of the file"
    for axes, (across, along), title in ((left, (0, 1), "from above"), (right, (0, 2), "from the side")):
        _panel(axes, (points[:, [across, along]], colors), frusta[:, :, [across, along]], views)
        _names(axes, frusta[:, 0][:, [across, along]], views, report)
        axes.set_title(title, fontsize=13)
        axes.set_xlabel(f"across ({unit})")
        axes.set_ylabel(f"{'away' if along == 1 else 'up'} ({unit})")
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    cloud = "" if len(points) == 0 else "points of the file" if report.points else "where matched features meet"
    _legend(left, dataset, report, cloud)
    figure.suptitle(_caption(report, len(views)), fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _one_per_pose(poses: Poses) -> list[int]:
    """Rows to draw: a fixed camera with many instants once."""
    values = np.concatenate([poses.rotation.reshape(-1, 9), poses.centre], axis=1)
    _, first = np.unique(np.round(values, 9), axis=0, return_index=True)
    return sorted(int(row) for row in first)


def _cloud(frame: Frame, points: np.ndarray, colors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Points to draw: a share of them, without the far strays that would shrink all the rest."""
    if len(points) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3))
    positions = frame(points)
    colors = np.full(positions.shape, 0.45) if colors is None else colors
    low, high = np.percentile(positions, [5.0, 95.0], axis=0)
    near = (np.abs(positions - 0.5 * (low + high)) <= 1.5 * (high - low) + 1e-12).all(1)
    positions, colors = positions[near], colors[near]
    chosen = np.random.default_rng(0).permutation(len(positions))[:MOST_POINTS]
    return positions[chosen], np.clip(colors[chosen], 0.0, 0.85)  # white points would vanish on white paper


def _panel(axes: Axes, cloud: tuple[np.ndarray, np.ndarray], frusta: np.ndarray, views: Sequence[View]) -> None:
    from matplotlib.collections import LineCollection

    points, colors = cloud
    if len(points):
        size = float(np.clip(6000.0 / len(points), 0.6, 8.0))
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colors, linewidths=0, zorder=2, rasterized=True)
    path = [0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]
    tints = [TEST if view.split == "test" else TRAIN for view in views]
    axes.add_collection(LineCollection(list(frusta[:, path]), colors=tints, linewidths=0.9, zorder=3))
    axes.scatter(frusta[:, 0, 0], frusta[:, 0, 1], s=9, c=tints, zorder=4, linewidths=0)
    if not len(points):
        axes.plot([0.0], [0.0], "+", color="#666666", markersize=12, zorder=3)
    axes.autoscale_view()
    axes.margins(0.14)


def _names(axes: Axes, places: np.ndarray, views: Sequence[View], report: CheckReport) -> None:
    bad = {outlier.name: outlier for outlier in report.outliers}
    everyone = len(views) <= NAME_ALL
    for place, view in zip(places, views, strict=True):
        name = Path(view.camera.name).name or view.camera.name
        record = view.rig or view.camera.name
        if record in bad:
            axes.plot(
                *place, "o", markersize=13, markerfacecolor="none", markeredgecolor=BAD, markeredgewidth=1.8, zorder=6
            )
            text, color, weight = f"{name}: {bad[record].error:.1f} px".replace("inf px", "behind"), BAD, "bold"
        elif everyone:
            text, color, weight = name if not view.rig else view.rig, "#404040", "normal"
        else:
            continue
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.annotate(
            text, place, (7, 7), textcoords="offset points", fontsize=9, color=color, weight=weight, bbox=box, zorder=7
        )


def _legend(axes: Axes, dataset: Dataset, report: CheckReport, cloud: str) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=TRAIN, marker="o", markersize=4, label="camera")]
    if any(view.split == "test" for view in dataset.views):
        entries.append(Line2D([], [], color=TEST, marker="o", markersize=4, label="test camera"))
    if report.outliers:
        entries.append(
            Line2D(
                [],
                [],
                linestyle="",
                color=BAD,
                marker="o",
                markersize=10,
                markerfacecolor="none",
                label="does not fit (error at 1000 px)",
            )
        )
    if cloud:
        entries.append(Line2D([], [], linestyle="", color="#737373", marker="o", markersize=3, label=cloud))
    else:
        entries.append(
            Line2D([], [], linestyle="", color="#666666", marker="+", markersize=9, label="where the cameras look")
        )
    axes.legend(handles=entries, loc="best", fontsize=9, framealpha=0.9)


def _caption(report: CheckReport, poses: int) -> str:
    parts = [report.name, f"{report.images_found} pictures"]
    parts.append(f"{poses} poses")
    if report.points:
        parts.append(f"{report.points:,} points")
    if report.reprojection is not None:
        parts.append(f"reprojection median {report.reprojection.median:.2f} px")
    elif report.epipolar is not None:
        parts.append(f"epipolar median {report.epipolar.median:.2f} px at 1000 px")
    if report.outliers:
        parts.append(f"{len(report.outliers)} outliers")
    return "  ·  ".join(parts)

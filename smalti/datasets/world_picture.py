"""The picture of a world: points, cameras, cube, axes and ground from above, from the front and from the side.

The upper row shows the whole rig, the lower the cube and what is about it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from smalti.datasets.checking.overview import frustum
from smalti.datasets.dataset import Points, View
from smalti.datasets.world import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 20_000
MOST_CAMERAS = 150
CAMERA, GROUND, CUBE, DOUBT, RIVAL = "#1f5fa8", "#8a6d3b", "#d02020", "#b01010", "#9b30c0"
AXES = ("#c83232", "#2a8f3c", "#2f55c8")
CLOSE = 1.9
"""Half the width of the lower row, canonical units."""
LEAST_ANGLE = 1.5
"""Degrees from which another up direction is drawn."""
FARTHEST = 12.0
"""Of the upper row, at most."""


class Side(NamedTuple):
    """One orthographic view: which canonical axes go right and up on the paper, and with which sign."""

    title: str
    across: tuple[int, float]
    along: tuple[int, float]

    def __call__(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        return np.stack([sign * points[..., axis] for axis, sign in (self.across, self.along)], axis=-1)


SIDES = (
    Side("from above", (0, 1.0), (2, -1.0)),
    Side("from the front (+z)", (0, 1.0), (1, 1.0)),
    Side("from the right (+x)", (2, -1.0), (1, 1.0)),
)


def draw_world(path: Path, world: World, views: Sequence[View], points: Points | None = None, title: str = "") -> None:
    """Writes the picture (PNG). `points` are those that the world was found from, input's frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 11.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 3)
    move = world.canonical_from_input
    some = list(views)[:: max(1, -(-len(views) // MOST_CAMERAS))]
    distance = float(np.median([np.linalg.norm(_centre(view) - world.centre) for view in some]))
    frusta = np.stack([move.apply_array(frustum(view, 0.1 * distance)) for view in some])
    cloud = _cloud(world, points)
    reach = float(np.clip(1.15 * np.quantile(np.abs(frusta[:, 0]).max(1), 0.95), 1.5 * CLOSE, FARTHEST))
    for row, half in enumerate((reach, CLOSE)):
        for axes, side in zip(grid[row], SIDES, strict=True):
            _panel(axes, side, world, cloud, frusta, half)
            axes.set_title(side.title if row == 0 else f"{side.title}, close", fontsize=11)
    text = "\n".join(textwrap.fill(line, 190) for line in world.lines())
    figure.suptitle(f"{title}\n{text}" if title else text, fontsize=9, ha="left", x=0.02)
    if world.notices:
        figure.supxlabel("\n".join(textwrap.fill(f"! {note}", 190) for note in world.notices), fontsize=9, color=DOUBT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _centre(view: View) -> Float[np.ndarray, "3"]:
    return view.camera.centre.detach().double().numpy()


def _cloud(world: World, points: Points | None) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Points and colours to draw; random points show nothing."""
    if points is None or points.origin == "random" or not len(points.positions):
        return np.zeros((0, 3)), np.zeros((0, 3))
    chosen = np.random.default_rng(0).permutation(len(points.positions))[:MOST_POINTS]
    colors = np.clip(points.colors[chosen] / 255.0, 0.0, 0.85)  # white points would vanish on white paper
    return world.canonical_from_input.apply_array(points.positions[chosen]), colors


def _rivals(axes: Axes, side: Side, world: World) -> None:
    """Up as others say it, dashed, where one sees the difference."""
    for name, up in world.rivals.items():
        if up @ world.up > np.cos(np.radians(LEAST_ANGLE)):
            continue
        turned = world.canonical_from_input.rotation.double().numpy() @ up
        right, rise = (float(value) for value in side(0.9 * turned))
        arrow = {"arrowstyle": "-|>", "color": RIVAL, "lw": 1.5, "linestyle": (0, (4, 2))}
        axes.annotate("", (right, rise), (0.0, 0.0), arrowprops=arrow, zorder=7)
        label = axes.annotate(f"up, {name}", (right, rise), (4, -3), textcoords="offset points", fontsize=8, zorder=7)
        label.set(color=RIVAL, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0})


def _panel(
    axes: Axes,
    side: Side,
    world: World,
    cloud: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]],
    frusta: Float[np.ndarray, "c 5 3"],
    half: float,
) -> None:
    from matplotlib.collections import LineCollection

    positions, colors = cloud
    near = (np.abs(positions) <= 1.5 * half).all(1)
    if near.any():
        flat, size = side(positions[near]), float(np.clip(4000.0 / near.sum(), 0.5, 6.0))
        axes.scatter(flat[:, 0], flat[:, 1], s=size, c=colors[near], linewidths=0, zorder=2, rasterized=True)
    path = [0, 1, 2, 0, 3, 4, 0, 1, 4, 3, 2]
    axes.add_collection(LineCollection(list(side(frusta[:, path])), colors=CAMERA, linewidths=0.7, zorder=3))
    edges = side(frusta[:, 1:3])  # the pictures' upper edges, thick: do the cameras stand upright?
    axes.add_collection(LineCollection(list(edges), colors=CAMERA, linewidths=2.2, zorder=3))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    axes.plot(corners[:, 0], corners[:, 1], color=CUBE, linewidth=1.3, zorder=4)
    upright = side.along[0] == 1
    if world.ground is not None and upright:
        axes.axhspan(-2.0 * half, world.ground, color=GROUND, alpha=0.12, zorder=0)
        axes.axhline(world.ground, color=GROUND, linewidth=1.5, zorder=1)
        axes.annotate(
            f"ground, y = {world.ground:.2f}", (-half, world.ground), (4, -11), textcoords="offset points", fontsize=8,
            color=GROUND,
        )  # fmt: skip
    for axis, (name, color) in enumerate(zip("xyz", AXES, strict=True)):
        right, up = (float(value) for value in side(0.6 * np.eye(3)[axis]))
        if right or up:
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.8}
            axes.annotate("", (right, up), (0.0, 0.0), arrowprops=arrow, zorder=6)
            place = (1.2 * right, 1.2 * up)
            axes.annotate(name, place, color=color, fontsize=11, weight="bold", ha="center", va="center", zorder=6)
    if upright:
        _rivals(axes, side, world)
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_aspect("equal")
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for axis, (name, sign) in ((axes.set_xlabel, side.across), (axes.set_ylabel, side.along)):
        axis(f"{'-' if sign < 0 else ''}{'xyz'[name]}", fontsize=9)

"""The calibrated views: go to one, see its photograph beside the render, and where all of them stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smalti.cameras.rotations import quaternion_from_matrix
from smalti.viewer.fitting import fitted, poses, stands_at
from smalti.viewer.panels.controls import Quiet, in_words, small, telling

if TYPE_CHECKING:
    import viser

    from smalti.viewer.client import ClientView
    from smalti.viewer.stage import Views

MOST_NAMES = 400
"""In the list; the slider knows all."""
MOST_FRUSTA = 200
MOST_POINTS = 100_000
TRAINING, TEST = (40, 110, 220), (230, 140, 20)
"""Colours of frusta."""


class Cameras:
    """The panel; see the module."""

    name = "cameras"

    def __init__(self, view: ClientView) -> None:
        self._view, gui, views = view, view.client.gui, view.stage.views
        self._quiet = Quiet()
        self._rows: list[int] = [] if views is None else sorted({*views.train_rows, *views.test_rows})
        # Where a client begins (smalti.viewer.opening).
        first = views.train_rows[0] if views is not None and views.train_rows else None
        self._place, self._hidden = 0 if first is None else self._rows.index(first), -1
        self._known = (view.look.truth_row, view.look.split)
        self._frusta: dict[int, viser.CameraFrustumHandle] = {}
        self._roots: dict[str, Any] = {}
        empty = len(view.stage.scene) == 0
        with gui.add_folder("Cameras", expand_by_default=bool(self._rows)):
            self._line = gui.add_html("")
            last = max(len(self._rows) - 1, 0)
            self._slider = gui.add_slider("View", 0, last, 1, self._place, visible=bool(self._rows))
            names = self._labels() if len(self._rows) <= MOST_NAMES else []
            named = names[self._place] if names else "-"
            self._names = gui.add_dropdown("Name", names or ["-"], initial_value=named, visible=bool(names))
            self._steps = gui.add_button_group("Go to", ["Previous", "Here", "Next"], visible=bool(self._rows))
            self._compare = gui.add_checkbox("Photograph", False, visible=bool(self._rows))
            self._split = gui.add_slider("up to", 0.0, 1.0, 0.01, 0.5, visible=False)
            shown = bool(self._rows) and empty
            self._show_views = gui.add_checkbox("Show cameras", shown, visible=bool(self._rows))
            there = views is not None and views.dataset.points is not None
            self._show_points = gui.add_checkbox("Show points", there and empty, visible=there)
            self._show_axes = gui.add_checkbox("Show axes", False)
        self._slider.on_update(lambda _: self._chosen(int(self._slider.value)))
        self._names.on_update(lambda _: self._chosen(self._names.options.index(self._names.value)))
        self._steps.on_click(lambda _: self._stepped())
        self._compare.on_update(lambda _: self._compared())
        self._split.on_update(lambda _: self._slid())
        for control in (self._show_views, self._show_points, self._show_axes):
            control.on_update(lambda _: self._shown())
        self._tell()
        self._shown()

    def refresh(self) -> None:
        """See `Panel`."""
        look = self._view.look
        known, self._known = self._known, (look.truth_row, look.split)
        if known == self._known:
            return  # a control that was moved a moment ago, and is not looked at yet, keeps its value
        with self._quiet:
            self._compare.value = look.truth_row is not None
            self._split.value = min(max(look.split, 0.0), 1.0)
        self._split.visible = look.truth_row is not None

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        views, look = self._view.stage.views, self._view.look
        row = self._rows[self._place] if self._rows else None
        return {
            "views": len(self._rows),
            "row": row,
            "view": None if views is None or row is None else views.dataset.views[row].camera.name,
            "at_view": views is not None and row is not None and stands_at(views, row, look.camera),
            "truth_row": look.truth_row,
            "split": look.split,
            "frusta": len(self._frusta),
            "shown": [name for name, node in self._roots.items() if node.visible],
        }

    def close(self) -> None:
        """See `Panel`."""
        self._frusta.clear()
        self._roots.clear()

    # -- going there --------------------------------------------------------------------------------------------------
    def go_to_row(self, row: int) -> None:
        """To that view of the data set, as far as it is one of a split."""
        if row in self._rows:
            self._chosen(self._rows.index(row))

    def _chosen(self, place: int) -> None:
        if self._quiet:
            return
        with telling(self._view, "Cameras"):
            views = self._views()
            self._place = place = min(max(place, 0), len(self._rows) - 1)
            row = self._rows[place]
            with self._quiet:
                self._slider.value = place
                if self._names.visible:
                    self._names.value = self._names.options[place]
            look = self._view.look
            camera = fitted(views.cache.camera(row), look.camera.width, look.camera.height)
            if look.truth_row is not None:
                views.cache.get(row)  # here, where a picture that cannot be read is told
                self._view.change(truth_row=row)
            if camera.time != look.camera.time:
                self._view.change(time=camera.time)
            self._view.go_to(camera)
            self._hide(row)

    def _hide(self, row: int) -> None:
        """The frustum of the view that one looks through would frame the picture."""
        for other, wanted in ((self._hidden, True), (row, False)):
            if other in self._frusta:
                self._frusta[other].visible = wanted
        self._hidden = row

    def _stepped(self) -> None:
        step = {"Previous": -1, "Here": 0, "Next": 1}[self._steps.value]
        self._chosen((self._place + step) % max(len(self._rows), 1))

    # -- the photograph -----------------------------------------------------------------------------------------------
    def _compared(self) -> None:
        if self._quiet:
            return
        wanted = self._compare.value
        self._split.visible = wanted
        with telling(self._view, "Cameras"):
            row = self._rows[self._place]
            if wanted:
                self._views().cache.get(row)
            self._view.change(truth_row=row if wanted else None)
            self._known = (row if wanted else None, self._known[1])
            if wanted and not self.state()["at_view"]:
                self._chosen(self._place)
            return
        with self._quiet:
            self._compare.value = self._split.visible = False

    def _slid(self) -> None:
        if not self._quiet:
            self._view.change(split=float(self._split.value))
            self._known = (self._known[0], self._view.look.split)

    # -- nodes --------------------------------------------------------------------------------------------------------
    def _shown(self) -> None:
        if self._quiet:
            return
        wishes = {
            "/views": (self._show_views.value, self._add_views),
            "/points": (self._show_points.value, self._add_points),
            "/axes": (self._show_axes.value, self._add_axes),
        }
        with telling(self._view, "Cameras"):
            for name, (wanted, add) in wishes.items():
                if wanted and name not in self._roots:
                    self._roots[name] = add(name)
                if name in self._roots:
                    self._roots[name].visible = wanted

    def _add_views(self, name: str) -> Any:
        views, scene = self._views(), self._view.client.scene
        root = scene.add_frame(name, show_axes=False)
        known = poses(views)
        size = _frustum_size(known.centres.numpy()[self._rows], known.spread)
        quaternions = quaternion_from_matrix(known.rotations.transpose(1, 2)).numpy()
        tests = set(views.test_rows)
        for row in _thinned(self._rows, MOST_FRUSTA):
            camera = views.dataset.views[row].camera
            node = scene.add_camera_frustum(
                f"{name}/{row}",
                fov=2.0 * math.atan(0.5 * camera.height / float(camera.intrinsics[1])),
                aspect=camera.width / camera.height,
                scale=size,
                thickness=1.5,
                thickness_units="screen",
                color=TEST if row in tests else TRAINING,
                wxyz=quaternions[row],
                position=known.centres[row].numpy(),
                cast_shadow=False,
                receive_shadow=False,
            )
            node.on_click(lambda _, row=row: self.go_to_row(row))
            self._frusta[row] = node
        return root

    def _add_points(self, name: str) -> Any:
        views = self._views()
        points = views.dataset.points
        assert points is not None
        picked = np.array(_thinned(list(range(len(points.positions))), MOST_POINTS), dtype=np.int64)
        return self._view.client.scene.add_point_cloud(
            name,
            points.positions[picked].astype(np.float32),
            points.colors[picked],
            point_size=0.002 * poses(views).spread,
            precision="float32",
            point_shape="circle",
            point_shading="flat",
        )

    def _add_axes(self, name: str) -> Any:
        views = self._view.stage.views
        length = 0.3 * (poses(views).spread if views is not None and views.dataset.views else 1.0)
        return self._view.client.scene.add_frame(name, axes_length=length, axes_radius=0.015 * length)

    # -- words --------------------------------------------------------------------------------------------------------
    def _views(self) -> Views:
        views = self._view.stage.views
        if views is None or not self._rows:
            raise ValueError("there are no calibrated views; `smalti view` a run or a data set to have some")
        return views

    def _labels(self) -> list[str]:
        views = self._view.stage.views
        assert views is not None or not self._rows
        tests = set(views.test_rows) if views is not None else set[int]()
        named = [] if views is None else [views.dataset.views[row].camera.name for row in self._rows]
        return [
            f"{place} {name}{' (test)' if row in tests else ''}"
            for place, (row, name) in enumerate(zip(self._rows, named, strict=True))
        ]

    def _tell(self) -> None:
        if not self._rows:
            self._line.content = small("No calibrated views came with this scene.")
            return
        views = self._views()
        training, test = in_words(len(views.train_rows), "view"), in_words(len(views.test_rows), "view")
        self._line.content = small(f"{training} for training (blue), {test} held out (orange)")


def _thinned(rows: list[int], most: int) -> list[int]:
    """Evenly, at most `most` of them."""
    if len(rows) <= most:
        return rows
    return [rows[round(k * (len(rows) - 1) / (most - 1))] for k in range(most)]


def _frustum_size(centres: np.ndarray, spread: float) -> float:
    """World units: small beside the distance to the next camera, and never large beside all of them."""
    picked = centres[:: max(len(centres) // 300, 1)]
    if len(picked) < 2:
        return 0.1 * spread
    apart = np.linalg.norm(picked[:, None] - picked[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float(np.clip(0.3 * np.median(apart.min(axis=1)), 0.01 * spread, 0.1 * spread))

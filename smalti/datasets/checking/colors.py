"""Do the pictures show what the file's points were coloured from? Finds pictures under another's name.

Reprojection asks the file alone: it stays perfect where the pictures beside it are others. A point's colour is the mean
of what its views showed, so brightness at its sightings goes up and down with it, from point to point of one view.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.datasets.checking.scan import SmallPicture
from smalti.datasets.dataset import Notice, Points, View
from smalti.datasets.pictures import shown

LEAST_SIGHTINGS = 40
"""Fewer say nothing about a view."""
LEAST_CONTRAST = 5.0
"""Standard deviation of the points' brightness (of 255) below which their colours are no evidence."""
DOUBTFUL = 0.6
"""Correlation below which a picture is suspected: right ones were found from 0.78 up, exchanged ones up to 0.56."""
LOOK = "Look at them, or measure with --features always"


class ColorTest:
    """Collects each view's correlation of points and picture, as the pictures come by (from several threads)."""

    def __init__(self, points: Points, views: Sequence[View]) -> None:
        self._views = views
        self._order = np.argsort(points.observation_view, kind="stable")
        self._starts = np.searchsorted(points.observation_view[self._order], np.arange(len(views) + 1))
        self._brightness = points.colors @ np.array([0.299, 0.587, 0.114])
        self._points = points
        self.found: dict[int, float] = {}
        """Row of the view -> correlation; rows that say nothing are left out."""

    def look(self, row: int, picture: SmallPicture) -> None:
        """Measures one view in its picture, of any size."""
        seen = self._order[self._starts[row] : self._starts[row + 1]]
        height, width = picture.grey.shape
        camera = self._views[row].camera
        pixels = np.floor(self._points.observation_xy[seen] * [width / camera.width, height / camera.height])
        inside = ((pixels >= 0) & (pixels < [width, height])).all(1)
        column, line = pixels[inside].astype(np.int64).T
        said = self._brightness[self._points.observation_point[seen[inside]]]
        if len(said) < LEAST_SIGHTINGS or said.std() < LEAST_CONTRAST:
            return
        shows = picture.grey[line, column].astype(np.float64)
        self.found[row] = float(np.corrcoef(said, shows)[0, 1]) if shows.std() > 0 else 0.0

    def notices(self) -> list[Notice]:
        """Views that stand out against the others, or all of them."""
        if not self.found:
            return []
        typical = float(np.median(list(self.found.values())))
        if typical < DOUBTFUL:
            text = "the pictures do not show what the file's points are coloured like (correlation "
            text += f"{typical:.2f}, above {DOUBTFUL} in a good set): other pictures, or invented colours? {LOOK}"
            return [Notice("other-pictures", text, len(self.found))]
        names = [self._views[row].camera.name for row in sorted(self.found) if self.found[row] < DOUBTFUL]
        if not names:
            return []
        text = f"{len(names)} pictures do not show what the file's points are coloured like, the others do: "
        text += f"{shown(names)}; is another picture under their name? {LOOK}"
        return [Notice("other-pictures", text, len(names))]

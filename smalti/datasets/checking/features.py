"""Matched features between neighbouring views: SIFT on small pictures, kept where they fit some epipolar geometry.

The selection never looks at the poses of the file (a fundamental matrix is fitted to the matches themselves), so a
wrong pose cannot hide its own errors. SIFT and the robust fit are pycolmap's (extra `sfm`).
Sources: Lowe 2004 (features, ratio test); Arandjelovic and Zisserman 2012 (root-normalised descriptors).
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from smalti.cameras.camera import Camera
from smalti.datasets.checking.geometry import rays_of

INSTALL = "pip install 'smalti[sfm]'"
LONG_SIDE = 800
"""Pictures are made at most this large before features are looked for, pixels."""
FEW_FEATURES = 200
"""Below this number the pictures are searched again at twice the resolution."""
MOST_FEATURES = 2000
LEAST_MATCHES = 30
"""Fewer matches say nothing about a pair."""
RATIO = 0.8
"""Lowe's ratio: the best match must be this much nearer than the second best."""
TOLERANCE = 2.0
"""Distance from the epipolar line up to which a match counts in the robust fit, pixels at 1000 pixels width."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one picture: rays in the camera's axes and descriptors of length 1."""

    rays: Float[np.ndarray, "n 3"]
    descriptors: Float[np.ndarray, "n 128"]


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matched features of two views, as rays in the axes of each camera."""

    first: int
    second: int
    first_rays: Float[np.ndarray, "n 3"]
    second_rays: Float[np.ndarray, "n 3"]


def load_pycolmap() -> ModuleType | None:
    """The feature library, or None where it is not installed."""
    try:
        # Before pycolmap: the wheels' compression libraries clash where pycolmap is loaded first.
        importlib.import_module("PIL.Image")
        return importlib.import_module("pycolmap")
    except ImportError:
        return None


@contextmanager
def quiet(pycolmap: ModuleType) -> Generator[None, None, None]:
    """Keeps the library's own log below warnings off the terminal."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


class Detector:
    """SIFT on the CPU. Safe to call from several threads: each makes its own extractors, which are not."""

    def __init__(self, pycolmap: ModuleType) -> None:
        self._pycolmap = pycolmap
        self._own = threading.local()

    def _extractors(self) -> list[Any]:
        if not hasattr(self._own, "extractors"):
            self._own.extractors = [self._make(octave) for octave in (0, -1)]
        return self._own.extractors

    def _make(self, first_octave: int) -> Any:
        options = self._pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.num_threads = 1
        options.sift.first_octave = first_octave
        options.sift.max_num_features = MOST_FEATURES
        return self._pycolmap.FeatureExtractor.create(options, self._pycolmap.Device.cpu)

    def __call__(
        self, camera: Camera, grey: UInt8[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"] | None
    ) -> Features:
        """Features of a picture of `camera`, given at any (smaller) size; those outside the mask (0) are dropped."""
        picture = self._pycolmap.Bitmap.from_array(np.ascontiguousarray(grey))
        xy, descriptors = np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        for extractor in self._extractors():
            keypoints, found = extractor.extract(picture)
            xy = np.array([(point.x, point.y) for point in keypoints], np.float64).reshape(-1, 2)
            descriptors = np.asarray(found.data, np.float32).reshape(len(xy), 128)
            if mask is not None:
                column = np.clip(xy[:, 0].astype(int), 0, grey.shape[1] - 1)
                row = np.clip(xy[:, 1].astype(int), 0, grey.shape[0] - 1)
                inside = mask[row, column] > 127
                xy, descriptors = xy[inside], descriptors[inside]
            if len(xy) >= FEW_FEATURES:
                break
        height, width = grey.shape
        rays = rays_of(camera, xy * [camera.width / width, camera.height / height])
        # The fit in the picture plane needs rays well in front of the camera.
        usable = np.isfinite(rays).all(1) & (np.nan_to_num(rays[:, 2]) > 0.1)
        lengths = np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
        return Features(rays[usable], (descriptors / lengths)[usable])


def match(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mutual nearest neighbours that pass the ratio test."""
    if min(len(first.descriptors), len(second.descriptors)) < LEAST_MATCHES:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cosine = first.descriptors @ second.descriptors.T
    best = cosine.argmax(1)
    rows = np.arange(len(best))
    mutual = cosine.argmax(0)[best] == rows
    top = cosine[rows, best]
    cosine[rows, best] = -1.0
    squared = 2.0 - 2.0 * np.stack([top, cosine.max(1)])
    keep = mutual & (squared[0] < RATIO**2 * squared[1])
    return rows[keep], best[keep]


def verified(
    pycolmap: ModuleType, first: Features, second: Features, focal: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Rays of the matches that fit one fundamental matrix, none where too few do. `focal`: pixels at 1000 px width."""
    rows, columns = match(first, second)
    a, b = first.rays[rows], second.rays[columns]
    nothing = np.zeros((0, 3)), np.zeros((0, 3))
    if len(a) < LEAST_MATCHES:
        return nothing
    options = pycolmap.RANSACOptions()
    options.max_error = TOLERANCE
    options.max_num_trials = 3000
    options.random_seed = 1
    fit = pycolmap.estimate_fundamental_matrix(a[:, :2] / a[:, 2:] * focal[0], b[:, :2] / b[:, 2:] * focal[1], options)
    if fit is None:
        return nothing
    inliers = np.asarray(fit["inlier_mask"], bool)
    if inliers.sum() < max(LEAST_MATCHES, 0.5 * len(a)):
        return nothing
    return a[inliers], b[inliers]


def match_pairs(
    features: Sequence[Features], pairs: Iterable[tuple[int, int]], focal: np.ndarray, pycolmap: ModuleType
) -> list[PairMatches]:
    """Matches of the given pairs of views, those with too few left out."""
    found = []
    for i, j in pairs:
        a, b = verified(pycolmap, features[i], features[j], (float(focal[i]), float(focal[j])))
        if len(a):
            found.append(PairMatches(i, j, a, b))
    return found


def thinned_matches(pair: PairMatches, most: int) -> PairMatches:
    """The pair with at most about `most` of its matches, evenly taken."""
    step = max(1, len(pair.first_rays) // most)
    return PairMatches(pair.first, pair.second, pair.first_rays[::step], pair.second_rays[::step])

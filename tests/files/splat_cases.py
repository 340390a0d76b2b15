"""Splats, similarities and comparisons that the tests of the file formats share."""

from __future__ import annotations

import numpy as np
import torch

from smalti.cameras.similarity import Similarity
from smalti.files.splats import SplatMetadata, Splats


def random_splats(count: int, rest: int = 15, seed: int = 0, **metadata: object) -> Splats:
    """Normal deviates of every column."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Splats(
        draw(count, 3),
        draw(count, 3) - 3,
        draw(count, 4),
        draw(count),
        draw(count, 3),
        draw(count, rest, 3),
        SplatMetadata(**metadata),  # pyright: ignore[reportArgumentType]
    )


def random_similarity(seed: int = 0) -> Similarity:
    """Scale 0.37 and a random rotation and shift."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.linalg.det(q))
    return Similarity(0.37, q, torch.randn(3, generator=generator, dtype=torch.float64))


def opacities(splats: Splats) -> np.ndarray:
    """In float64."""
    return 1 / (1 + np.exp(-splats.logit_opacities.astype(np.float64)))


def unit_rows(splats: Splats) -> np.ndarray:
    """Quaternions of unit length."""
    return splats.quaternions / np.linalg.norm(splats.quaternions, axis=1, keepdims=True)


def nearest_rows(got: Splats, expected: Splats) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `expected` the row of `got` that is nearest in place, size, colour and opacity; and True where
    no other row of `expected` was matched to the same.
    """
    from scipy.spatial import cKDTree

    def features(splats: Splats) -> np.ndarray:
        return np.concatenate([splats.means * 300, splats.sh_dc, splats.log_scales, opacities(splats)[:, None]], axis=1)

    rows = cKDTree(features(got)).query(features(expected))[1]
    return rows, np.bincount(rows, minlength=len(got))[rows] == 1

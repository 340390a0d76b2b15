"""Similarities form a group that acts on points and cameras alike."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.cameras.models import project
from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity

from .lenses import make


def of(numbers: list[float]) -> Similarity:
    values = torch.tensor(numbers, dtype=torch.float64)
    return Similarity(math.exp(numbers[0]), so3_exp(values[1:4]), values[4:])


similarities = st.lists(st.floats(-2.0, 2.0), min_size=7, max_size=7).map(of)
POINTS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-0.3, 0.1, 5.0]], dtype=torch.float64)


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(similarities, similarities, similarities)
def test_group(first: Similarity, second: Similarity, third: Similarity) -> None:
    close((first @ second).apply(POINTS), first.apply(second.apply(POINTS)))
    close(((first @ second) @ third).matrix, (first @ (second @ third)).matrix)
    close((first @ first.inverse).matrix, torch.eye(4, dtype=torch.float64))
    close((first.inverse @ first).matrix, torch.eye(4, dtype=torch.float64))
    close((first @ second).inverse.matrix, (second.inverse @ first.inverse).matrix)
    close((first @ Similarity.identity()).matrix, first.matrix)


@settings(max_examples=60, deadline=None)
@given(similarities, similarities)
def test_matrices(first: Similarity, second: Similarity) -> None:
    close((first @ second).matrix, first.matrix @ second.matrix)
    again = Similarity.from_matrix(first.matrix)
    assert again.scale == pytest.approx(first.scale)
    close(again.rotation, first.rotation)
    homogeneous = torch.cat([POINTS, torch.ones(3, 1, dtype=torch.float64)], dim=1)
    close(first.apply(POINTS), (homogeneous @ first.matrix.T)[:, :3])
    np.testing.assert_allclose(first.apply_array(POINTS.numpy()), first.apply(POINTS).numpy(), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(similarities, similarities)
def test_cameras_see_the_same_picture(a_from_b: Similarity, pose: Similarity) -> None:
    camera = dataclasses.replace(make("OPENCV"), rotation=pose.rotation, translation=pose.translation)
    inside = torch.tensor([[0.2, -0.1, 1.5], [-0.4, 0.3, 2.0], [0.0, 0.0, 9.0]], dtype=torch.float64)
    points_b = (inside - camera.translation) @ camera.rotation
    moved = a_from_b.apply_camera(camera)
    before, seen = project(camera, points_b.numpy())
    after, still_seen = project(moved, a_from_b.apply(points_b).numpy())
    assert seen.all()
    assert still_seen.all()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-7)
    close(moved.centre, a_from_b.apply(camera.centre))
    back = a_from_b.inverse.apply_camera(moved)
    close(back.rotation, camera.rotation)
    close(back.translation, camera.translation)


def test_points_keep_their_dtype() -> None:
    moved = of([0.1] * 7).apply(POINTS.float())
    assert moved.dtype == torch.float32


def test_what_is_not_a_similarity_is_refused() -> None:
    good = of([0.2, 0.1, -0.3, 0.5, 1.0, 2.0, 3.0]).matrix
    for name, change in {
        "mirrored": torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64)),
        "not a rotation": torch.diag(torch.tensor([1.0, 1.3, 1.0, 1.0], dtype=torch.float64)),
    }.items():
        with pytest.raises(ValueError, match=name):
            Similarity.from_matrix(good @ change)
    projective = good.clone()
    projective[3, 0] = 0.1
    with pytest.raises(ValueError, match="projective"):
        Similarity.from_matrix(projective)
    with pytest.raises(ValueError, match="4x4"):
        Similarity.from_matrix(good[:3])
    with pytest.raises(ValueError, match="positive"):
        Similarity(0.0, torch.eye(3), torch.zeros(3))
    with pytest.raises(ValueError, match="translation"):
        Similarity(1.0, torch.eye(3), torch.zeros(4))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_halves_of_different_precision_go_together(kind: torch.dtype) -> None:
    """Only one of the two is given, in single precision; the other is the default in double."""
    moved = Similarity(translation=torch.tensor([1.0, 2.0, 3.0], dtype=kind))
    turned = Similarity(2.0, rotation=so3_exp(torch.tensor([0.1, 0.2, 0.3], dtype=kind)))
    for each in (moved, turned, moved @ turned, turned @ moved):
        torch.testing.assert_close((each @ each.inverse).matrix.double(), torch.eye(4).double(), rtol=0, atol=1e-6)
        assert each.apply(POINTS.float()).dtype == torch.float32
        assert each.apply_camera(make("PINHOLE")).centre.isfinite().all()

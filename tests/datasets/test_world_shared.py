"""The canonical frames of the shared captures, against what is known of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rigs import degrees_between

from smalti.configs.resolve import resolve
from smalti.datasets.dataset import Dataset
from smalti.datasets.initial import one_instant
from smalti.datasets.open import open_dataset
from smalti.datasets.world import World, find_world
from smalti.trainers.alignment import found_alignment

DTU_ELEVATION = 115.0
"""Degrees by which Monnier et al. 2023 turn the canonical frame of all DTU scans about x."""


def by_cameras(dataset: Dataset) -> World:
    return find_world([view.camera for view in dataset.views], dataset.points)


def elevation(up: np.ndarray) -> float:
    """Of an up direction about x, degrees, as `DTU_ELEVATION` counts."""
    return float(np.degrees(np.arctan2(-up[2], up[1])))


@pytest.mark.parametrize(
    ("folder", "up", "degrees"),
    [
        ("chair_blender", (0.0, 0.0, 1.0), 0.01),  # Blender's frame
        ("spot_bob_dynamic", (0.0, 0.0, 1.0), 0.01),
        ("fox", (0.0, 0.0, 1.0), 5.0),  # colmap2nerf turned the mean of the pictures' upper edges to z
        ("temple_sparse_ring", (0.012, 0.999, -0.037), 0.5),  # normal of the plane of the ring's centres
        ("ethiopian_head", (-0.012, -0.901, -0.433), 1.2),
        ("king_colmap", (-0.013, -0.675, -0.738), 1.0),
    ],
)
def test_up_is_what_is_known(shared_data: Path, folder: str, up: tuple[float, float, float], degrees: float) -> None:
    world = by_cameras(open_dataset(shared_data / folder))
    assert degrees_between(world.up, np.array(up)) < degrees
    assert world.notices == ()


def test_dtu_stands_as_published(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "dtu_scan24_384")
    world = by_cameras(dataset)
    assert elevation(world.up) == pytest.approx(DTU_ELEVATION, abs=3.0)
    # Published: the cube's half side is half the radius of IDR's sphere, about the sphere's centre.
    sphere = next(notice.text for notice in dataset.notices if notice.code == "scale-mat")
    assert "radius 223.333 around (43.3918, -18.5879, 613.81)" in sphere
    assert np.linalg.norm(world.centre - (43.3918, -18.5879, 613.81)) < 0.01 * 223.333
    assert world.unit == pytest.approx(0.5 * 223.333, rel=0.1)


@pytest.mark.slow
def test_dtu_with_triangulated_points_finds_the_table(shared_data: Path) -> None:
    pytest.importorskip("pycolmap", reason="triangulation needs pycolmap")
    dataset = open_dataset(shared_data / "dtu_scan24_384")
    world = found_alignment(resolve("", {"data.align": "auto"}), dataset).world
    assert world.findings["up"].how == world.findings["ground"].how == "plane"
    assert elevation(world.up) == pytest.approx(DTU_ELEVATION, abs=5.0)
    assert degrees_between(world.up, by_cameras(dataset).up) < 8.0
    assert world.unit == pytest.approx(0.5 * 223.333, rel=0.2)


def test_the_visual_hull_of_a_moving_pair_fills_the_cube(shared_data: Path) -> None:
    dataset = one_instant(open_dataset(shared_data / "spot_bob_dynamic"))
    settings = {"data.align": "auto", "data.sampled_points": 3000, "data.split": "none"}
    alignment = found_alignment(resolve("", settings), dataset)
    assert alignment.points is not None
    assert alignment.points.origin == "hull"
    inside = alignment.world.canonical_from_input.apply(torch.from_numpy(alignment.points.positions))
    assert float(inside.abs().amax()) < 1.0
    assert float(inside.abs().amax()) > 0.85
    assert alignment.world.findings["centre"].how == "points"

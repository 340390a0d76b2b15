"""Damaged files never raise anything but `DatasetError`, and cutting a file off is never taken for a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_sets

from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.open import open_dataset

FILES: dict[str, tuple[Callable[..., Path], str]] = {
    "colmap": (small_sets.write_colmap_binary, "sparse/0/images.bin"),
    "colmap cameras": (small_sets.write_colmap_binary, "sparse/0/cameras.bin"),
    "colmap points": (small_sets.write_colmap_binary, "sparse/0/points3D.bin"),
    "colmap text": (small_sets.write_colmap_text, "sparse/0/images.txt"),
    "colmap text cameras": (small_sets.write_colmap_text, "sparse/0/cameras.txt"),
    "colmap text points": (small_sets.write_colmap_text, "sparse/0/points3D.txt"),
    "transforms": (small_sets.write_transforms, "transforms.json"),
    "blender": (small_sets.write_blender, "transforms_train.json"),
    "llff": (small_sets.write_llff, "poses_bounds.npy"),
    "idr": (small_sets.write_idr, "cameras.npz"),
    "middlebury": (small_sets.write_middlebury, "set_par.txt"),
    "bundler": (small_sets.write_bundler, "bundle.out"),
    "rig": (small_sets.write_rig, "calibration.json"),
    "krt": (small_sets.write_krt, "KRT"),
}


def opened(root: Path) -> Dataset | None:
    """The data set, or None where it is refused as bad data; any other exception fails the test."""
    try:
        return open_dataset(root)
    except DatasetError:
        return None


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """One of: flipped bytes, a cut, a repeated or a removed stretch, zeros, digits turned to letters."""
    values = bytearray(data)
    place, length = int(generator.integers(len(data))), int(generator.integers(1, 40))
    kind = generator.integers(6)
    if kind == 0:
        for index in generator.integers(len(data), size=3):
            values[index] = int(generator.integers(256))
    elif kind == 1:
        del values[place:]
    elif kind == 2:
        values[place:place] = values[place : place + length]
    elif kind == 3:
        del values[place : place + length]
    elif kind == 4:
        values[place : place + length] = bytes(len(values[place : place + length]))
    else:
        values[place : place + 1] = bytes(
            generator.choice([b"-", b"e", b"9", b"nan", b" ", b"\n", b"\xff", b"[", b"{"])
        )
    return bytes(values)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_reported_as_bad_data(name: str, tmp_path: Path) -> None:
    write, file = FILES[name]
    root = write(tmp_path, small_sets.cameras(3))
    good = (root / file).read_bytes()
    generator = np.random.default_rng(len(name))
    refused = 0
    for _ in range(60):
        (root / file).write_bytes(damaged(good, generator))
        dataset = opened(root)
        refused += dataset is None
        if dataset is not None:
            for view in dataset.views:
                assert view.camera.intrinsics.isfinite().all()
                assert view.camera.rotation.isfinite().all()
                assert view.camera.translation.isfinite().all()
    assert refused > 10


ODD: list[object] = [None, "x", [], {}, 1e999, -1, float("nan"), 10**30, True, [[1]], 0, [1, 2, 3], ""]


def nodes(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Paths to every node of a JSON document."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        found += nodes(child, (*path, key))
    return found


@pytest.mark.parametrize("name", ["transforms", "blender", "rig"])
def test_odd_values_anywhere_in_json(name: str, tmp_path: Path) -> None:
    write, file = FILES[name]
    root = write(tmp_path, small_sets.cameras(3))
    text = (root / file).read_text()
    generator = np.random.default_rng(3)
    paths = nodes(json.loads(text))
    for index in generator.permutation(len(paths))[:60]:
        for value in generator.choice(np.array(ODD, object), 3, replace=False):
            table = json.loads(text)
            node = table
            for key in paths[index][:-1]:
                node = node[key]
            node[paths[index][-1]] = value
            (root / file).write_text(json.dumps(table))
            opened(root)

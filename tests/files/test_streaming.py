"""Writers take memory for a chunk, not for the scene: what they ask for beyond the splats grows with none of the rows.

Measured with tracemalloc, which counts what Python and numpy ask for, by writing two numbers of splats and dividing
the difference of the peaks by that of the rows.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from splat_cases import random_splats

from smalti.cameras.similarity import Similarity
from smalti.files import write_scene_file
from smalti.files.glb_build import GlbBuilder
from smalti.files.splats import Splats, similarity_transform

pytestmark = pytest.mark.usefixtures("one_torch_thread")
FEW, MANY = 40_000, 160_000
TURN = similarity_transform(Similarity(2.0, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)))


def peak_of(write: Callable[[Splats], object], splats: Splats) -> int:
    tracemalloc.start()
    try:
        write(splats)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def per_row(write: Callable[[Splats], object]) -> float:
    whole = random_splats(MANY, 0)
    few, many = (peak_of(write, whole.rows(0, count)) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


@pytest.mark.parametrize(
    ("extension", "most"),
    [
        (".ply", 0.5),
        (".splat", 0.5),
        (".spz", 0.5),
        (".glb", 0.5),
        (".compressed.ply", 20),  # the order along the curve: 16
        (".sog", 75),  # an image and what it is made of: 55
    ],
)
def test_bytes_for_a_gaussian_more(extension: str, most: float, tmp_path: Path) -> None:
    """A row of degree 0 is 56 bytes; a writer that held the scene once more would take as much, and twice that with
    a transform.
    """
    assert per_row(lambda splats: write_scene_file(tmp_path / f"a{extension}", splats, TURN)) < most


def test_splats_among_meshes(tmp_path: Path) -> None:
    def write(splats: Splats) -> None:
        with GlbBuilder(tmp_path / "a.glb") as builder:
            builder.add_splats("cloud", splats, TURN, {})
            builder.write()

    assert per_row(write) < 0.5

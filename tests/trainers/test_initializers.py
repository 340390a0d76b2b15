"""Where layers come from: points, grids, bounds, the visual hull, files, for any family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.configs.config import LayerConfig
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.hull import hull_points
from smalti.datasets.hull_field import LEVEL, hull_field
from smalti.datasets.initial import frustum_points
from smalti.datasets.open import open_dataset, select_views
from smalti.datasets.world import PARTS, Finding, World, find_world
from smalti.primitives.family import Family
from smalti.trainers.initializers import Ground, hull_surface, initial_family


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    whole = open_dataset("demo")
    return select_views(whole, list(range(0, 40, 4)))


@pytest.fixture
def ground(dataset: Dataset) -> Ground:
    generator = torch.Generator().manual_seed(0)
    points = hull_points(dataset, 500, generator)
    positions = torch.from_numpy(points.positions).float()
    return Ground(dataset, positions, torch.from_numpy(points.colors).float() / 255, generator)


def made(ground: Ground, initializer: str, family: str = "gaussians", **settings: Any) -> Family:
    return initial_family(LayerConfig(name="a", family=family, initializer=initializer, settings=settings), ground)


def test_points_are_all_or_a_choice_of_the_captures_own(ground: Ground) -> None:
    assert torch.equal(made(ground, "points").positions(), ground.positions)
    few = made(ground, "points", count=50).positions().detach()
    assert len(few) == 50
    assert bool((few[:, None] == ground.positions[None]).all(2).any(1).all())


def turned_world(height: float | None) -> World:
    """A canonical frame that is turned, moved and of another unit than the input's."""
    rotation = matrix_from_quaternion(torch.tensor([0.9, 0.2, -0.3, 0.5], dtype=torch.float64))
    move = Similarity(2.0, rotation, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    return World(move, height, {name: Finding("stated", "") for name in PARTS})


def test_the_world_is_where_the_published_start_stands(ground: Ground) -> None:
    """Blocks about the canonical origin, as large as published in its units; the ground below, with +y up."""
    ground = replace(ground, aligned=turned_world(-0.4))
    world = ground.world()
    blocks = made(ground, "world", "superquadrics", count=400)
    assert blocks.metadata["ratio"] == pytest.approx(0.25 * world.unit)
    centres = world.canonical_from_input.apply(blocks.positions().detach())
    assert torch.allclose(centres.std(0), torch.full((3,), 0.5), atol=0.05)
    assert torch.allclose(centres.mean(0), torch.zeros(3), atol=0.08)
    for initializer, height in (("world", -0.9), ("floor", -0.4)):
        floor = made(ground, initializer, "backdrops")
        middle = world.canonical_from_input.apply(floor.positions().detach())[0]
        assert torch.allclose(middle, torch.tensor([0.0, height, 0.0]), atol=1e-6)
        surface = floor.surface()
        assert surface is not None
        spots = world.canonical_from_input.apply(surface.vertices)
        assert torch.allclose(spots[:, 1], torch.full((81,), height), atol=1e-5)
        assert float(spots[:, 0].max()) == pytest.approx(10, abs=1e-4)
    unknown = made(replace(ground, aligned=turned_world(None)), "floor", "backdrops")
    assert float(world.canonical_from_input.apply(unknown.positions().detach())[0, 1]) == pytest.approx(-0.9)


def test_what_lies_around_the_cameras_holds_them_all(ground: Ground) -> None:
    """A dome as published where the cameras stand in it; where the canonical unit is small, one that is larger."""
    centres = torch.stack([view.camera.centre.double() for view in ground.dataset.views])
    for scale, told in ((1.0, 0), (10.0, 1)):
        world = turned_world(None)
        move = world.canonical_from_input
        world = replace(world, canonical_from_input=Similarity(scale, move.rotation, scale * move.translation))
        notices: list[str] = []
        layer = LayerConfig(name="sky", family="backdrops", initializer="around", metadata={"form": "dome"})
        sky = initial_family(layer, replace(ground, aligned=world, notices=notices))
        surface = sky.surface()
        assert surface is not None
        corners = world.canonical_from_input.apply(surface.vertices.double())
        farthest = float(world.canonical_from_input.apply(centres).norm(dim=1).max())
        assert float(corners.norm(dim=1).min()) == pytest.approx(max(10.0, 1.3 * farthest), rel=0.02)
        assert (farthest > 10) is bool(told)
        assert len(notices) == told


def test_a_world_is_found_where_none_is_given(ground: Ground) -> None:
    found = find_world([view.camera for view in ground.dataset.views], ground.dataset.points)
    blocks = made(ground, "world", "superquadrics", count=3)
    assert blocks.metadata["ratio"] == pytest.approx(0.25 * found.unit)


def test_random_and_grid_fill_the_bounds(ground: Ground) -> None:
    low, high = ground.bounds(0.1)
    for family in (made(ground, "random", count=300), made(ground, "grid", count=100)):
        positions = family.positions().detach()
        assert bool(((positions >= low - 1e-5) & (positions <= high + 0.3 * (high - low))).all())
        spread = positions.amax(0) - positions.amin(0)
        assert bool((spread > 0.7 * (high - low)).all())
    assert 30 < len(made(ground, "grid", count=100)) <= 100
    tight = ground.bounds(0.0)
    inside = ((ground.positions >= tight[0]) & (ground.positions <= tight[1])).all(1)
    assert 0.9 < float(inside.float().mean()) < 1.0


def test_an_occupied_grid_is_where_the_points_are(ground: Ground) -> None:
    made_grid = made(ground, "grid", count=60, occupied=True)
    positions = made_grid.positions().detach()
    assert 20 < len(positions) <= 60
    pitch = torch.cdist(positions, positions).fill_diagonal_(torch.inf).amin()
    assert float(torch.cdist(positions, ground.positions).amin(1).max()) <= float(pitch) * 3**0.5 / 2 + 1e-5


def test_the_hulls_surface_encloses_what_all_views_allow(dataset: Dataset, ground: Ground) -> None:
    surface = hull_surface(dataset, 1500)
    assert 900 < len(surface.faces) < 2200
    dense = hull_points(dataset, 4000, torch.Generator().manual_seed(1)).positions
    low, high = surface.vertices.amin(0).numpy(), surface.vertices.amax(0).numpy()
    assert np.abs(low - dense.min(0)).max() < 0.1 * (high - low).max()
    assert np.abs(high - dense.max(0)).max() < 0.1 * (high - low).max()
    voxel = hull_field(dataset, 1500)
    inside = float((voxel.values > LEVEL).sum()) * voxel.edge**3
    assert surface.volume() == pytest.approx(inside, rel=0.1)
    assert surface.colors is not None
    assert float(surface.colors.std(0).mean()) > 0.1
    assert len(made(ground, "hull", "meshes", faces=1500)) == len(surface.faces)
    assert len(made(ground, "hull", "surfels", faces=1500, primitives=70)) == 70


def test_spheres_fill_the_bounds_or_sit_where_the_points_are(ground: Ground) -> None:
    one = made(ground, "spheres", "meshes", level=2)
    assert len(one) == 320
    box = ground.bounds(0.1)
    held = one.bounds()
    assert torch.allclose(held[:, 0].amin(0), box[0], atol=0.06)
    assert torch.allclose(held[:, 1].amax(0), box[1], atol=0.06)
    several = made(ground, "spheres", "meshes", level=1, count=12)
    assert len(several) % 80 == 0
    assert 4 <= len(several) // 80 <= 12


def test_without_silhouettes_the_hull_says_what_else_there_is(ground: Ground) -> None:
    from dataclasses import replace

    views = [replace(view, image=view.image.parent / "nowhere.jpg", mask=None) for view in ground.dataset.views[:2]]
    with pytest.raises(DatasetError, match=r"not every view has a mask or alpha\. Start the layer from something else"):
        hull_surface(replace(ground.dataset, views=views), 100)


def test_a_layer_without_primitives_is_an_error(ground: Ground) -> None:
    """The solid of a single point has no surface."""
    with pytest.raises(ConfigError, match=r"scene.a: 'points' made no primitives"):
        made(ground, "points", family="meshes", count=1)


def test_bounds_need_points_and_files_must_be_there(ground: Ground, tmp_path: Path) -> None:
    empty = Ground(ground.dataset, torch.zeros(0, 3), torch.zeros(0, 3), ground.generator)
    with pytest.raises(ConfigError, match=r"scene\.a: there are no points"):
        made(empty, "grid")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        made(ground, "file", path=str(tmp_path / "nowhere.ply"))


def test_random_points_do_as_well(dataset: Dataset) -> None:
    generator = torch.Generator().manual_seed(0)
    points = frustum_points(dataset, 200, generator)
    ground = Ground(
        dataset, torch.from_numpy(points.positions).float(), torch.from_numpy(points.colors).float() / 255, generator
    )
    assert len(made(ground, "spheres", "meshes", count=5, level=0)) >= 20


@pytest.mark.parametrize(("family", "drawn"), [("superquadrics", "raw_textures"), ("neural_splats", "frequencies")])
def test_what_a_family_draws_by_its_own_seed_follows_the_runs(ground: Ground, family: str, drawn: str) -> None:
    """Seed 0 of a run is what the family draws by default; a seed that the layer states is kept."""

    def start(seed: int, **metadata: Any) -> torch.Tensor:
        layer = LayerConfig(name="a", family=family, settings={"count": 20}, metadata=metadata)
        again = replace(ground, generator=torch.Generator().manual_seed(0), seed=seed)
        return initial_family(layer, again).parameters[drawn].detach()

    assert torch.equal(start(0), start(0, initial_seed=0))
    assert not torch.equal(start(1), start(0))
    assert torch.equal(start(1), start(5, initial_seed=1))


@pytest.mark.parametrize("places", ["random", "even"])
def test_no_blocks_at_all_are_refused_by_name(ground: Ground, places: str) -> None:
    metadata: dict[str, bool | int | float | str] = {"initial_places": places, "texture_size": 4}
    layer = LayerConfig(name="a", family="superquadrics", initializer="world", settings={"count": 0}, metadata=metadata)
    with pytest.raises(ConfigError, match=r"scene\.a: 'world' made no primitives of family 'superquadrics'"):
        initial_family(layer, ground)

"""The canonical frame of a capture: known truth under any similarity, overrides, degenerate captures, its picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rigs import camera_at, degrees_between, dome, moved, on_sphere, ring, somewhere, table

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.datasets.dataset import Points, View
from smalti.datasets.world import Wishes, World, axis_vector, find_world
from smalti.datasets.world_evidence import robust_focus
from smalti.datasets.world_picture import draw_world


def true_up(move: Similarity) -> np.ndarray:
    return move.rotation.numpy() @ np.array([0.0, 1.0, 0.0])


def canonical(cameras: list[Camera], points: Points | None, world: World) -> tuple[list[Camera], Points | None]:
    return moved(cameras, points, world.canonical_from_input)


def assert_identity(similarity: Similarity, tolerance: float = 1e-6) -> None:
    assert similarity.scale == pytest.approx(1.0, abs=tolerance)
    assert float((similarity.rotation - torch.eye(3, dtype=torch.float64)).abs().max()) < tolerance
    assert float(similarity.translation.abs().max()) < tolerance


# -- known truth ------------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_cameras_and_a_table_under_any_similarity(seed: int) -> None:
    move = somewhere(seed)
    cameras, points = moved(dome(arc=150.0, seed=seed), table(seed=seed), move)
    world = find_world(cameras, points)
    assert world.findings["up"].how == world.findings["ground"].how == "plane"
    assert degrees_between(world.up, true_up(move)) < 0.5
    truth_from_canonical = move.inverse @ world.input_from_canonical
    ground_point = truth_from_canonical.apply(torch.tensor([[0.0, world.ground, 0.0]], dtype=torch.float64))[0]
    assert float(ground_point[1]) == pytest.approx(-0.8, abs=0.02)
    assert truth_from_canonical.scale == pytest.approx(0.88, rel=0.05)  # the block's largest half side, and a tenth
    assert float(truth_from_canonical.translation.norm()) < 0.05
    assert world.notices == ()


@given(seed=st.integers(0, 10_000), arc=st.sampled_from([360.0, 120.0, 70.0]))
@settings(max_examples=12, deadline=None)
def test_cameras_alone_under_any_similarity(seed: int, arc: float) -> None:
    move = somewhere(seed)
    cameras, _ = moved(dome(40, arc=arc, roll=0.5, seed=seed), None, move)
    world = find_world(cameras)
    assert world.findings["up"].how == "cameras"
    assert degrees_between(world.up, true_up(move)) < 1.0
    truth_from_canonical = move.inverse @ world.input_from_canonical
    assert float(truth_from_canonical.translation.norm()) < 0.2
    seen = 5.0 * np.sin(np.arctan(0.75 * np.tan(0.35)))  # the shorter side of the pictures, at the focus
    assert truth_from_canonical.scale == pytest.approx(0.85 * seen, rel=0.03)
    assert world.ground is None


@pytest.mark.parametrize("roll", [90.0, -90.0])
def test_a_turntable_with_pictures_on_their_sides(roll: float) -> None:
    move = somewhere(3)
    cameras, _ = moved(ring(roll=roll), None, move)
    world = find_world(cameras)
    assert degrees_between(world.up, true_up(move)) < 1e-4
    assert "lie on their sides" in world.findings["up"].text
    assert world.notices == ()


def test_a_turntable_at_the_height_of_its_object_says_that_it_may_be_upside_down() -> None:
    move = somewhere(4)
    world = find_world(moved(ring(elevation=0.0), None, move)[0])
    angle = degrees_between(world.up, true_up(move))
    assert min(angle, 180.0 - angle) < 1e-3
    assert any("upside down" in text for text in world.notices)


def test_pictures_turned_by_any_angle_leave_the_axis_of_the_ring() -> None:
    move = somewhere(5)
    cameras = [camera_at(on_sphere(20.0 * row, 25.0), roll=137.0 * row) for row in range(18)]
    world = find_world(moved(cameras, None, move)[0])
    assert degrees_between(world.up, true_up(move)) < 0.1
    assert "ring" in world.findings["up"].text


def test_a_few_rolled_cameras_do_not_tilt_the_horizon() -> None:
    cameras = [*dome(30, roll=0.3), *(camera_at(on_sphere(30.0 * row, 30.0), roll=50.0) for row in range(5))]
    assert degrees_between(find_world(cameras).up, np.array([0.0, 1.0, 0.0])) < 1.0


def test_one_camera_that_looks_away_does_not_move_the_focus() -> None:
    cameras = [*dome(20), camera_at(on_sphere(10.0, 30.0), target=np.array([9.0, 4.0, 3.0]))]
    assert float(np.linalg.norm(find_world(cameras).centre)) < 0.1


def test_a_wall_is_no_ground() -> None:
    points = table()
    wall = points.positions[:, [0, 2, 1]].copy()  # the table stands upright behind the block
    world = find_world(dome(arc=120.0), replace(points, positions=wall))
    assert world.findings["up"].how == "cameras"
    assert degrees_between(world.up, np.array([0.0, 1.0, 0.0])) < 1.0


def test_a_ceiling_is_no_ground() -> None:
    points = table(height=-0.8)
    above = points.positions * (1.0, -1.0, 1.0)
    world = find_world(dome(), replace(points, positions=above))
    assert world.ground is not None
    assert world.ground < -0.5  # the block's lower side, if any plane
    assert degrees_between(world.up, np.array([0.0, 1.0, 0.0])) < 1.0


def test_random_points_say_nothing() -> None:
    points = replace(table(), origin="random")
    assert find_world(dome(), points).lines() == find_world(dome()).lines()


def test_the_bounds_of_a_visual_hull_are_the_cube() -> None:
    generator = np.random.default_rng(0)
    positions = np.array([0.1, 0.2, -0.1]) + generator.uniform(-1.0, 1.0, (4000, 3)) * (0.3, 0.6, 0.2)
    points = Points(positions, np.full((4000, 3), 90, np.uint8), origin="hull")
    world = find_world(dome(), points)
    assert world.unit == pytest.approx(0.66, rel=0.02)
    assert np.abs(world.centre - (0.1, 0.2, -0.1)).max() < 0.02
    assert world.ground == pytest.approx(-0.6 / 0.66, abs=0.03)


def test_there_is_no_ground_above_cameras() -> None:
    generator = np.random.default_rng(0)
    points = Points(generator.uniform(-0.5, 0.5, (4000, 3)), np.full((4000, 3), 90, np.uint8), origin="hull")
    below = [camera_at(on_sphere(30.0 * row, -30.0)) for row in range(3)]
    assert find_world(dome(), points).ground is not None
    world = find_world([*dome(), *below], points)
    assert world.ground is None
    assert "cameras stand lower" in world.findings["ground"].text


# -- a value ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arc", [360.0, 100.0])
@pytest.mark.parametrize("with_points", [True, False])
def test_aligning_twice_is_the_identity(arc: float, with_points: bool) -> None:
    cameras, points = moved(dome(arc=arc), table() if with_points else None, somewhere(11))
    first = find_world(cameras, points)
    second = find_world(*canonical(cameras, points, first))
    assert_identity(second.canonical_from_input)
    assert second.ground == (None if first.ground is None else pytest.approx(first.ground, abs=1e-6))


def test_the_front_is_where_the_cameras_are_on_one_side() -> None:
    world = find_world(moved(dome(arc=100.0), None, somewhere(12))[0])
    placed = [
        world.canonical_from_input.apply_camera(camera) for camera in moved(dome(arc=100.0), None, somewhere(12))[0]
    ]
    middle = torch.stack([camera.centre for camera in placed]).mean(0)
    assert float(middle[2]) > 2.0
    assert abs(float(middle[0])) < 0.5


def test_axes_stay_where_cameras_stand_all_around() -> None:
    z_up = Similarity(2.0, torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64))
    world = find_world(moved(dome(36, roll=0.0), None, z_up)[0])
    assert degrees_between(world.up, np.array([0.0, 0.0, 1.0])) < 0.1
    right = world.canonical_from_input.rotation[0].numpy()
    assert degrees_between(right, np.array([1.0, 0.0, 0.0])) < 0.1


def test_plain_values_keep_everything() -> None:
    world = find_world(*moved(dome(), table(), somewhere(1)))
    again = World.from_plain(json.loads(json.dumps(world.to_plain())))
    assert again.to_plain() == world.to_plain()
    assert_identity(again.canonical_from_input @ world.input_from_canonical, 1e-9)


def test_lines_name_every_part() -> None:
    assert [line.split(":")[0] for line in find_world(dome(), table()).lines()] == ["up", "centre", "scale", "ground"]


# -- stated -----------------------------------------------------------------------------------------------------------
def test_what_is_stated_holds() -> None:
    centre = np.array([0.3, -0.2, 0.1])
    wishes = Wishes(axis_vector("-z"), centre, 2.5, -0.7)
    world = find_world(dome(), table(), wishes)
    assert np.allclose(world.up, [0.0, 0.0, -1.0], atol=1e-12)
    assert np.allclose(world.centre, centre, atol=1e-12)
    assert world.unit == pytest.approx(2.5)
    assert world.ground == -0.7
    assert {finding.how for finding in world.findings.values()} == {"stated"}


def test_a_stated_height_may_be_a_whole_number() -> None:
    assert find_world(dome(), table(), Wishes(centre=np.array([0.0, 1.0, 0.0]), ground=-1)).ground == -1.0


def test_no_ground_can_be_stated() -> None:
    world = find_world(dome(), table(), Wishes(ground="none"))
    assert world.ground is None
    assert world.findings["up"].how == "cameras"


def test_a_stated_up_still_finds_the_height_of_the_ground() -> None:
    move = somewhere(8)
    cameras, points = moved(dome(), table(), move)
    tilted = true_up(move) + 0.05 * np.array([1.0, 0.0, 0.0])
    world = find_world(cameras, points, Wishes(up=tilted / np.linalg.norm(tilted)))
    assert degrees_between(world.up, tilted) < 1e-6
    assert world.findings["ground"].how == "plane"
    below = (move.inverse @ world.input_from_canonical).apply(
        torch.tensor([[0.0, world.ground, 0.0]], dtype=torch.float64)
    )
    assert float(below[0, 1]) == pytest.approx(-0.8, abs=0.02)


@pytest.mark.parametrize("tilt", [3.0, 9.0])
@pytest.mark.parametrize("centre", [None, (0.5, 0.2, -0.3)])
def test_a_plane_that_tilts_against_a_stated_up_is_met_under_the_middle(
    tilt: float, centre: tuple[float, float, float] | None
) -> None:
    angle = np.radians(tilt)
    up = np.array([np.sin(angle), np.cos(angle), 0.0])
    middle = None if centre is None else np.array(centre)
    world = find_world(dome(), table(strays=0), Wishes(up=up, centre=middle))
    assert world.findings["ground"].how == "plane"
    under = world.input_from_canonical.apply(torch.tensor([[0.0, world.ground, 0.0]], dtype=torch.float64))
    assert float(under[0, 1]) == pytest.approx(-0.8, abs=0.002)  # the table, straight below as up is stated
    if centre is None:  # the table around is not taken for the block that stands on it
        assert np.abs(world.centre).max() < 0.05
        assert 1.1 * 0.8 * 0.97 < world.unit < 1.1 * (0.8 * np.cos(angle) + 0.7 * np.sin(angle))


# -- how sure ---------------------------------------------------------------------------------------------------------
def tilted(points: Points, degrees: float) -> Points:
    """The table turned about x, the cameras left alone."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return replace(points, positions=points.positions @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]))


def test_cameras_and_a_ground_that_disagree_are_both_told() -> None:
    near = find_world(dome(), tilted(table(), 2.0))
    assert near.notices == ()
    assert degrees_between(near.rivals["cameras"], near.up) == pytest.approx(2.0, abs=0.5)
    world = find_world(dome(), tilted(table(), 12.0))
    assert world.findings["up"].how == "plane"
    (note,) = world.notices
    assert "the ground plane's normal was chosen, 11.8 degrees from the cameras' (level horizons" in note
    assert degrees_between(world.rivals["cameras"], np.array([0.0, 1.0, 0.0])) < 1.0
    written = axis_vector(note.rsplit(" ", 1)[1])  # what the note says to state is what would be meant
    assert degrees_between(find_world(dome(), tilted(table(), 12.0), Wishes(up=written)).up, np.eye(3)[1]) < 1.0


def test_a_floor_beyond_tells_that_the_cameras_are_tilted() -> None:
    """As where a chair is photographed: few points are on the floor, far below, and none is a ground to measure by."""
    generator = np.random.default_rng(0)
    block = generator.uniform(-0.5, 0.5, (600, 3))
    floor = np.stack([generator.uniform(-3.0, 3.0, 40), np.full(40, -2.4), generator.uniform(-3.0, 3.0, 40)], axis=1)
    points = tilted(Points(np.concatenate([block, floor]), np.full((640, 3), 128, np.uint8)), 9.0)
    world = find_world(dome(arc=150.0), points)
    assert world.findings["up"].how == "cameras"
    assert degrees_between(world.rivals["far plane"], world.up) == pytest.approx(9.0, abs=1.0)
    (note,) = world.notices
    assert "the cameras' was chosen, " in note
    assert "a plane farther down, of 40 points" in note
    straight = find_world(dome(arc=150.0), tilted(points, -9.0))
    assert straight.notices == ()
    again = World.from_plain(json.loads(json.dumps(world.to_plain())))
    assert np.array_equal(again.rivals["far plane"], world.rivals["far plane"])


def test_horizons_say_how_well_they_agree() -> None:
    """Over many rigs the direction is within twice its standard error in most, and not by being vague."""
    inside, said = 0, list[float]()
    for seed in range(40):
        world = find_world(dome(24, arc=100.0, roll=2.0, seed=seed))
        error = float(world.findings["up"].text.split("agree to ")[1].rstrip(")"))
        inside += degrees_between(world.up, np.array([0.0, 1.0, 0.0])) <= error
        said.append(error)
    assert inside >= 32
    assert np.median(said) < 3.0
    wild = find_world(dome(6, arc=60.0, roll=10.0, seed=1))
    assert any("agree about up to" in note for note in wild.notices)


# -- as people write it -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "vector"),
    [("z", (0, 0, 1)), ("-Y", (0, -1, 0)), ("+x", (1, 0, 0)), ("0,0,-2", (0, 0, -1)), ([0.0, 3.0, 4.0], (0, 0.6, 0.8))],
)
def test_directions_as_people_write_them(text: str | list[float], vector: tuple[float, ...]) -> None:
    assert np.allclose(axis_vector(text), vector)


@pytest.mark.parametrize("text", ["up", "", "1,2", "0,0,0", [0.0, 0.0, 0.0], [1.0, 2.0], [float("nan"), 1.0, 0.0]])
def test_what_is_no_direction(text: str | list[float]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        axis_vector(text)


# -- degenerate -------------------------------------------------------------------------------------------------------
def forward_facing(count: int = 9) -> list[Camera]:
    """Parallel axes, as in LLFF: a grid of cameras that look along -z."""
    places = [np.array([0.2 * (row % 3), 0.2 * (row // 3), 4.0]) for row in range(count)]
    return [camera_at(place, target=place - (0.0, 0.0, 1.0)) for place in places]


@pytest.mark.parametrize("with_points", [True, False])
def test_parallel_axes_give_an_upright_guess_and_say_so(with_points: bool) -> None:
    move = somewhere(20)
    cameras, points = moved(forward_facing(), table() if with_points else None, move)
    world = find_world(cameras, points)
    assert degrees_between(world.up, true_up(move)) < 1.0
    assert any("do not meet" in text for text in world.notices)
    ahead = move.inverse.apply(torch.from_numpy(world.centre))
    assert float(ahead[2]) < 3.5
    assert np.isfinite(world.unit)


@pytest.mark.parametrize("count", [1, 2])
def test_one_camera_or_two(count: int) -> None:
    world = find_world([camera_at(on_sphere(40.0 * row, 10.0)) for row in range(count)])
    assert degrees_between(world.up, np.array([0.0, 1.0, 0.0])) < 15.0
    assert world.notices
    assert world.unit > 0


def test_cameras_at_one_place_that_look_around() -> None:
    place = np.array([1.0, 2.0, 3.0])
    cameras = [camera_at(place, target=place + on_sphere(36.0 * row, 0.0)) for row in range(10)]
    for points in (None, table()):
        world = find_world(cameras, points)
        assert degrees_between(world.up, np.array([0.0, 1.0, 0.0])) < 0.1
        assert world.notices


def test_cameras_that_look_straight_down() -> None:
    place = np.array([0.1, 6.0, 0.0])
    steps = [np.array([0.5 * row, 0.0, 0.01]) for row in range(4)]
    cameras = [camera_at(place + step, target=step * (1.0, 0.0, 0.0)) for step in steps]
    world = find_world(cameras)
    assert np.isfinite(world.up).all()
    assert world.notices


def test_points_that_are_not_finite_are_left_out() -> None:
    points = table()
    broken = points.positions.copy()
    broken[::50] = np.nan
    world = find_world(dome(), replace(points, positions=broken))
    assert degrees_between(world.up, np.array([0.0, 1.0, 0.0])) < 0.5


@pytest.mark.parametrize("positions", [np.zeros((500, 3)), np.array([[0.0, y, 0.0] for y in np.linspace(-1, 1, 500)])])
def test_points_on_a_spot_or_on_a_line_are_no_ground(positions: np.ndarray) -> None:
    world = find_world(dome(), Points(positions, np.zeros((500, 3), np.uint8)))
    assert world.findings["ground"].how != "plane"
    assert world.unit > 0


def test_no_camera_is_an_error() -> None:
    with pytest.raises(ValueError, match="no camera"):
        find_world([])


def test_the_focus_of_noisy_axes() -> None:
    cameras = dome(40)
    centres = np.stack([camera.centre.numpy() for camera in cameras])
    focus = robust_focus(centres, np.stack([camera.rotation[2].numpy() for camera in cameras]))
    assert focus is not None
    assert np.linalg.norm(focus) < 0.05
    assert robust_focus(centres[:1], np.array([[0.0, 0.0, 1.0]])) is None


# -- picture ----------------------------------------------------------------------------------------------------------
def test_the_picture_shows_points_cube_and_cameras(tmp_path: Path) -> None:
    views = [View(camera, tmp_path / f"{camera.name}.png") for camera in dome()]
    points = tilted(table(), 12.0)
    points = replace(points, colors=np.tile(np.array([[20, 180, 20]], np.uint8), (len(points.positions), 1)))
    world = find_world([view.camera for view in views], points)
    draw_world(tmp_path / "world.png", world, views, points, "a block on a table")
    pixels = np.asarray(Image.open(tmp_path / "world.png").convert("RGB")).astype(int)
    near = {
        name: int((np.abs(pixels - color).max(2) < 40).sum())
        for name, color in {
            "points": (20, 180, 20), "cameras": (31, 95, 168), "cube": (208, 32, 32), "up": (155, 48, 192)
        }.items()
    }  # fmt: skip
    assert near.pop("up") > 300  # as the cameras say it
    assert min(near.values()) > 1000, near
    draw_world(tmp_path / "bare.png", find_world([views[0].camera]), views[:1])
    assert (tmp_path / "bare.png").stat().st_size > 10_000

"""Every mode against a direct render, or against numbers worked out by hand."""

from __future__ import annotations

import doctest
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flat import FAR_COLOR, HEIGHT, NEAR_COLOR, WIDTH, camera, capture, square, two_walls
from matplotlib import colormaps

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import find_family
from smalti.scene import Scene, layer
from smalti.viewer import modes
from smalti.viewer.look import MODES, Look
from smalti.viewer.modes import PALETTE, draw, layer_colors, paint
from smalti.viewer.shades import depth_normals, quantiles
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scene"))
from mixed import a_camera, a_scene

BACKGROUND = (0.1, 0.2, 0.3)


def pixels_of(color: tuple[float, ...] | torch.Tensor) -> np.ndarray:
    return np.rint(np.asarray(color, dtype=np.float64).clip(0, 1) * 255).astype(np.uint8)


def look(**values: object) -> Look:
    return Look(camera(), **values)  # type: ignore[arg-type]


# -- colour ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [None, "centre", "ray"])
def test_colour_is_the_renderers_own_picture(order: str | None) -> None:
    scene, view = a_scene(), a_camera()
    settings = scene.settings() if order is None else scene.settings(order=order)
    with torch.no_grad():
        wanted = scene.render(view, settings=settings).color
    got = draw(Stage(scene), Look(view, order=order))  # type: ignore[arg-type]
    assert got.dtype == np.uint8
    assert got.shape == (view.height, view.width, 3)
    assert np.array_equal(got, pixels_of(wanted))


def test_the_two_orders_differ_where_they_should() -> None:
    stage, view = Stage(a_scene()), a_camera()
    assert np.abs(draw(stage, Look(view, order="ray")).astype(int) - draw(stage, Look(view, order="centre"))).max() > 8


def test_the_background_is_the_scenes_own_unless_the_look_has_one() -> None:
    stage = Stage(two_walls())
    assert (draw(stage, look())[:, -4:] == pixels_of(BACKGROUND)).all()
    assert (draw(stage, look(background=(1.0, 1.0, 0.0)))[:, -4:] == (255, 255, 0)).all()
    assert np.array_equal(draw(stage, look())[:, 2], np.tile(pixels_of(NEAR_COLOR), (HEIGHT, 1)))


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_scene_has_a_picture_in_every_mode(mode: str, tmp_path: Path) -> None:
    hidden = two_walls()
    hidden["near"].visible = hidden["far"].visible = False
    photo = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for scene in (Scene(background=BACKGROUND), hidden):
        stage = Stage(scene, views=capture(tmp_path, [photo], [camera()]))
        for selected in (None, layer("near") if len(scene.layers) else None):
            picture = paint(stage, look(mode=mode), selected)
            assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
            if mode == "color":
                assert (picture.pixels == pixels_of(BACKGROUND)).all()
            elif mode != "error":
                assert not picture.pixels.any()


def test_layers_that_are_placed_by_a_similarity_are_drawn_where_they_are() -> None:
    scene = two_walls()
    scene.layers["near"].similarity = Similarity(translation=torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    stage = Stage(scene)
    assert paint(stage, look(mode="depth")).legend["near"] == pytest.approx(3.0, abs=1e-5)
    with stage.changing():
        scene.layers["near"].similarity = Similarity(translation=torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64))
    assert paint(stage, look(mode="depth")).legend["near"] == pytest.approx(2.5, abs=1e-5)


# -- depth, normals, alpha -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("which", ["expected", "median"])
def test_depth_runs_from_near_red_to_far_blue_and_says_its_range(which: str) -> None:
    picture = paint(Stage(two_walls()), look(mode="depth", depth=which))
    turbo = colormaps["turbo"]
    assert picture.legend["which"] == which
    assert picture.legend["near"] == pytest.approx(2.0, abs=1e-5)
    assert picture.legend["far"] == pytest.approx(4.0, abs=1e-5)
    assert (picture.pixels[:, 2] == pixels_of(turbo(255)[:3])).all()
    assert (picture.pixels[:, WIDTH // 2 + 3] == pixels_of(turbo(0)[:3])).all()
    assert not picture.pixels[:, -3:].any()  # nothing is there
    held = paint(Stage(two_walls()), look(mode="depth", depth=which, depth_range=(0.0, 8.0)))
    assert (held.legend["near"], held.legend["far"]) == (0.0, 8.0)
    assert (held.pixels[:, 2] == pixels_of(turbo(0.75)[:3])).all()


def test_depth_is_the_picture_that_smalti_render_makes() -> None:
    from smalti.trainers.pictures import depth_limits, frame_pixels

    scene, view = a_scene(), a_camera()
    with torch.no_grad():
        frame = scene.render(view, settings=scene.settings(depth=True))
    picture = paint(Stage(scene), Look(view, mode="depth"))
    assert (picture.legend["near"], picture.legend["far"]) == pytest.approx(depth_limits(frame), rel=1e-6)
    assert np.array_equal(picture.pixels, frame_pixels(frame, "depth"))


def test_normals_point_at_the_camera() -> None:
    picture = paint(Stage(two_walls()), look(mode="normal"))
    # World axes: towards the camera is -z.
    assert (picture.pixels[:, 2] == pixels_of((0.5, 0.5, 0.0))).all()
    assert not picture.pixels[:, -3:].any()
    assert picture.legend["from_depth"] == pytest.approx(0.0, abs=1e-6)


def test_what_has_no_normals_shows_those_of_its_depth() -> None:
    grid = torch.cartesian_prod(torch.linspace(-3, 3, 61), torch.linspace(-3, 3, 61))
    slope = 0.5  # z = 4 + x / 2: the normal is (0.5, 0, -1) made unit
    points = torch.stack([grid[:, 0], grid[:, 1], 4.0 + slope * grid[:, 0]], dim=1)
    options = {"initial_opacity": 0.95, "initial_scale": 1.0, "sh_degree": 0}
    family = find_family("gaussians").from_points(points, torch.rand(len(points), 3), options)
    family.replace({"log_scales": torch.full((len(points), 3), math.log(0.05))})
    scene = Scene(order="centre")
    scene.add("sheet", family)
    picture = paint(Stage(scene), Look(camera(64, 48), mode="normal"))
    assert picture.legend["from_depth"] == pytest.approx(1.0)
    inner = picture.pixels[12:-12, 20:-20].astype(float).mean(axis=(0, 1)) / 255 * 2 - 1
    wanted = np.array([slope, 0.0, -1.0]) / math.hypot(slope, 1.0)
    assert np.abs(inner - wanted).max() < 0.05


def test_normals_of_a_depth_in_closed_form() -> None:
    view = camera()
    x = (torch.arange(WIDTH) + 0.5 - 0.5 * WIDTH) / (0.5 * HEIGHT)
    depth = (4.0 / (1.0 - 0.5 * x))[None].expand(HEIGHT, WIDTH)  # the plane z = 4 + x / 2
    turned = replace(view, rotation=torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]))
    for seen in (view, turned):
        found = depth_normals(depth, torch.ones(HEIGHT, WIDTH), seen)
        wanted = seen.rotation.T @ torch.nn.functional.normalize(torch.tensor([0.5, 0.0, -1.0]), dim=0)
        assert torch.allclose(found[1:-1, 1:-1], wanted.expand(HEIGHT - 2, WIDTH - 2, 3), atol=1e-5)
        assert not found[0].any()


def test_alpha_is_what_the_rays_absorbed() -> None:
    pixels = draw(Stage(two_walls()), look(mode="alpha"))
    assert (pixels[:, : WIDTH * 3 // 4] == 255).all()
    assert not pixels[:, WIDTH * 3 // 4 + 1 :].any()


# -- which layer, how much -------------------------------------------------------------------------------------------
def test_layers_have_one_colour_each_and_keep_it() -> None:
    scene = two_walls()
    stage = Stage(scene)
    colors = {
        name: pixels_of([int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)]) for name, c in layer_colors(scene).items()
    }
    assert layer_colors(scene) == {"near": PALETTE[0], "far": PALETTE[1]}
    picture = paint(stage, look(mode="family"))
    assert picture.legend["layers"] == layer_colors(scene)
    assert (picture.pixels[:, 2] == colors["near"]).all()
    assert (picture.pixels[:, WIDTH // 2 + 3] == colors["far"]).all()
    assert not picture.pixels[:, -3:].any()
    scene["near"].visible = False
    picture = paint(stage, look(mode="family"))
    assert list(picture.legend["layers"]) == ["far"]
    assert (picture.pixels[:, WIDTH // 2 + 3] == colors["far"]).all()


def test_the_layer_shown_is_the_one_with_the_largest_share() -> None:
    scene, view = a_scene(), a_camera()
    with torch.no_grad():
        frame = scene.render(view, settings=scene.settings(statistics=True))
    drawn = [sum(map(len, held.drawables(view))) for held in scene]
    owner = np.repeat(np.arange(len(drawn)), drawn)[frame.ids["dominant"].numpy()]
    pixels = draw(Stage(scene), Look(view, mode="family")).astype(float)
    palette = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in PALETTE], float)
    wanted = palette[owner] * frame.alpha.numpy()[..., None]
    assert np.abs(pixels - wanted).max() <= 0.51


def test_contributions_are_shares_of_the_picture() -> None:
    scene = Scene(order="ray")
    scene.add("left", square(-9.0, 0.0, 2.0, NEAR_COLOR))
    scene.add("right", square(0.0, 2.0 * (WIDTH / 4) / (0.5 * HEIGHT), 2.0, FAR_COLOR))
    # One face each is in sight: the diagonals run outside of the picture or are the layer's own business.
    with torch.no_grad():
        frame = scene.render(camera(), settings=scene.settings(statistics=True))
    assert frame.contribution_sum is not None
    shares = frame.contribution_sum.double().numpy() / (WIDTH * HEIGHT)
    assert shares.sum() == pytest.approx(0.75, abs=1e-6)
    picture = paint(Stage(scene), look(mode="contribution"))
    seen = np.unique(frame.ids["dominant"].numpy())
    logs = np.log10(shares[seen[seen >= 0]])
    assert picture.legend["least"] >= 10 ** logs.min() * (1 - 1e-6)
    assert picture.legend["most"] == pytest.approx(10 ** logs.max(), rel=1e-6)
    brightest = shares.argmax() == frame.ids["dominant"].numpy()
    assert (picture.pixels[brightest] == pixels_of(colormaps["viridis"](255)[:3])).all()
    assert not picture.pixels[:, -3:].any()


def test_a_block_of_many_faces_is_one_primitive() -> None:
    scene, view = a_scene("superquadrics"), a_camera()
    with torch.no_grad():
        frame = scene.render(view, settings=scene.settings(statistics=True))
    owners = scene.layers["superquadrics"].family.owners()
    assert owners is not None
    block = owners.numpy()[frame.ids["dominant"].numpy()]
    pixels = draw(Stage(scene), Look(view, mode="contribution"))
    hit = (frame.ids["dominant"].numpy() >= 0) & (frame.alpha.numpy() >= 1 / 255)
    for number in np.unique(block[hit]):
        assert len(np.unique(pixels[hit & (block == number)], axis=0)) == 1


# -- views -----------------------------------------------------------------------------------------------------------
def test_the_error_is_that_of_the_nearest_training_view(tmp_path: Path) -> None:
    scene = two_walls()
    render = draw(Stage(scene), look())
    worse = (render.astype(int) + np.where(render > 127, -51, 51)).astype(np.uint8)  # off by 0.2 everywhere
    views = capture(tmp_path, [worse, render, worse], [camera(), camera(shift=0.4), camera(shift=0.1)], train=2)
    stage = Stage(scene, views=views)
    # The third is nearer, but it is held out.
    picture = paint(stage, Look(camera(shift=0.12), mode="error"))
    assert picture.legend["view"] == "000.png"
    assert picture.legend["error"] == pytest.approx(0.2, abs=2e-3)
    assert picture.legend["psnr"] == pytest.approx(-20 * math.log10(0.2), abs=0.1)
    near = colormaps["inferno"](0.2 / modes.ERROR_FULL)[:3]
    assert np.abs(picture.pixels.astype(int) - pixels_of(near).astype(int)).max() <= 4
    asked = paint(stage, Look(camera(), mode="error", truth_row=2))
    assert asked.legend["view"] == asked.legend["truth"] == "002.png"


def test_an_error_is_at_the_views_own_time(tmp_path: Path) -> None:
    views = capture(
        tmp_path,
        [np.full((HEIGHT, WIDTH, 3), 10, np.uint8)] * 2,
        [replace(camera(), time=0.0), replace(camera(), time=1.0)],
    )
    stage = Stage(two_walls(), views=views)
    assert paint(stage, Look(replace(camera(), time=0.9), mode="error")).legend["view"] == "001.png"
    assert paint(stage, Look(replace(camera(), time=0.1), mode="error")).legend["view"] == "000.png"
    assert "truth" in paint(stage, Look(replace(camera(), time=1.0), truth_row=1)).legend
    assert "truth" not in paint(stage, Look(replace(camera(), time=0.5), truth_row=1)).legend


def test_no_error_is_black_and_lies_where_the_view_fits(tmp_path: Path) -> None:
    scene = two_walls()
    stage = Stage(scene)
    photo = draw(stage, look())
    stage.views = capture(tmp_path, [photo], [camera()])
    wide = Look(camera(2 * WIDTH, HEIGHT), mode="error")
    picture = paint(stage, wide)
    assert picture.legend["error"] < 1 / 255
    sides = np.concatenate([picture.pixels[:, : WIDTH // 2], picture.pixels[:, WIDTH * 3 // 2 :]], axis=1)
    assert (sides == round(255 * modes.AROUND)).all()
    inside = picture.pixels[:, WIDTH // 2 : WIDTH * 3 // 2]
    assert inside.max() <= 30
    assert picture.legend["psnr"] > 45


def test_without_views_the_error_says_so_and_shows_colours() -> None:
    stage = Stage(two_walls())
    picture = paint(stage, look(mode="error"))
    assert "no view" in picture.legend["problem"]
    assert np.array_equal(picture.pixels, draw(stage, look()))


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (2 * WIDTH, HEIGHT), (WIDTH, 2 * HEIGHT), (2 * WIDTH, 2 * HEIGHT)])
def test_truth_is_beside_the_render_up_to_the_split(tmp_path: Path, size: tuple[int, int]) -> None:
    stage = Stage(two_walls())
    photo = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    stage.views = capture(tmp_path, [photo], [camera()])
    canvas = replace(camera(*size), translation=torch.tensor([1e-5, 0.0, 0.0]))  # as a browser gives it back
    plain = draw(stage, Look(canvas))
    picture = paint(stage, Look(canvas, truth_row=0, split=0.5))
    assert picture.legend["truth"] == "000.png"
    scale = min(size[0] // WIDTH, size[1] // HEIGHT)
    left, top = (size[0] - scale * WIDTH) // 2, (size[1] - scale * HEIGHT) // 2
    half = size[0] // 2
    truth = photo.repeat(scale, 0).repeat(scale, 1)[:, : half - left]
    got = picture.pixels[top : top + scale * HEIGHT, left:half]
    middle = np.s_[2::4, 2::4] if scale == 1 else np.s_[4::8, 4::8]
    assert np.abs(got.astype(int) - truth)[middle].max() <= (0 if scale == 1 else 2)
    assert (picture.pixels[:, half - 1] == 0).all()
    assert (picture.pixels[:, half] == 255).all()
    # The render on the right, and all around the photograph, with the view's own lens.
    from smalti.viewer.fitting import fitted

    whole = draw(stage, Look(fitted(camera(), *size)))
    assert np.array_equal(picture.pixels[:, half + 1 :], whole[:, half + 1 :])
    assert np.array_equal(picture.pixels[:, :left], whole[:, :left])
    assert np.array_equal(picture.pixels[:top, : half - 1], whole[:top, : half - 1])
    if size == (WIDTH, HEIGHT):
        assert np.array_equal(picture.pixels[:, half + 1 :], plain[:, half + 1 :])


def test_truth_is_not_shown_beside_another_camera(tmp_path: Path) -> None:
    stage = Stage(two_walls())
    photo = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    stage.views = capture(tmp_path, [photo, photo], [camera(), camera(shift=0.5)])
    turn = torch.tensor([[math.cos(0.1), 0.0, math.sin(0.1)], [0.0, 1.0, 0.0], [-math.sin(0.1), 0.0, math.cos(0.1)]])
    for elsewhere in (camera(shift=0.05), replace(camera(), rotation=turn)):
        picture = paint(stage, Look(elsewhere, truth_row=0))
        assert "truth" not in picture.legend
        assert np.array_equal(picture.pixels, draw(stage, Look(elsewhere)))
    assert "truth" not in paint(stage, look(truth_row=99)).legend


@pytest.mark.parametrize("split", [0.0, 1.0, 7.0, -1.0])
def test_the_split_may_be_anywhere(tmp_path: Path, split: float) -> None:
    stage = Stage(two_walls())
    photo = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    stage.views = capture(tmp_path, [photo], [camera()])
    pixels = draw(stage, look(truth_row=0, split=split))
    assert np.array_equal(pixels, photo if split >= 1 else draw(stage, look()))


# -- everything else -------------------------------------------------------------------------------------------------
def test_pictures_keep_no_graph_and_leave_gradients_alone() -> None:
    scene = a_scene("gaussians")
    family = scene.layers["gaussians"].family
    draw(Stage(scene), Look(a_camera()), layer("gaussians"))
    assert all(value.requires_grad and value.grad is None for value in family.parameters.values())


def test_ranges_are_of_finite_numbers() -> None:
    assert quantiles(torch.tensor([math.nan, 1.0, math.inf, 3.0]), 0.0, 1.0) == (1.0, 3.0)
    assert quantiles(torch.tensor([math.nan]), 0.01, 0.99) == (0.0, 1.0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", MODES)
def test_a_scene_on_cuda_is_drawn_alike(mode: str, tmp_path: Path) -> None:
    scene, view = a_scene("gaussians", "meshes", "superquadrics"), a_camera()
    photo = np.full((view.height, view.width, 3), 40, np.uint8)
    stage = Stage(scene, views=capture(tmp_path, [photo], [view.to(torch.float32)]))
    chosen = Look(view.to(torch.float32), mode=mode, truth_row=0, split=0.25)  # type: ignore[arg-type]
    here = [draw(stage, chosen, selected) for selected in (None, layer("meshes"))]
    for held in scene:
        held.family.to("cuda")
    stage.revision += 1
    there = [draw(stage, chosen, selected) for selected in (None, layer("meshes"))]
    for one, other in zip(here, there, strict=True):
        # Where two primitives share a pixel by halves, rounding decides which is dominant.
        assert (np.abs(one.astype(int) - other).max(axis=-1) > 3).mean() < 0.02


def test_the_docstrings_example_runs() -> None:
    assert doctest.testmod(modes).failed == 0


def test_a_look_of_one_size_is_of_that_size() -> None:
    for width, height in ((1, 1), (2, 5), (31, 3)):
        stage = Stage(a_scene("gaussians"))
        for mode in MODES:
            assert draw(stage, Look(Camera.scaled_to(a_camera(), width, height), mode=mode)).shape == (height, width, 3)


def test_the_pages_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "viewer-panels.md"
    exec(page.read_text().split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.startswith("(48, 64, 3)\n{'mode': 'depth', 'which': 'expected', 'near': ")

"""Every lens model against COLMAP itself, against its own inverse, and against central differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.cameras import models
from smalti.cameras.models.planar import PlanarDistortion

from .lenses import FISHEYES, PARAMETERS, PLANAR_PERSPECTIVE, SIZE, make, pixels_inside

ALL = tuple(PARAMETERS)


def judge(name: str):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install smalti[sfm]")
    return pycolmap.Camera(model=name, width=SIZE[0], height=SIZE[1], params=list(PARAMETERS[name]))


def rays_of(name: str, count: int = 400, seed: int = 1) -> np.ndarray:
    rays, valid = models.unproject(make(name), pixels_inside(count, seed))
    assert valid.mean() > 0.95, "the table's lens should cover its picture"
    distances = np.random.default_rng(seed).uniform(0.3, 7.0, (valid.sum(), 1))
    return rays[valid] * distances


def test_registry_is_colmaps() -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install smalti[sfm]")
    theirs = {key: int(value) for key, value in pycolmap.CameraModelId.__members__.items() if key != "INVALID"}
    assert {name: model.model_id for name, model in models.MODELS.items()} == theirs
    for name, number in theirs.items():
        camera = pycolmap.Camera.create_from_model_name(1, name, 100.0, *SIZE)
        assert models.MODELS_BY_ID[number].parameters == tuple(camera.params_info.replace(" ", "").split(","))
        assert models.parameter_count(number) == len(camera.params)


@pytest.mark.parametrize("name", ALL)
def test_projection_is_colmaps(name: str) -> None:
    points = rays_of(name)
    if name != "EQUIRECTANGULAR":  # COLMAP's other models stop at 90 degrees.
        points = points[points[:, 2] > 1e-3]
    assert len(points) > 100
    pixels, valid = models.project_camera_points(make(name), points)
    assert valid.all()
    np.testing.assert_allclose(pixels, judge(name).img_from_cam(points), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_inverse_is_colmaps(name: str) -> None:
    pixels = pixels_inside(400, 2)
    rays, valid = models.unproject(make(name), pixels)
    theirs = [judge(name).cam_ray_from_img(pixel) for pixel in pixels]
    found = np.array([ray is not None for ray in theirs])
    both = valid & found
    assert both.mean() > 0.75
    ours = rays[both]
    expected = np.array([ray for ray, use in zip(theirs, both, strict=True) if use])
    # COLMAP iterates to about 1e-10 in the plane and clamps fisheyes at 90 degrees.
    forward = expected[:, 2] > 1e-3 if name != "EQUIRECTANGULAR" else np.ones(len(ours), bool)
    assert forward.sum() > 100
    np.testing.assert_allclose(ours[forward], expected[forward], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_round_trip(name: str) -> None:
    pixels = pixels_inside(2000, 3)
    camera = make(name)
    rays, valid = models.unproject(camera, pixels)
    assert valid.mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(rays[valid], axis=1), 1.0, atol=1e-12)
    again, visible = models.project_camera_points(camera, rays[valid] * 2.5)
    assert visible.all()
    np.testing.assert_allclose(again, pixels[valid], rtol=0, atol=1e-8)
    assert np.isnan(rays[~valid]).all()


@pytest.mark.parametrize("name", ALL)
def test_jacobian_against_central_differences(name: str) -> None:
    camera = make(name)
    points = np.concatenate([rays_of(name, 200, 4), [[1e-5, -2e-5, 1.0], [1e-4, 3e-4, 0.7]]])
    step = 1e-5 * np.linalg.norm(points, axis=1, keepdims=True)
    numeric = np.empty((len(points), 2, 3))
    for axis in range(3):
        offset = step * np.eye(3)[axis]
        ahead, _ = models.project_camera_points(camera, points + offset)
        behind, _ = models.project_camera_points(camera, points - offset)
        numeric[:, :, axis] = (ahead - behind) / (2.0 * step)
    sharp = np.isfinite(numeric).all(axis=(1, 2))
    if name == "EQUIRECTANGULAR":  # differences across the seam or round a pole say nothing
        sharp &= np.abs(numeric).max(axis=(1, 2)) < 1e4
    assert sharp.mean() > 0.9
    exact = models.jacobian(camera, points)
    scale = np.abs(exact[sharp]).max(axis=(1, 2), keepdims=True)
    assert (np.abs(exact[sharp] - numeric[sharp]) / scale).max() < 2e-5


@pytest.mark.parametrize("name", ALL)
def test_jacobian_on_the_axis(name: str) -> None:
    camera = make(name)
    on_axis = models.jacobian(camera, np.array([[0.0, 0.0, 2.0]]))
    beside = models.jacobian(camera, np.array([[1e-7, 2e-7, 2.0]]))
    assert np.isfinite(on_axis).all()
    np.testing.assert_allclose(on_axis, beside, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_parameters_there_and_back(name: str) -> None:
    intrinsics, distortion = models.split_parameters(name, PARAMETERS[name])
    np.testing.assert_allclose(models.join_parameters(name, intrinsics, distortion), PARAMETERS[name], rtol=1e-14)
    with pytest.raises(ValueError, match=name):
        models.split_parameters(name, (*PARAMETERS[name], 0.0))


@pytest.mark.parametrize("name", ALL)
def test_behind_the_camera_and_not_a_number(name: str) -> None:
    camera = make(name)
    bad = np.array([[0.0, 0.0, 0.0], [np.nan, 0.0, 1.0], [0.1, 0.2, np.nan]])
    pixels, valid = models.project_camera_points(camera, bad)
    assert not valid.any()
    assert np.isnan(pixels).all()
    assert np.isnan(models.jacobian(camera, bad)).all()
    rays, found = models.unproject(camera, np.array([[np.nan, 3.0], [np.inf, 3.0]]))
    assert not found.any()
    assert np.isnan(rays).all()
    if name not in (*FISHEYES, "EQUIRECTANGULAR", "SIMPLE_DIVISION", "EUCM"):
        assert not models.project_camera_points(camera, np.array([[0.1, 0.1, -1.0], [1.0, 0.0, 0.0]]))[1].any()


@pytest.mark.parametrize("name", [*PLANAR_PERSPECTIVE, "FOV", "SIMPLE_DIVISION", "DIVISION"])
def test_zero_distortion_is_the_pinhole(name: str) -> None:
    count = 1 if models.MODELS[name].parameters[0] == "f" else 2
    zeros = (0.0,) * len(models.MODELS[name].distortion_names)
    camera = make(name, (400.0,) * count + (318.3, 251.7) + zeros)
    points = np.random.default_rng(5).uniform((-2, -2, 0.1), (2, 2, 4), (500, 3))
    expected, _ = models.project_camera_points(make("SIMPLE_PINHOLE"), points)
    np.testing.assert_allclose(models.project_camera_points(camera, points)[0], expected, rtol=0, atol=1e-10)
    assert models.is_pinhole(camera)
    assert not models.is_pinhole(make(name))


def test_eucm_without_alpha_is_the_pinhole_and_fisheye_without_k_is_equidistant() -> None:
    points = np.random.default_rng(6).uniform((-2, -2, 0.1), (2, 2, 4), (500, 3))
    eucm = make("EUCM", (400.0, 400.0, 318.3, 251.7, 0.0, 1.7))
    pinhole, _ = models.project_camera_points(make("SIMPLE_PINHOLE"), points)
    np.testing.assert_allclose(models.project_camera_points(eucm, points)[0], pinhole, rtol=1e-13)
    plain, _ = models.project_camera_points(make("FISHEYE"), points)
    opencv = make("OPENCV_FISHEYE", (410.0, 395.0, 318.3, 251.7, 0.0, 0.0, 0.0, 0.0))
    np.testing.assert_array_equal(models.project_camera_points(opencv, points)[0], plain)
    assert not models.is_pinhole(opencv)


@pytest.mark.parametrize("name", [*FISHEYES, "SIMPLE_DIVISION", "EUCM", "EQUIRECTANGULAR"])
def test_beyond_ninety_degrees(name: str) -> None:
    camera = make(name)
    angles, turns = np.meshgrid(np.radians([91.0, 95.0, 100.0]), np.linspace(0, 6, 20))
    ray = np.stack([np.sin(angles) * np.cos(turns), np.sin(angles) * np.sin(turns), np.cos(angles)], axis=-1)
    ray = ray.reshape(-1, 3)
    pixels, valid = models.project_camera_points(camera, ray * 3.0)
    assert valid.all()
    again, found = models.unproject(camera, pixels)
    assert found.all()
    np.testing.assert_allclose(again, ray, rtol=0, atol=1e-9)


def test_beyond_the_fold_nothing_is_returned() -> None:
    # k = -0.4: the radius r (1 - 0.4 r^2) grows up to r = sqrt(1 / 1.2) = 0.913 and reaches 0.609 there.
    camera = make("SIMPLE_RADIAL", (400.0, 320.0, 240.0, -0.4))
    edge = np.sqrt(1.0 / 1.2)
    _, valid = models.project_camera_points(camera, np.array([[edge - 1e-6, 0, 1], [edge + 1e-6, 0, 1], [3.0, 0, 1]]))
    assert valid.tolist() == [True, False, False]
    top = edge * (1.0 - 0.4 * edge**2)
    pixels = np.array([[320.0 + 400.0 * (top - 1e-6), 240.0], [320.0 + 400.0 * (top + 1e-6), 240.0]])
    rays, found = models.unproject(camera, pixels)
    assert found.tolist() == [True, False]
    assert rays[0, 0] / rays[0, 2] == pytest.approx(edge, abs=3e-3)


def test_pole_of_the_rational_model() -> None:
    # 1 / (1 - s) has its pole at radius 1; everything beyond must be refused, everything before inverted.
    planar = PlanarDistortion(divisor=(-1.0,))
    assert planar.radial_limit == pytest.approx(1.0)
    radii = np.linspace(0.0, 0.999, 50)
    points = np.stack([radii, np.zeros(50)], axis=1)
    again, found = planar.invert(planar.apply(points))
    assert found.all()
    np.testing.assert_allclose(again, points, rtol=0, atol=1e-11)


@pytest.mark.parametrize("tiny", [0.0, 5e-324, 1e-300, 1e-30, 1e-12])
def test_tiny_higher_coefficients_do_not_hide_the_fold(tiny: float) -> None:
    planar = PlanarDistortion(radial=(0.0, -0.5, tiny))
    assert planar.radial_limit == pytest.approx((1.0 / 2.5) ** 0.25, rel=1e-9)
    assert PlanarDistortion(radial=(tiny,), divisor=(tiny,)).radial_limit == np.inf


def test_strong_tangential_terms_shrink_the_disc() -> None:
    planar = PlanarDistortion(radial=(-0.2,), tangential=(0.05, -0.08))
    assert planar.limit < planar.radial_limit
    radii = np.linspace(0.0, planar.limit, 40)
    angles = np.linspace(0.0, 6.28, 50)
    points = np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles))], axis=-1).reshape(-1, 2)
    assert (np.linalg.det(planar.jacobian(points)) > 0.0).all()
    again, found = planar.invert(planar.apply(points))
    assert found.mean() > 0.97
    np.testing.assert_allclose(again[found], points[found], rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    radial=st.lists(st.floats(-0.6, 0.6), min_size=1, max_size=4),
    divisor=st.lists(st.floats(-0.4, 0.4), min_size=0, max_size=3),
    tangential=st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)),
    prism=st.tuples(*[st.floats(-0.01, 0.01)] * 4),
    cascaded=st.booleans(),
)
def test_whatever_the_coefficients_the_inverse_is_right_or_refused(
    radial, divisor, tangential, prism, cascaded
) -> None:
    planar = PlanarDistortion(tuple(radial), tuple(divisor), tangential, prism, cascaded)
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (200, 2)) * min(1.5, 0.9 * planar.limit)
    points = points[np.linalg.norm(points, axis=1) < 0.9 * planar.limit]
    distorted = planar.apply(points)
    again, found = planar.invert(distorted)
    np.testing.assert_allclose(planar.apply(again[found]), distorted[found], rtol=0, atol=1e-9)
    assert np.isnan(again[~found]).all()
    np.testing.assert_allclose(again[found], points[found], rtol=0, atol=1e-6)
    assert found.mean() > 0.98


def test_world_points_go_through_the_pose() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * torch.linalg.det(turn)
    shift = torch.tensor([0.1, -0.2, 0.4], dtype=torch.float64)
    camera = dataclasses.replace(make("OPENCV"), rotation=turn, translation=shift)
    inside = np.array([[0.2, 0.1, 2.0], [-0.4, 0.3, 3.0]])
    world = (inside - shift.numpy()) @ turn.numpy()
    expected, _ = models.project_camera_points(camera, inside)
    np.testing.assert_allclose(models.project(camera, world)[0], expected, atol=1e-9)


def test_errors_say_what_and_what_to_do() -> None:
    with pytest.raises(ValueError, match="unknown camera model 'OPENCVX'"):
        models.lens_model("OPENCVX")
    with pytest.raises(ValueError, match="expected 4 distortion parameters"):
        models.unproject(dataclasses.replace(make("OPENCV"), distortion=(0.1,)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="not finite"):
        models.unproject(dataclasses.replace(make("SIMPLE_RADIAL"), distortion=(float("nan"),)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="one focal length"):
        models.join_parameters("RADIAL", (400.0, 401.0, 1.0, 1.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="EUCM"):
        models.project_camera_points(dataclasses.replace(make("EUCM"), distortion=(1.4, 1.0)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="cropped panorama"):
        models.join_parameters("EQUIRECTANGULAR", make("EQUIRECTANGULAR").cropped(10, 0, 100, 480).intrinsics.tolist())


def test_opencv_pixels() -> None:
    assert models.opencv_to_ours((1.0, 2.0, 319.5, 239.5)) == (1.0, 2.0, 320.0, 240.0)
    assert models.ours_to_opencv(models.opencv_to_ours((1.0, 2.0, 3.0, 4.0))) == (1.0, 2.0, 3.0, 4.0)


def test_scaling_a_camera_scales_its_pixels() -> None:
    for name in ALL:
        camera = make(name)
        points = rays_of(name, 50, 7)
        full, _ = models.project_camera_points(camera, points)
        half, _ = models.project_camera_points(camera.scaled_to(320, 120), points)
        np.testing.assert_allclose(half, full * [0.5, 0.25], rtol=1e-12)

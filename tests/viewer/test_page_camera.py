"""The page's camera is ours, and nonsense is none."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.files.splats import quaternion_of
from smalti.viewer.page_camera import MOST_PIXELS, camera_of, same_view


def page(**values: Any) -> SimpleNamespace:
    told = {"wxyz": [1, 0, 0, 0], "position": [0, 0, 0], "fov": 0.9, "image_width": 80, "image_height": 60}
    return SimpleNamespace(**(told | values))


def test_a_look_at_camera_comes_back() -> None:
    wanted = Camera.look_at(
        torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.2, 0.1, 3.0]), torch.tensor([0.0, -1.0, 0.2]), 1.1, (80, 60)
    )
    fov = 2 * math.atan(30 / float(wanted.intrinsics[1]))
    found = camera_of(
        page(wxyz=quaternion_of(wanted.rotation.T.numpy()), position=wanted.centre.numpy(), fov=fov), time=0.25
    )
    assert found is not None
    torch.testing.assert_close(found.rotation, wanted.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.translation, wanted.translation, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.intrinsics, wanted.intrinsics, atol=1e-4, rtol=0)
    assert (found.width, found.height, found.time) == (80, 60, 0.25)


def test_quaternions_need_not_be_of_unit_length() -> None:
    one, other = camera_of(page(wxyz=[0.5, 0.5, 0.5, 0.5])), camera_of(page(wxyz=[3, 3, 3, 3]))
    assert one is not None
    assert other is not None
    assert same_view(one, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wxyz": [0, 0, 0, 0]},
        {"wxyz": [float("nan"), 0, 0, 1]},
        {"wxyz": [1, 0, 0]},
        {"wxyz": "head"},
        {"position": [0, float("inf"), 0]},
        {"position": None},
        {"fov": 0.0},
        {"fov": math.pi},
        {"fov": float("nan")},
        {"image_width": 0},
        {"image_width": -5},
        {"image_height": 10**9},
        {"image_height": float("inf")},
        {"image_height": "tall"},
    ],
)
def test_nonsense_is_no_camera(wrong: dict[str, Any]) -> None:
    assert camera_of(page(**wrong)) is None


def test_a_huge_canvas_gets_a_smaller_picture_of_the_same_view() -> None:
    small, large = (
        camera_of(page(image_width=800, image_height=400)),
        camera_of(page(image_width=8000, image_height=4000)),
    )
    assert small is not None
    assert large is not None
    assert large.width * large.height <= MOST_PIXELS
    torch.testing.assert_close(large.scaled_to(800, 400).intrinsics, small.intrinsics, atol=0.5, rtol=0)

"""Frames to files: pixel values, depth colours, folders, videos of odd sizes, and the message without an encoder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.renderers.frame import Frame, Visibility
from smalti.trainers.pictures import VideoUnavailable, depth_limits, even, frame_pixels, write_frames, write_video


def make_frame(height: int = 25, width: int = 33) -> Frame:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    none = Visibility(torch.zeros(0, dtype=torch.bool), torch.zeros(0), torch.zeros(0), 0, 0)
    alpha = (x > 0.3).float()
    return Frame(torch.stack([x, y, 2 * x - 0.5], dim=-1), alpha, none, depth=(2 + 3 * y) * alpha)


def test_pixels_of_every_channel() -> None:
    frame = make_frame()
    color = frame_pixels(frame)
    assert color.dtype == np.uint8
    assert color[0, -1].tolist() == [255, 0, 255]
    assert color[0, 0].tolist() == [0, 0, 0]  # below zero is clamped
    assert color[12, 16].tolist() == [128, 128, 128]
    alpha = frame_pixels(frame, "alpha")
    assert set(np.unique(alpha)) == {0, 255}
    low, high = depth_limits(frame)
    assert low == pytest.approx(2.0, abs=0.1)
    assert high == pytest.approx(5.0, abs=0.1)
    depth = frame_pixels(frame, "depth", (2.0, 5.0))
    assert (depth[:, 0] == 0).all()  # nothing was hit
    near, far = depth[0, -1].astype(int), depth[-1, -1].astype(int)
    assert near.argmax() == 0  # turbo's ends: the near one dark red, the far one dark blue
    assert far.argmax() == 2
    with pytest.raises(ValueError, match="color, depth, alpha"):
        frame_pixels(frame, "normal")


def test_a_folder_of_frames(tmp_path: Path) -> None:
    pixels = frame_pixels(make_frame())
    assert write_frames(tmp_path / "new" / "frames", (pixels for _ in range(3))) == 3
    files = sorted((tmp_path / "new" / "frames").iterdir())
    assert [path.name for path in files] == ["00000.png", "00001.png", "00002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(files[2])), pixels)


@pytest.mark.parametrize(("height", "width"), [(25, 33), (24, 32)])
def test_a_video_of_any_size_comes_back(tmp_path: Path, height: int, width: int) -> None:
    import imageio.v2 as imageio

    pixels = frame_pixels(make_frame(height, width))
    assert write_video(tmp_path / "a.mp4", (pixels for _ in range(6)), fps=12) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        frames = [np.asarray(frame) for frame in reader]
        assert reader.get_meta_data()["fps"] == pytest.approx(12)
    assert len(frames) == 6
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(frames[3][:height, :width].astype(int) - pixels).mean() < 8


def test_odd_edges_are_repeated_not_rescaled() -> None:
    pixels = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    grown = even(pixels)
    assert grown.shape == (4, 6, 3)
    np.testing.assert_array_equal(grown[:3, :5], pixels)
    np.testing.assert_array_equal(grown[3, :5], pixels[2])
    np.testing.assert_array_equal(grown[:3, 5], pixels[:, 4])


def test_without_an_encoder_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoUnavailable, match=r"pip install 'smalti\[video\]'.*folder"):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(VideoUnavailable, match=r"'\.gif'.*\.mp4"):
        write_video(tmp_path / "a.gif", [])
    assert list(tmp_path.iterdir()) == []


def test_no_pictures_no_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        write_video(tmp_path / "a.mp4", [])
    assert list(tmp_path.iterdir()) == []

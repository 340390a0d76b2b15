"""nerfstudio's data parsers as a source, against stand-ins of them (the tests of bridges/nerfstudio have real ones)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_sets
import torch

import smalti.datasets.nerfstudio
from smalti.datasets.dataset import DatasetError
from smalti.datasets.nerfstudio_outputs import dataset_from_outputs
from smalti.datasets.open import open_dataset

TURN = torch.tensor([[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]])
"""A quarter turn about z, then a shift by (1, 2, 3)."""


def outputs(folder: Path, count: int = 1, **more: Any) -> SimpleNamespace:
    """`count` pictures of 48 x 36; in the parser's frame the cameras stand at (5 + row, 6, 7), with its axes."""
    names = [small_sets.write_picture(folder / f"{row}.png", small_sets.picture(row)) for row in range(count)]
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, :, 3] = torch.tensor([5.0, 6.0, 7.0])
    poses[:, 0, 3] += torch.arange(count)
    table = {"fx": 40.0, "fy": 41.0, "cx": 23.0, "cy": 17.5, "width": 48, "height": 36, "camera_type": 1}
    cameras = SimpleNamespace(
        camera_to_worlds=poses,
        distortion_params=torch.zeros(count, 6),
        times=None,
        **{name: torch.full((count, 1), value) for name, value in table.items()},
    )
    values = {
        "image_filenames": names,
        "cameras": cameras,
        "alpha_color": None,
        "mask_filenames": None,
        "metadata": {},
        "dataparser_transform": TURN,
        "dataparser_scale": 0.5,
    }
    return SimpleNamespace(**{**values, **more})


def test_transform_and_scale_are_undone_by_hand(tmp_path: Path) -> None:
    points = {"points3D_xyz": torch.tensor([[0.5, 1.0, 1.5]]), "points3D_rgb": torch.tensor([[1, 2, 255]])}
    dataset = dataset_from_outputs(tmp_path, [("train", outputs(tmp_path, metadata=points))])
    (view,) = dataset.views
    # (5, 6, 7) / 0.5 = (10, 12, 14); less (1, 2, 3): (9, 10, 11); turned back, (x, y) -> (y, -x): (10, -9, 11).
    np.testing.assert_allclose(view.camera.centre.numpy(), [10.0, -9.0, 11.0], atol=1e-12)
    # The camera's right is the parser's x, which is the input's -y; its down is the parser's -y, the input's -x.
    np.testing.assert_allclose(view.camera.rotation.numpy(), [[0, -1, 0], [-1, 0, 0], [0, 0, -1]], atol=1e-12)
    assert view.camera.intrinsics.tolist() == [40.0, 41.0, 23.0, 17.5]
    assert (view.camera.width, view.camera.height, view.camera.model) == (48, 36, "PINHOLE")
    assert (view.split, view.camera.name, dataset.format) == ("train", "0.png", "nerfstudio")
    # (0.5, 1, 1.5) / 0.5 less the shift is the origin.
    assert dataset.points is not None
    np.testing.assert_allclose(dataset.points.positions, [[0, 0, 0]], atol=1e-12)
    assert dataset.points.colors.tolist() == [[1, 2, 255]]


def test_the_parsers_own_frame(tmp_path: Path) -> None:
    dataset = dataset_from_outputs(tmp_path, [("train", outputs(tmp_path))], undo=False)
    assert dataset.views[0].camera.centre.tolist() == [5.0, 6.0, 7.0]
    assert dataset.views[0].camera.rotation.tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]]


@pytest.mark.parametrize(
    ("kind", "given", "model", "ours"),
    [
        (1, [0.1, 0.2, 0, 0, 0.01, 0.02], "OPENCV", [0.1, 0.2, 0.01, 0.02]),
        (1, [0.1, 0.2, 0.3, 0, 0.01, 0.02], "FULL_OPENCV", [0.1, 0.2, 0.01, 0.02, 0.3, 0, 0, 0]),
        (2, [0.1, 0.2, 0.3, 0.4, 0, 0], "OPENCV_FISHEYE", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_lenses(tmp_path: Path, kind: int, given: list[float], model: str, ours: list[float]) -> None:
    parsed = outputs(tmp_path)
    parsed.cameras.camera_type[:] = kind
    parsed.cameras.distortion_params = torch.tensor([given])
    camera = dataset_from_outputs(tmp_path, [("train", parsed)]).views[0].camera
    assert camera.model == model
    np.testing.assert_allclose(camera.distortion, ours, atol=1e-7)


@pytest.mark.parametrize(("kind", "k4", "problem"), [(3, 0.0, "camera type 3"), (1, 0.1, "`k4`")])
def test_lenses_that_are_none_of_ours(tmp_path: Path, kind: int, k4: float, problem: str) -> None:
    parsed = outputs(tmp_path)
    parsed.cameras.camera_type[:] = kind
    parsed.cameras.distortion_params[:, 3] = k4
    with pytest.raises(DatasetError, match=problem):
        dataset_from_outputs(tmp_path, [("train", parsed)])


def test_a_mirror_is_no_frame(tmp_path: Path) -> None:
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))[:3]
    with pytest.raises(DatasetError, match="mirrored"):
        dataset_from_outputs(tmp_path, [("train", outputs(tmp_path, dataparser_transform=mirror))])


def test_splits_times_masks_backgrounds_and_what_is_missing(tmp_path: Path) -> None:
    train, test = outputs(tmp_path, 3, alpha_color=torch.ones(3)), outputs(tmp_path, 4)
    train.cameras.times = torch.tensor([[0.0], [0.5], [1.0]])
    grey = np.full((36, 48), 255, np.uint8)
    train.mask_filenames = [small_sets.write_picture(tmp_path / "masks" / f"{row}.png", grey) for row in range(3)]
    (tmp_path / "1.png").unlink()
    dataset = dataset_from_outputs(tmp_path, [("train", train), ("test", test)])
    assert [(view.camera.name, view.split) for view in dataset.views] == [
        ("0.png", "train"), ("2.png", "train"), ("3.png", "test"),
    ]  # fmt: skip
    assert [view.camera.time for view in dataset.views] == [0.0, 1.0, 0.0]
    assert dataset.views[1].mask == tmp_path / "masks" / "2.png"
    assert dataset.views[2].mask is None
    assert dataset.background == (1.0, 1.0, 1.0)
    assert {notice.code: notice.count for notice in dataset.notices} == {"missing-images": 1, "several-splits": 3}


@dataclass
class Config:
    """A stand-in of a parser's configuration and of the parser."""

    data: Path = Path()
    colmap_path: Path = Path("sparse/0")
    eval_interval: int = 8
    load_3D_points: bool = False  # its name there

    def setup(self) -> Config:
        return self

    def get_dataparser_outputs(self, split: str) -> SimpleNamespace:
        if split == "test":
            raise RuntimeError("The dataset's list of filenames for split test is missing.")
        return outputs(self.data / split, self.eval_interval)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("nerfstudio.configs.dataparser_configs")
    module.all_dataparsers = {"colmap": Config(), "nerfstudio-data": Config(eval_interval=2)}  # type: ignore[attr-defined]
    for name in ("nerfstudio", "nerfstudio.configs"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("package")
def test_a_parser_by_name_with_options(tmp_path: Path) -> None:
    dataset = open_dataset(tmp_path, format="nerfstudio:colmap,eval-interval=3,colmap_path=sparse")
    assert [view.split for view in dataset.views] == ["train"] * 3 + ["test"] * 3
    assert len(open_dataset(tmp_path, format="nerfstudio").views) == 4
    parser = smalti.datasets.nerfstudio.variant("colmap,colmap_path=sparse")
    assert parser._parser(tmp_path).colmap_path == Path("sparse")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("format", "problem"),
    [
        ("nerfstudio:colmpa", "did you mean 'colmap'"),
        ("nerfstudio:colmap,eval_intervall=3", "did you mean 'eval_interval'"),
        ("nerfstudio:colmap,3", "Write NAME=VALUE"),
        ("nerfstudio:colmap,colmap_path=[", "is no value"),
        ("colmap:nerfstudio", "has no variants"),
    ],
)
def test_names_that_do_not_exist(tmp_path: Path, format: str, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem):
        open_dataset(tmp_path, format=format)


@pytest.mark.usefixtures("package")
def test_what_a_parser_throws_is_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Config, split: str) -> SimpleNamespace:
        raise AssertionError("fx not specified in frame")

    monkeypatch.setattr(Config, "get_dataparser_outputs", broken)
    with pytest.raises(DatasetError, match=r"'train' cannot be read \(AssertionError: fx not specified"):
        open_dataset(tmp_path, format="nerfstudio")


def test_without_nerfstudio_the_error_says_what_reads_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nerfstudio", None)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="--data-format transforms"):
        open_dataset(tmp_path, format="nerfstudio")


def test_nobody_is_asked_for_it_and_nothing_recognises_it(tmp_path: Path) -> None:
    root = small_sets.write_transforms(tmp_path, small_sets.cameras(4))
    assert open_dataset(root).format == "transforms"
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path / "images")
    assert "; ;" not in str(caught.value)

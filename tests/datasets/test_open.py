"""Opening by recognition, choosing an instant, and the ways to hold views out."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_sets

from smalti.datasets import formats
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.open import at_time, open_dataset, select_views, times
from smalti.datasets.splits import split_views


def test_nothing_recognised_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"no known format is recognised \(it holds notes.txt\)") as caught:
        open_dataset(tmp_path)
    for name in formats.BUILT_IN:
        assert formats.load_format(name).LOOKS_FOR in caught.value.remedy
    with pytest.raises(DatasetError, match="no such file or folder"):
        open_dataset(tmp_path / "gone")


def test_pictures_without_cameras_say_so(tmp_path: Path) -> None:
    small_sets.write_picture(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    for path in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(DatasetError, match="pictures, but no cameras") as caught:
            open_dataset(path)
        assert "run COLMAP" in caught.value.remedy


def test_a_folder_too_high_names_the_right_one(tmp_path: Path) -> None:
    small_sets.write_transforms(tmp_path / "inner", small_sets.cameras(3))
    (tmp_path / "another").mkdir()
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path)
    assert caught.value.remedy.startswith(f"Did you mean {tmp_path / 'inner'}, which is transforms?")


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_sets.write_transforms(tmp_path, small_sets.cameras(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="the path is empty"):
        open_dataset("")
    assert len(open_dataset(".").views) == 3


def test_two_formats_in_one_folder_ask_for_a_choice(tmp_path: Path) -> None:
    views = small_sets.cameras(3)
    small_sets.write_transforms(tmp_path, views)
    small_sets.write_colmap_binary(tmp_path, views)
    with pytest.raises(DatasetError, match="several formats are recognised: colmap, transforms"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, format="colmap").format == "colmap"
    with pytest.raises(DatasetError, match="did you mean 'colmap'"):
        open_dataset(tmp_path, format="colnap")


def test_a_third_party_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = open_dataset(small_sets.write_llff(tmp_path / "llff", small_sets.cameras(3))).views
    module = SimpleNamespace(
        LOOKS_FOR="scene.mine",
        detect=lambda path: (path / "scene.mine").is_file(),
        read=lambda path: Dataset(path, "mine", views),
    )
    entry = EntryPoint("mine", "somewhere:module", "smalti.datasets")
    monkeypatch.setattr(EntryPoint, "load", lambda self: module)
    monkeypatch.setattr(formats, "entry_points", lambda group: EntryPoints([entry]))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "scene.mine").write_text("")
    assert open_dataset(tmp_path / "own").format == "mine"
    assert "mine" in formats.format_names()


def test_demo_is_the_word_and_not_the_folder(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sets.write_transforms(tmp_path / "demo", small_sets.cameras(3))
    monkeypatch.chdir(tmp_path)
    assert open_dataset("demo").root == demo_folder
    for path in ("./demo", "demo/", tmp_path / "demo", Path("demo")):
        assert open_dataset(path).root.resolve() == tmp_path / "demo"


def test_demo_opens(demo_folder: Path) -> None:
    dataset = open_dataset("demo")
    assert dataset.root == demo_folder
    assert dataset.background == (1.0, 1.0, 1.0)
    train, test = dataset.split()
    assert train
    assert test
    assert not dataset.notices


def test_nearest_instant(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_rig(tmp_path, small_sets.cameras(2), frames=3))
    assert times(dataset) == [0.0, 0.5, 1.0]
    for asked, given in ((0.0, 0.0), (0.24, 0.0), (0.25, 0.0), (0.26, 0.5), (7.0, 1.0), (-3.0, 0.0)):
        still = at_time(dataset, asked)
        assert times(still) == [given]
        assert len(still.views) == 2
        assert still.notices[-1].code == "one-instant"


def test_selection_keeps_the_sightings_of_what_is_left(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_colmap_binary(tmp_path, small_sets.cameras(4)))
    some = select_views(dataset, [3, 1])
    assert [view.camera.name for view in some.views] == ["view_03.png", "view_01.png"]
    assert dataset.points is not None
    assert some.points is not None
    for new, old in ((0, 3), (1, 1)):
        a, b = some.points.observation_view == new, dataset.points.observation_view == old
        np.testing.assert_array_equal(some.points.observation_xy[a], dataset.points.observation_xy[b])
        np.testing.assert_array_equal(some.points.observation_point[a], dataset.points.observation_point[b])


@pytest.fixture
def llff(tmp_path: Path) -> Dataset:
    return open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(10)))


def test_split_rules(llff: Dataset, tmp_path: Path) -> None:
    assert llff.split() == llff.split("every:8") == ([1, 2, 3, 4, 5, 6, 7, 9], [0, 8])
    assert llff.split("every:3")[1] == [0, 3, 6, 9]
    assert llff.split("none") == (list(range(10)), [])
    assert llff.split("names:view_07.png, view_02")[1] == [2, 7]
    listed = tmp_path / "held_out.txt"
    listed.write_text("# the two\nview_09.png\n\nview_04\n")
    assert llff.split(f"names:{listed}")[1] == [4, 9]


def test_test_views_are_ordered_by_name_whatever_the_order_of_the_views(llff: Dataset) -> None:
    shuffled = [llff.views[row] for row in np.random.default_rng(0).permutation(10)]
    _, test = split_views(shuffled, "every:4")
    assert [shuffled[row].camera.name for row in test] == ["view_00.png", "view_04.png", "view_08.png"]


@pytest.mark.parametrize(("rule", "problem"), [
    ("every:1", "not known"), ("every:x", "not known"), ("half", "the rule 'half' is not known"),
    ("names:view_77.png", "no view is called so. The nearest is view_07.png"),
    ("names:" + ",".join(f"view_{row:02d}" for row in range(10)), "no view is left"),
])  # fmt: skip
def test_split_errors(llff: Dataset, rule: str, problem: str) -> None:
    with pytest.raises(DatasetError, match=problem):
        llff.split(rule)


def test_ambiguous_short_names_ask_for_the_full_one(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_rig(tmp_path, small_sets.cameras(2)))
    with pytest.raises(DatasetError, match="2 views are called so"):
        dataset.split("names:0001.png")
    assert len(dataset.split("names:cam_1/0001.png")[1]) == 1

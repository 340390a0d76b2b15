from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.cli.convert import turned
from smalti.cli.failures import UsageError
from smalti.cli.main import main
from smalti.files import read_scene_file, write_scene_file
from smalti.files.splats import Splats, similarity_transform
from smalti.primitives.gaussians import Gaussians
from smalti.scene.scene import Scene


def some(count: int = 40, degree: int = 2) -> Splats:
    draw = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return draw.normal(size=(count, *shape)).astype(np.float32)

    rest = 0.2 * normal((degree + 1) ** 2 - 1, 3)
    return Splats(normal(3), 0.3 * normal(3) - 2, normal(4), normal(), normal(3), rest)


MAPS = [
    ",".join(sign + axis for sign, axis in zip(signs, axes, strict=True))
    for axes in itertools.permutations("xyz")
    for signs in itertools.product(("", "-"), repeat=3)
]


def test_24_axis_maps() -> None:
    """Exactly the rotations among the 48 are taken; the scene turned with its camera is the same picture."""
    taken = []
    for axes in MAPS:
        with contextlib.suppress(UsageError):
            taken.append(turned(axes, 1.0))
    assert len(taken) == 24
    with pytest.raises(UsageError, match="mirrors"):
        turned("-x,y,z", 1.0)
    splats, camera = (
        some(),
        Camera.look_at(torch.tensor([0.3, 0.4, -5.0]), torch.zeros(3), torch.tensor([0.0, -1, 0]), 0.8, (40, 32)),
    )
    expected = drawn(splats, camera)
    for move in taken:
        there = similarity_transform(move)(splats)
        turn = move.rotation.float()
        moved = replace(camera, rotation=camera.rotation @ turn.T)
        assert (drawn(there, moved) - expected).abs().max() < 2e-5


def drawn(splats: Splats, camera: Camera) -> torch.Tensor:
    scene = Scene()
    scene.add("all", Gaussians(splats.to_parameters(), {"sh_degree": splats.sh_degree}))
    return scene.render(camera).color


@pytest.mark.parametrize("name", ["out.compressed.ply", "out.splat", "out.spz", "out.sog", "out.glb", "out.ply"])
def test_converted_there_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splats = some()
    write_scene_file(tmp_path / "in.ply", splats)
    assert main(["convert", str(tmp_path / "in.ply"), str(tmp_path / name), "--axes=-y,x,z", "--scale", "2"]) == 0
    assert f"{len(splats)} Gaussians" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / name), str(tmp_path / "back.ply"), "--axes=y,-x,z", "--scale", "0.5"]) == 0
    back = read_scene_file(tmp_path / "back.ply")
    nearest = np.abs(splats.means[:, None] - back.means[None]).max(-1).min(1)
    assert nearest.max() < 4e-3


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splats = some()
    write_scene_file(tmp_path / "in.ply", splats)
    assert main(["info", str(tmp_path / "in.ply"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["primitives"] == len(splats)
    assert found["metadata"]["sh_degree"] == 2
    column = found["columns"]["means[1]"]
    assert column["maximum"] == pytest.approx(float(splats.means[:, 1].max()))
    assert column["deviation"] == pytest.approx(float(splats.means[:, 1].astype(float).std()))
    assert main(["info", str(tmp_path / "in.ply")]) == 0
    assert "logit_opacities" in capsys.readouterr().out


def test_info_of_a_scene_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from smalti.scene.folder import save_scene

    scene, splats = Scene(), some()
    scene.add("chair", Gaussians(splats.to_parameters(), {"sh_degree": 2}))
    save_scene(scene, tmp_path / "scene")
    assert main(["info", str(tmp_path / "scene"), "--json"]) == 0
    layer = json.loads(capsys.readouterr().out)["layers"][0]
    assert (layer["name"], layer["family"], layer["primitives"]) == ("chair", "gaussians", len(splats))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["convert", "nowhere.ply", "out.spz"], "no such file"),
        (["convert", "in.ply", "in.ply"], "the input itself"),
        (["convert", "in.ply", "out.xyz"], "no writer"),
        (["convert", "in.ply", "out.spz", "--axes", "x,x,y"], "twice"),
        (["convert", "in.ply", "out.spz", "--axes", "x,y"], "expected three"),
        (["convert", "in.ply", "out.spz", "--scale", "0"], "positive"),
        (["info", "nowhere.ply"], "no such file"),
    ],
)
def test_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene_file(tmp_path / "in.ply", some(4))
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ply"]


def test_meshes_and_assemblies_converted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An assembly to .glb, to a scene file and back to the same JSON; to a mesh; told apart by content."""
    pytest.importorskip("trimesh")
    data = {"location": [0.1, 0.2, 0.3], "rotation": [0, 0, 0, 1], "scale": [0.5, 0.25, 0.125], "color": ["2FA9FF"]}
    plain = {"operation": 0, "type": 1, "scene_id": None, "group": [{"type_id": 1101002001034001, "data": data}]}
    (tmp_path / "in.json").write_text(json.dumps(plain))
    previous = "in.json"
    for name in ("a.smalti", "folder", "b.glb", "back.json"):
        assert main(["convert", str(tmp_path / previous), str(tmp_path / name)]) == 0
        previous = name
    assert json.loads((tmp_path / "back.json").read_text()) == plain
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "b.glb"), str(tmp_path / "mesh.ply"), "--axes=x,z,-y", "--scale=2"]) == 0
    said = capsys.readouterr().out
    assert "1,280 triangles" in said
    assert "note: layer 'blocks' was written as triangles" in said
    assert main(["info", str(tmp_path / "mesh.ply"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["primitives"]) == ("PLY mesh", 1280)
    (layer,) = found["layers"]
    # z-up (0.5, 0.25, 0.125) is (x, z, y) in the scene; then y and z change places and all is doubled
    for row, half in enumerate((0.5, 0.25, 0.125)):
        column = layer["columns"][f"vertices[{row}]"]
        assert column["maximum"] - column["minimum"] == pytest.approx(4 * half, rel=2e-3)
    assert main(["info", str(tmp_path / "b.glb")]) == 0
    said = capsys.readouterr().out
    assert "glTF with meshes, 1 primitives" in said
    assert "raw_textures: 1 x 4 x 4 x 3" in said
    assert main(["convert", str(tmp_path / "b.glb"), str(tmp_path / "no.spz")]) == 2
    assert "splat files cannot hold" in capsys.readouterr().err


def test_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of other axes than its format's: the same splats, exactly, as those written with them."""
    splats = some(degree=0)
    write_scene_file(tmp_path / "in.ply", splats)
    for frame in ("scene", "gltf", "z-up", "spz"):
        assert main(["convert", str(tmp_path / "in.ply"), str(tmp_path / "a.glb"), "--to", frame]) == 0
        assert main(["convert", str(tmp_path / "a.glb"), str(tmp_path / "b.ply"), "--from", frame]) == 0
        np.testing.assert_array_equal(read_scene_file(tmp_path / "b.ply").means, splats.means)
    assert main(["convert", str(tmp_path / "in.ply"), str(tmp_path / "a.ply"), "--to", "z-up"]) == 0
    np.testing.assert_array_equal(read_scene_file(tmp_path / "a.ply").means[:, 2], -splats.means[:, 1])
    assert main(["convert", str(tmp_path / "in.ply"), str(tmp_path / "folder"), "--to", "z-up"]) == 2
    assert "has the scene's axes" in capsys.readouterr().err


def test_one_layer_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the refusal proposes can be done."""
    from smalti.scene import demo_scene

    demo_scene().save(tmp_path / "in.smalti")
    source, out = str(tmp_path / "in.smalti"), str(tmp_path / "out.ply")
    assert main(["convert", source, out]) == 2
    assert "--layers chair" in capsys.readouterr().err
    assert main(["convert", source, out, "--layers", "chair"]) == 0
    assert len(read_scene_file(tmp_path / "out.ply")) == 8
    assert main(["convert", source, out, "--layers", "chiar"]) == 2


def test_figures_that_are_no_numbers_are_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene()
    family = Gaussians.from_points(torch.zeros(2, 3), torch.zeros(2, 3), {})
    family.replace({"logit_opacities": torch.tensor([0.0, torch.inf])})
    scene.add("cloud", family)
    scene.save(tmp_path / "a.smalti")
    assert main(["info", str(tmp_path / "a.smalti"), "--json"]) == 0

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["layers"][0]["columns"]["logit_opacities"]["maximum"] is None


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A SOG folder is named by itself or by its meta.json; what is no scene says so."""
    import zipfile

    write_scene_file(tmp_path / "a.sog", some())
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(tmp_path / "a.sog").extractall(folder)
    for source in (folder, folder / "meta.json"):
        assert main(["convert", str(source), str(tmp_path / "a.ply")]) == 0
        assert main(["info", str(source), "--json"]) == 0
        assert '"format": "SOG folder"' in capsys.readouterr().out
        assert len(read_scene_file(tmp_path / "a.ply")) == 40
    (tmp_path / "empty").mkdir()
    for words in (["info"], ["convert", str(tmp_path / "b.ply")]):
        assert main([words[0], str(tmp_path / "empty"), *words[1:]]) == 2
        assert "is a folder that holds no scene.json and no meta.json" in capsys.readouterr().err

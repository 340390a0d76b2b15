"""Scenes in one file: the same bytes back, written in bounded memory, whole or not at all; clear errors."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mixed import LAYERS, a_scene, in_bytes
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smalti.cameras.similarity import Similarity
from smalti.cli.main import main
from smalti.configs.config import DataConfig, LayerConfig, TrainConfig
from smalti.primitives.family import find_family
from smalti.scene import Scene, demo_scene
from smalti.scene.folder import SceneFolderError, is_scene, load_scene
from smalti.scene.plain import SceneFileError
from smalti.scene.single_file import KEY, METADATA, MOST_HEADER, write_tensors
from smalti.trainers.initial import initial_scene
from smalti.trainers.initializers import Ground, layer_from_file


def held(scene: Scene) -> tuple[list[tuple[str, bytes, str]], str]:
    """All that is saved, whatever order the parameters are in."""
    tensors, plain = in_bytes(scene)
    return sorted(tensors), plain


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_header(path: Path, header: dict[str, Any]) -> Path:
    """The same tensors behind another header."""
    data = path.read_bytes()
    payload = data[8 + int.from_bytes(data[:8], "little") :]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def with_plain(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same file with other plain values."""
    header = header_of(path)
    plain = json.loads(header[METADATA][KEY])
    change(plain)
    header[METADATA][KEY] = json.dumps(plain)
    return with_header(path, header)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    demo_scene().save(tmp_path / "demo.smalti")
    return tmp_path / "demo.smalti"


def test_every_family_comes_back_to_the_byte(tmp_path: Path) -> None:
    scene = a_scene(*LAYERS)
    scene.near, scene.background = 0.25, (1.0, 0.5, 0.0)
    scene.layers["boxes"].locked, scene.layers["meshes"].visible = True, False
    scene.layers["surfels"].similarity = Similarity(2.0, translation=torch.tensor([0.1, 1e-300, 3.0]).double())
    size = scene.save(tmp_path / "deep" / "all.smalti")
    assert size == (tmp_path / "deep" / "all.smalti").stat().st_size
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["all.smalti"]
    assert held(Scene.load(tmp_path / "deep" / "all.smalti")) == held(scene)
    scene.save(tmp_path / "folder")
    assert held(Scene.load(tmp_path / "folder")) == held(scene)
    # Onto itself: what was loaded does not hang on the file that is replaced.
    again = Scene.load(tmp_path / "deep" / "all.smalti")
    again.save(tmp_path / "deep" / "all.smalti")
    assert held(Scene.load(tmp_path / "deep" / "all.smalti")) == held(scene)


def test_an_empty_scene_and_empty_layers(tmp_path: Path) -> None:
    assert Scene(order="ray").save(tmp_path / "none.smalti") > 8
    assert Scene.load(tmp_path / "none.smalti").order == "ray"
    scene = demo_scene()
    scene["chair"].family.prune(torch.ones(8, dtype=torch.bool))
    scene.save(tmp_path / "few.smalti")
    assert held(Scene.load(tmp_path / "few.smalti")) == held(scene)


def test_it_is_the_file_that_safetensors_itself_would_write(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b": torch.rand(5, 3, generator=generator),
        "a": torch.rand(3, generator=generator).double(),
        "half": torch.rand(7, generator=generator).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "turned": torch.rand(4, 6, generator=generator).T,
        "none": torch.zeros(0, 3),
        "one": torch.tensor(3),
    }
    write_tensors(tmp_path / "mine", tensors, {"key": "value"})
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "theirs", {"key": "value"})
    for name in ("mine", "theirs"):
        back = load_file(tmp_path / name)
        assert all(torch.equal(back[key], value) and back[key].dtype == value.dtype for key, value in tensors.items())
    with safe_open(tmp_path / "mine", framework="pt") as opened:
        assert opened.metadata() == {"key": "value"}
    assert (tmp_path / "mine").stat().st_size == (tmp_path / "theirs").stat().st_size
    with pytest.raises(SceneFileError, match=r"cannot hold odd \(torch.complex64\)"):
        write_tensors(tmp_path / "mine", {"odd": torch.zeros(1, dtype=torch.complex64)})


MEASURE = """
import resource, sys, torch
from smalti.primitives.family import find_family
from smalti.scene import Scene
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
def now():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024
scene, kind = Scene(), find_family("gaussians")
n = 400_000
made = kind({"means": torch.ones(n, 3), "log_scales": torch.ones(n, 3), "quaternions": torch.ones(n, 4),
    "logit_opacities": torch.ones(n), "sh_dc": torch.ones(n, 3), "sh_rest": torch.ones(n, 15, 3)}, {"sh_degree": 3})
scene.add("many", made)
from smalti.scene.folder import save_scene
import smalti.scene.single_file
open("/proc/self/clear_refs", "w").write("5")
before = now()
size = scene.save(sys.argv[1])
print(size, peak() - before)
"""


@pytest.mark.parametrize("name", ["many.smalti", "folder"])
def test_writing_takes_little_memory(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    size, more = map(int, done.stdout.split())
    assert size > 90e6
    assert more < 12e6, f"writing {size / 1e6:.0f} MB took {more / 1e6:.1f} MB more"


def test_a_failed_write_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, scene = saved.read_bytes(), demo_scene()
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    scene["chair"].opacity = 0.1
    with pytest.raises(OSError, match="No space"):
        scene.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


# -- what is wrong ----------------------------------------------------------------------------------------------------
def test_a_version_from_the_future(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneFileError, match=r"demo.smalti: is a scene of version 7, newer.*Update smalti"):
        Scene.load(with_plain(saved, lambda plain: plain.update(version=7, something={"new": 1})))
    demo_scene().save(tmp_path / "folder")
    path = tmp_path / "folder" / "scene.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(SceneFolderError, match=r"folder: is a scene of version 7.*Update smalti"):
        Scene.load(tmp_path / "folder")


def replaced(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda plain: plain.__setitem__(key, value)


def in_layer(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda plain: plain["layers"][1].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replaced("version", "1"), "states no version"),
        (replaced("version", None), "states no version"),
        (replaced("order", "depth"), "`order` should be `centre` or `ray`"),
        (replaced("near", -1), "`near` should be a positive number"),
        (replaced("near", True), "`near` should be a positive number"),
        (replaced("background", [1, 2]), "`background` should be three numbers"),
        (replaced("layers", {}), "`layers` should be a list"),
        (replaced("layers", [1]), r"`layers\[0\]` should be an object"),
        (replaced("layers", []), "'chair/log_scales' belongs to no layer"),
        (in_layer("family", "gausians"), "layer 'cloud': no primitive family is called 'gausians'; did you mean"),
        (in_layer("family", "splats_of_tomorrow"), "registered are: .*boxes"),
        (in_layer("metadata", {"sh_degree": 1e9}), "layer 'cloud': .*sh_degree"),
        (in_layer("metadata", {"colour": 1}), "layer 'cloud': .*unknown metadata 'colour'"),
        (in_layer("visible", "yes"), r"`layers\[1\].visible` should be of type bool"),
        (in_layer("name", "chair"), "layers with names of their own"),
        (in_layer("name", "hall"), "'cloud/log_scales' belongs to no layer"),
        (in_layer("similarity", {"scale": 1, "rotation": [], "translation": [0, 0, 0]}), "rotation"),
        (in_layer("similarity", {"scale": -1, "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "translation": [0] * 3}),
         "do not fit together .*positive"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing(saved: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(SceneFileError, match=f"demo.smalti: .*{said}"):
        Scene.load(with_plain(saved, change))


def test_a_missing_tensor(saved: Path) -> None:
    tensors, plain = demo_scene().state()
    del tensors["chair/quaternions"]
    write_tensors(saved, tensors, {KEY: json.dumps(plain)})
    with pytest.raises(SceneFileError, match=r"layer 'chair': family gaussians: expected the parameters.*quaternions"):
        Scene.load(saved)
    tensors["chair/quaternions"] = torch.zeros(5, 4)
    write_tensors(saved, tensors, {KEY: json.dumps(plain)})
    with pytest.raises(SceneFileError, match=r"layer 'chair': .*differ in their number of rows"):
        Scene.load(saved)


def test_headers_that_lie(saved: Path) -> None:
    good = saved.read_bytes()

    def refused(data: bytes, said: str) -> None:
        saved.write_bytes(data)
        with pytest.raises(SceneFileError, match=said):
            Scene.load(saved)

    refused(b"", "truncated in its first eight bytes")
    refused(good[:100], "truncated in its header")
    refused(good[:-1], rf"is truncated: {len(good) - 1:,} of {len(good):,} bytes are there")
    refused(good + b"x", "has 1 bytes behind its end")
    refused((2**63).to_bytes(8, "little") + good[8:], "announces a header of")
    refused((MOST_HEADER).to_bytes(8, "little") + good[8:], "truncated in its header")
    refused((8).to_bytes(8, "little") + b"[[[[[[[[", "not valid JSON")
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    refused(len(deep).to_bytes(8, "little") + deep, "not valid JSON")
    saved.write_bytes(good)
    header = header_of(saved)
    name = "chair/means"
    for key, value, said in (
        ("shape", [2**40, 3], "should take"),
        ("shape", [2**62, 2**62, 0, 8], "should take 0"),
        ("shape", [8.5, 3], "no type, shape or place"),
        ("dtype", "F4", "no type, shape or place"),
        ("dtype", "F64", "should take"),
        ("data_offsets", [0, 96, 3], "no type, shape or place"),
        ("data_offsets", [-96, 0], "no type, shape or place"),
        ("data_offsets", [2**50, 2**50 + 96], "is truncated"),
        ("data_offsets", [0, 96], "table of tensors is damaged"),
    ):
        saved.write_bytes(good)
        with_header(saved, {**header, name: {**header[name], key: value}})
        with pytest.raises(SceneFileError, match=said):
            Scene.load(saved)
    save_file({"a": torch.zeros(2)}, saved)
    with pytest.raises(SceneFileError, match="holds tensors but no scene"):
        Scene.load(saved)


def test_damaged_bytes_are_refused_or_read(saved: Path) -> None:
    """Three hundred files with a few wrong bytes in the header: a scene or a SceneFileError, nothing else."""
    good, dice, refused = saved.read_bytes(), random.Random(0), 0
    end = 8 + int.from_bytes(good[:8], "little")
    for _ in range(300):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(end)
            data[place] = dice.randrange(48, 58) if chr(data[place]).isdigit() else dice.randrange(256)
        saved.write_bytes(data)
        try:
            Scene.load(saved)
        except SceneFileError:
            refused += 1
    assert 150 < refused < 300


def test_where_no_scene_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Scene.load(tmp_path / "nowhere.smalti")
    with pytest.raises(SceneFolderError, match="no scene is there"):
        Scene.load(tmp_path)
    assert not is_scene(tmp_path)
    demo_scene().save(tmp_path)
    (tmp_path / "scene.safetensors").write_bytes(b"12345678{")
    with pytest.raises(SceneFolderError, match="the scene is damaged"):
        load_scene(tmp_path)


# -- the commands -----------------------------------------------------------------------------------------------------
def test_info_tells_what_is_in_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(saved), "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert [(layer["name"], layer["primitives"]) for layer in layers] == [("chair", 8), ("cloud", 12)]
    saved.write_bytes(saved.read_bytes()[:-9])
    assert main(["info", str(saved)]) == 2
    assert "is truncated" in capsys.readouterr().err


def test_training_starts_from_it(saved: Path) -> None:
    found = layer_from_file(find_family("surfels"), saved, "cloud")
    assert torch.equal(found.parameters["means"], demo_scene()["cloud"].family.parameters["means"])
    layers = [
        LayerConfig(name="chair", family="gaussians"),
        LayerConfig(name="cloud", family="surfels", frozen=True),
    ]
    config = TrainConfig(scene=layers, init_from=str(saved), data=DataConfig(background="black"))
    ground = Ground(None, torch.zeros(0, 3), torch.zeros(0, 3), torch.Generator())  # type: ignore[arg-type]
    made = initial_scene(config, ground, 1.0)
    assert made.counts() == {"chair": 8, "cloud": 12}
    assert made.layers["cloud"].locked

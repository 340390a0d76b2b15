"""`smalti eval`, `render` and `export` on a small run folder, through the command's own door."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.cli.main import main
from smalti.configs.config import TrainConfig, parse_bytes
from smalti.datasets.images import ImageCache
from smalti.files import read_scene_file, write_scene_file
from smalti.files.ply import read_ply
from smalti.primitives.gaussians import Gaussians
from smalti.scene.folder import load_scene
from smalti.scene.scene import Scene
from smalti.trainers.checkpoints import TrainerState, write_checkpoint
from smalti.trainers.evaluation import evaluate, protocol_for
from smalti.trainers.run import Run


def make_scene(background: tuple[float, float, float] | None) -> Scene:
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(300, 3, generator=generator) - 0.5
    family = Gaussians.from_points(positions, torch.rand(300, 3, generator=generator), {"sh_degree": 2})
    family.parameters["logit_opacities"].data.fill_(2.0)
    scene = Scene(background=background)
    scene.add("gaussians", family)
    return scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the built-in scene at a quarter of its size, with two checkpoints."""
    config = TrainConfig()
    config.data.path, config.data.downscale = "demo", 4
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", config)
    scene = make_scene(made.dataset().background)
    write_checkpoint(made.path, 5, scene, TrainerState(), keep=2)
    scene.layers["gaussians"].family.parameters["sh_dc"].data.mul_(0.5)
    write_checkpoint(made.path, 10, scene, TrainerState(), keep=2)
    return made


def test_eval_prints_what_the_trainer_measures(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The trainer calls `evaluate` on its own scene, cache and held-out rows: the same, to the last digit."""
    dataset = run.dataset()
    cache = ImageCache(dataset, downscale=4, bytes=parse_bytes(run.config.data.cache))
    protocol = protocol_for(run.config.data, dataset)
    _, rows = run.split(dataset)
    for step in (None, 5):
        expected = evaluate(run.load_scene(step), cache, rows, protocol).to_json()
        arguments = [] if step is None else ["--step", str(step)]
        assert main(["eval", str(run.path), "--json", *arguments]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed.pop("step") == (step or 10)
        assert printed.pop("primitives") == 300
        assert printed.pop("set") == "test"
        assert printed.pop("perceptual") is None
        assert printed.pop("run") == str(run.path)
        assert printed == expected
    assert len(printed["views"]) == 8


def test_eval_as_text_names_worst_views_and_protocol(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run.path), "--rounding", "--exposure", "fitted"]) == 0
    text = capsys.readouterr().out
    assert "step 10, 300 primitives, test views" in text
    assert "worst by PSNR: test/" in text
    assert "background (1, 1, 1); downscale 4" in text
    assert "rounded to 8 bit; exposure fitted" in text


def test_render_one_view_and_its_channels(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = {}
    for channel in ("color", "depth", "alpha"):
        out = tmp_path / f"{channel}.png"
        assert main(["render", str(run.path), "--view", "test/003", "--channels", channel, "--out", str(out)]) == 0
        pictures[channel] = np.asarray(Image.open(out))
        assert "test/003, 56 x 56" in capsys.readouterr().out
    outside = pictures["alpha"][..., 0] == 0
    assert 0 < outside.sum() < outside.size
    assert (pictures["color"][outside] == 255).all()  # the data set's white
    assert (pictures["depth"][outside] == 0).all()
    assert (
        main(["render", str(run.path), "--view", "test/003", "--out", str(tmp_path / "folder"), "--width", "28"]) == 0
    )
    assert Image.open(tmp_path / "folder" / "003.png").size == (28, 28)


def test_render_a_video_and_a_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sub" / "spiral.mp4"
    path = ["--trajectory", "spiral", "--frames", "5", "--width", "45"]
    assert main(["render", str(run.path), *path, "--out", str(out)]) == 0
    assert "5 frames at 30 per second, 45 x 45, color" in capsys.readouterr().out
    assert out.stat().st_size > 500
    assert main(["render", str(run.path), "--frames", "3", "--channels", "depth", "--out", str(tmp_path / "pngs")]) == 0
    assert len(list((tmp_path / "pngs").glob("*.png"))) == 3
    assert main(["render", str(run.path), "--frames", "2"]) == 0
    assert (run.path / "orbit.mp4").is_file()


def test_render_cameras_of_a_file(run: Run, tmp_path: Path) -> None:
    from smalti.cameras.trajectories import save_trajectory

    cameras = [view.camera for view in run.dataset().views[:2]]
    save_trajectory(tmp_path / "path.json", cameras)
    arguments = ["--trajectory", str(tmp_path / "path.json"), "--width", "56", "--out", str(tmp_path / "frames")]
    assert main(["render", str(run.path), *arguments]) == 0
    name = cameras[1].name
    assert main(["render", str(run.path), "--view", name, "--out", str(tmp_path / "view.png")]) == 0
    first, second = (np.asarray(Image.open(tmp_path / part), np.int64) for part in ("frames/00001.png", "view.png"))
    assert np.abs(first - second).max() <= 1


def test_render_a_scene_of_no_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An edited scene along a path saved in the viewer: the pictures that the run gives, as the scene is the same."""
    from smalti.cameras.trajectory_files import save_trajectory

    dataset = run.dataset()
    path = tmp_path / "path.json"
    save_trajectory(path, [dataset.views[row].camera.scaled_to(40, 40) for row in (0, 1)])
    run.load_scene(10).save(tmp_path / "scene.smalti")
    for source, out in ((run.path, "a"), (tmp_path / "scene.smalti", "b")):
        assert main(["render", str(source), "--trajectory", str(path), "--out", str(tmp_path / out)]) == 0
    for name in sorted(each.name for each in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    capsys.readouterr()
    assert main(["render", str(tmp_path / "scene.smalti"), "--out", str(tmp_path / "c")]) == 2
    assert "--trajectory FILE" in capsys.readouterr().err
    assert main(["render", str(tmp_path / "scene.smalti"), "--step", "10", "--out", str(tmp_path / "c")]) == 2
    assert "--step is for run folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "RUN", "--step", "7"], "no checkpoint of step 7"),
        (["eval", "NOWHERE"], "is not a run folder"),
        (["eval", "RUN", "--backend", "vulkan"], "unknown back end 'vulkan'"),
        (["render", "RUN", "--view", "test/0003"], "did you mean test/003"),
        (["render", "RUN", "--view", "test/003", "--out", "a.mp4"], "one picture is written as .png"),
        (["render", "RUN", "--trajectory", "nowhere.json", "--out", "frames"], "there is no such file"),
        (["render", "RUN", "--out", "a.gif"], "no video format has the extension '.gif'"),
        (["render", "RUN", "--frames", "0"], "must be positive"),
        (["export", "RUN", "scene.glbx"], "no writer for the extension"),
        (["export", "RUN", "no/such/folder/scene.glbx"], "no writer for the extension"),
    ],
)
def test_failures_are_one_line_and_code_2(
    run: Run,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(run.path) if word == "RUN" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("smalti: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_forced_cuda_fails_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.perf_counter()
        assert main(["eval", str(run.path), "--backend", "cuda"]) == 2
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0
    assert "was built without CUDA" in capsys.readouterr().err


def test_export_is_the_scene_that_is_rendered(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.path), str(tmp_path / "scene.ply"), "--step", "5"]) == 0
    assert "300 primitives" in capsys.readouterr().out
    splats = read_ply(tmp_path / "scene.ply")
    scene = run.load_scene(5)
    again = Scene(background=scene.background)
    again.add("gaussians", Gaussians(splats.to_parameters(), {"sh_degree": 2, "active_sh_degree": splats.sh_degree}))
    camera = run.dataset().views[0].camera.to(torch.float32)
    assert torch.equal(scene.render(camera).color, again.render(camera).color)


@pytest.mark.parametrize("extension", [".compressed.ply", ".spz", ".splat"])
def test_export_in_other_formats_says_what_they_do_not_hold(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    extension: str,
) -> None:
    def lossy(*arguments: Any) -> tuple[str, ...]:
        return (*write_scene_file(*arguments), "much was lost")

    monkeypatch.setattr("smalti.scene.exchange.write_scene_file", lossy)
    path = tmp_path / f"scene{extension}"
    assert main(["export", str(run.path), str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{path}: 300 primitives" in said
    assert "  note: much was lost\n" in said
    assert len(read_scene_file(path)) == 300
    assert main(["export", str(run.path), str(tmp_path / "scene.ksplat")]) == 2
    assert "no writer for the extension `.ksplat`" in capsys.readouterr().err


def test_export_of_a_mix_keeps_blocks_and_meshes(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One .glb with nodes of every layer; a splat format says what it cannot hold and what to do."""
    from smalti.primitives.meshes import Meshes
    from smalti.primitives.superquadrics import Superquadrics
    from smalti.scene.open_file import open_scene

    scene = run.load_scene(5)
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    blocks = Superquadrics.at_random(bounds, 2, torch.Generator().manual_seed(0), {"texture_size": 4, "level": 1})
    scene.add("blocks", blocks)
    scene.add("ball", Meshes.sphere(torch.zeros(3), 0.5, {"level": 1}))
    other = Run.create(tmp_path / "run", run.config)
    write_checkpoint(other.path, 5, scene, TrainerState(), keep=2)
    path = tmp_path / "mix.glb"
    assert main(["export", str(other.path), "--out", str(path)]) == 0
    assert f"{path}: 382 primitives" in capsys.readouterr().out
    assert open_scene(path).scene.counts() == {"gaussians": 300, "blocks": 2, "ball": 80}
    assert main(["export", str(other.path), str(tmp_path / "a.spz")]) == 2
    assert "splat files cannot hold" in capsys.readouterr().err
    assert main(["export", str(other.path), str(tmp_path / "a.spz"), "--layers", "gaussians"]) == 0
    assert main(["export", str(other.path), str(tmp_path / "a.obj"), "--layers", "ball"]) == 0
    assert main(["export", str(other.path), str(tmp_path / "a.smalti"), "--layers", "ball,blocks"]) == 0
    assert open_scene(tmp_path / "a.smalti").scene.counts() == {"blocks": 2, "ball": 80}
    assert main(["export", str(other.path)]) == 2
    assert "say once where to write to" in capsys.readouterr().err


def test_export_makes_the_folder_and_writes_a_scene_folder_where_there_is_no_extension(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder" / "scene.ply"
    assert main(["export", str(run.path), str(out)]) == 0
    assert out.is_file()
    assert main(["export", str(run.path), str(tmp_path / "scene")]) == 0
    assert "scene folder, 300 primitives (gaussians 300)" in capsys.readouterr().out
    again, scene = load_scene(tmp_path / "scene"), run.load_scene()
    assert again.background == scene.background
    for key, value in scene.layers["gaussians"].family.parameters.items():
        assert torch.equal(again.layers["gaussians"].family.parameters[key], value)
    assert main(["export", str(run.path), str(tmp_path / "scene"), "--layers", "mesh"]) == 2
    assert "there is no layer 'mesh'; there are gaussians" in capsys.readouterr().err
    assert main(["export", str(run.path), str(tmp_path / "b.ply"), "--layers", "mesh"]) == 2
    assert "no visible layer 'mesh'" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "cuda:first", "meta"])
def test_an_unknown_device_is_named(device: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(run.path), "--device", device, "--view", "test/000"]) == 2
    assert f"--device {device}: the devices are cpu, cuda" in capsys.readouterr().err

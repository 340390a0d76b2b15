"""The experiment with blocks (`bench/blocks.py`): its scene, its measures in closed form, and that its variants run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import resolve
from smalti.datasets.images import ImageCache
from smalti.datasets.open import open_dataset
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import icosphere
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.render import render
from smalti.scene.scene import Scene
from smalti.trainers.display import PlainDisplay
from smalti.trainers.loop import train
from smalti.trainers.run import Run
from smalti.trainers.seeds import Seeds
from smalti.trainers.trainer import Trainer

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of `bench/` by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = ("blocks", "blocks_captures", "blocks_scene", "blocks_measures", "blocks_synthetic", "blocks_figures")
    names += ("blocks_time", "timing")

    def module(name: str) -> ModuleType:
        return __import__(name)

    yield module
    for name in names:
        sys.modules.pop(name, None)


def blocks(opacities: list[float], **metadata: Any) -> Scene:
    """Spheres of radius 0.3 in a row along x, one unit apart."""
    count = len(opacities)
    centres = torch.stack([torch.arange(count).float(), torch.zeros(count), torch.zeros(count)], dim=1)
    values = {"ratio": 0.25, "texture_size": 4, "level": 3, "count": count, **metadata}
    family = Superquadrics.from_points(centres, torch.full((count, 3), 0.5), values)
    logits = torch.logit(torch.tensor(opacities))
    family.replace({"raw_scales": torch.full((count, 3), math.log(0.3 / 0.25 - 0.2)), "logit_opacities": logits})
    scene = Scene(order="ray")
    scene.add("blocks", family)
    return scene


def test_scene_is_what_it_says(bench: Any, tmp_path: Path) -> None:
    scene = bench("blocks_scene")
    surface = scene.true_surface()
    assert len(surface.faces) == 36
    assert surface.volume() == pytest.approx(sum(8 * math.prod(solid.half) for solid in scene.CUBOIDS), rel=1e-6)
    assert float(surface.vertices[:, 2].min()) == pytest.approx(0.0, abs=1e-6)  # they stand on the ground
    areas = sum(8 * (a * b + b * c + c * a) for a, b, c in (solid.half for solid in scene.CUBOIDS))
    assert float(surface.areas().sum()) == pytest.approx(areas, rel=1e-6)
    scene.write_capture(tmp_path, 32, 4)
    dataset = open_dataset(tmp_path)
    assert len(dataset.views) == 4
    cache = ImageCache(dataset, downscale=1, bytes=1_000_000)
    for row, camera in enumerate(scene.cameras(4, 32)):
        view = cache.get(row)
        assert (view.camera.width, view.camera.height) == (32, 24)
        # The capture's own cameras, read back, draw the pictures that it holds.
        assert float((view.image.float() / 255 - scene.picture(view.camera)).abs().max()) < 0.5 / 255 + 2e-3
        assert torch.allclose(view.camera.centre.float(), camera.centre.float(), atol=1e-5)
    # Every cuboid is in the middle of every picture's view: seen as silhouettes.
    camera = scene.cameras(4, 32)[1]
    corners = surface.corners
    frame = render([TriangleDrawable(corners, torch.ones(36), colors=torch.ones(36, 3, 3))], camera)
    assert 0.04 < float(frame.alpha.mean()) < 0.4


def test_counts_and_surface_of_existing_blocks(bench: Any) -> None:
    measures = bench("blocks_measures")
    scene = blocks([0.95, 0.05, 0.6, 0.4])
    found = measures.counts(scene)
    assert (found["blocks"], found["blocks_of"]) == (2, 4)
    assert found["undecided"] == pytest.approx(0.5)
    surface = measures.existing_surface(scene)
    ball = icosphere(3)
    assert len(surface.faces) == 2 * len(ball.faces)
    assert sorted({round(x) for x in surface.vertices[:, 0].tolist()}) == [0, 2]
    assert not scene.layers["blocks"].family.metadata["binary"]  # the scene itself stays as it was
    none = measures.existing_surface(blocks([0.2, 0.1]))
    assert len(none.faces) == 0
    assert measures.block_chamfer(blocks([0.2]), torch.zeros(1, 3), 0.1) is None


def test_chamfer_of_blocks_alone(bench: Any) -> None:
    """A sphere of radius 0.3 against points on one of 0.35 about the same centre: 0.05 both ways; the faint block, far
    from all, does not count.
    """
    measures = bench("blocks_measures")
    truth = 0.35 * icosphere(5).vertices.float()
    distance = measures.block_chamfer(blocks([0.95, 0.3]), truth, 0.015)
    assert distance.accuracy == pytest.approx(0.05, abs=3e-3)
    assert distance.completeness == pytest.approx(0.05, abs=3e-3)
    moved = blocks([0.95, 0.9])  # a second that exists: half of the samples are far
    assert measures.block_chamfer(moved, truth, 0.03).accuracy > 0.3


def test_both_forms_of_psnr(bench: Any) -> None:
    """The example of the released code's form: squared errors 1e-2 and 3 times 1e-3 are 27.50 dB in the mean over
    pictures, and 24.88 dB as a batch of 4.
    """
    measures = bench("blocks_measures")
    errors = [1e-2, 1e-3, 1e-3, 1e-3]
    assert measures.mean_psnr(errors, 1) == pytest.approx(27.50, abs=5e-3)
    assert measures.mean_psnr(errors, 4) == pytest.approx(24.88, abs=5e-3)
    assert measures.mean_psnr([*errors, 1e-2], 4) == pytest.approx((24.88 + 20.0) / 2, abs=5e-3)  # a rest of one


def test_supersampled_pictures_are_area_averages(bench: Any) -> None:
    """An opaque block over white: coverage per pixel is the mean of 16 samples, in steps of 1/16."""
    measures, scene = bench("blocks_measures"), blocks([0.9], edges="soft")
    family = scene.layers["blocks"].family
    family.replace({"raw_textures": torch.full_like(family.parameters["raw_textures"], -20.0)})  # black
    camera = bench("blocks_scene").cameras(3, 32)[0]
    hard = measures.hardened(scene)
    picture = measures.supersampled(hard, camera, torch.ones(3))
    steps = 16.0 * picture
    assert float((steps - steps.round()).abs().max()) < 1e-3
    assert 0 < float((picture < 1e-6).double().mean()) < 0.5
    assert len({round(value) for value in steps.flatten().tolist()}) > 4  # borders in between
    flat = measures.flat_picture(scene, camera, torch.ones(24, 32, 3))
    covered = picture[..., 0] < 0.5
    assert float(flat[covered].mean()) < 0.7  # painted where the block is
    assert torch.equal(flat[picture[..., 0] == 1], torch.ones_like(flat[picture[..., 0] == 1]))


def test_every_variant_changes_one_thing(bench: Any, tmp_path: Path) -> None:
    synthetic = bench("blocks_synthetic")
    plain = synthetic.configuration("complete", 0, tmp_path, 300)
    assert plain.run.steps == 300
    assert plain.schedule.batch == 2
    prints = {synthetic.fingerprint(synthetic.configuration(name, 0, tmp_path, 300)) for name in synthetic.EVERY}
    assert len(prints) == len(synthetic.EVERY)
    assert synthetic.fingerprint(plain) == synthetic.fingerprint(
        synthetic.configuration("complete", 0, tmp_path / "elsewhere", 300)
    )
    assert synthetic.fingerprint(plain) != synthetic.fingerprint(synthetic.configuration("complete", 1, tmp_path, 300))


def test_verdicts(bench: Any) -> None:
    """A claim is true, false, or unknown where a run is missing."""
    synthetic = bench("blocks_synthetic")

    def row(variant: str, blocks: int, chamfer: float | None) -> dict[str, Any]:
        keys = ("undecided", "accuracy", "completeness", "psnr", "psnr_of_batches", "ssim", "cpu_seconds")
        return {"variant": variant, "seed": 0, "blocks": blocks, "chamfer": chamfer, **dict.fromkeys(keys, 0.5)}

    rows = [row("complete", 3, 0.05), row("no parsimony", 6, 0.051), row("parsimony 0.1", 0, None)]
    found = synthetic.claims(synthetic.summary(rows))
    assert found["complete is within one block of three"] is True
    assert found["fewer blocks than without parsimony"] is True
    assert found["Chamfer within 10 % of that without parsimony"] is True
    assert found["blocks fall with the weight of parsimony"] is None  # 0.001 was not run
    assert found["without noise Chamfer is worse"] is None
    falling = synthetic.claims(synthetic.summary([*rows, row("parsimony 0.001", 3, 0.05)]))
    assert falling["blocks fall with the weight of parsimony"] is False  # 3, 3, 0 do not fall


def test_synthetic_part_runs_and_resumes(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    words = ["--quick", "--json", "--work", str(work), "--out", str(out)]
    names = ["complete", "no perceptual"]
    bench("blocks").main([*words, "--variants", *names[:1], "--minutes", "0"])
    assert json.loads(capsys.readouterr().out)["missing"] == ["complete, seed 0"]
    bench("blocks").main([*words, "--variants", *names])
    first = json.loads(capsys.readouterr().out)
    assert [run["variant"] for run in first["runs"]] == names
    assert first["missing"] == []
    assert all(run["blocks_of"] == 6 and run["views"] == 12 for run in first["runs"])
    assert all(run["psnr"] >= run["psnr_of_batches"] > 10 for run in first["runs"])
    before = (work / "complete-0.json").stat().st_mtime_ns
    bench("blocks").main([*words, "--variants", *names])  # nothing is run twice
    assert (work / "complete-0.json").stat().st_mtime_ns == before
    assert json.loads((out / "blocks.json").read_text())["synthetic"] == first
    assert (out / "blocks-synthetic.png").stat().st_size > 5_000


def small_run(bench: Any, folder: Path, **stated: Any) -> TrainConfig:
    """Two blocks, three views of 48 x 36, three steps."""
    if not (folder / "capture").exists():
        bench("blocks_scene").write_capture(folder / "capture", 48, 3)
    small = {f"scene.{layer}.metadata.texture_size": 8 for layer in ("blocks", "ground", "dome")}
    small |= {
        "data.path": str(folder / "capture"),
        "data.split": "none",
        "data.points": "frustum",
        "run.finish": [],
        "run.log_every": 1,
    }
    small |= {"run.steps": 3, "scene.blocks.settings.count": 2, "loss.perceptual_kind": "gradients", **stated}
    return resolve("blocks", small)


def trained(path: Path, config: TrainConfig) -> None:
    trainer = Trainer(Run.planned(path, config))
    trainer.run.begin()
    train(trainer, PlainDisplay(StringIO()))
    trainer.cache.close()


def test_seeds_are_reported_one_by_one(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mean and deviation over them; the picture is of the one with the lower training loss."""
    several = Seeds.create(tmp_path / "several", small_run(bench, tmp_path), 2)
    for place, seed in enumerate(several.seeds):
        trained(several.run_path(seed), several.config_of(seed))
        seed.status, seed.step, seed.training_loss = "finished", 3, 0.2 - 0.1 * place
    several.write()
    bench("blocks").main(["--part", "dtu", "--run", str(several.path), "--json", "--out", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert [(row["seed"], row["training_loss"]) for row in found["runs"]] == [(0, 0.2), (1, 0.1)]
    assert found["shown"] == 1
    assert (found["width"], found["height"], found["views"], found["steps"]) == (48, 36, 3, 3)
    quality = [row["psnr"] for row in found["runs"]]
    assert quality[0] != quality[1]
    assert found["seeds"]["psnr"]["mean"] == pytest.approx(sum(quality) / 2)
    assert found["seeds"]["psnr"]["deviation"] == pytest.approx(abs(quality[0] - quality[1]) / math.sqrt(2))
    assert json.loads((tmp_path / "blocks.json").read_text()) == {"dtu": found}
    assert (tmp_path / "blocks-dtu.jpg").stat().st_size > 3_000


def test_perceptual_terms_side_by_side(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [tmp_path / "first", tmp_path / "second"]
    trained(runs[0], small_run(bench, tmp_path))
    trained(runs[1], small_run(bench, tmp_path, **{"loss.perceptual": 0.1, "loss.perceptual_every": 2}))
    bench("blocks").main(["--part", "perceptual", "--run", *map(str, runs), "--json", "--out", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert [row["loss"]["weight"] for row in found["runs"]] == [0.6, 0.1]
    assert [row["loss"]["every"] for row in found["runs"]] == [1, 2]
    assert all(row["perceptual"] == "gradients" and row["blocks_of"] == 2 for row in found["runs"])
    assert (tmp_path / "blocks-perceptual.jpg").stat().st_size > 3_000


def test_time_of_a_step_by_part(bench: Any, tmp_path: Path) -> None:
    bench("blocks_scene").write_capture(tmp_path, 32, 3)
    small = ["data.points=frustum", "run.steps=1000"]
    small += [f"scene.{layer}.metadata.texture_size=8" for layer in ("blocks", "ground", "dome")]
    found = bench("blocks_time").times(tmp_path, None, small, 2)
    assert (found["steps"], found["width"], found["height"], found["views"]) == (1000, 32, 24, 3)
    parts = found["start"]
    assert parts["whole step"] > 0
    assert {"drawables", "render", "backward of these", "pixels", "regularizers"} < set(parts)
    assert found["cpu_minutes_of_a_run_at_this_pace"] == pytest.approx(parts["whole step"] / 60, abs=0.06)

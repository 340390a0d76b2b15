"""Evaluation: figures against hand-made ones, masks, alpha, exposure, and the same digits from a run on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.configs.config import DataConfig
from smalti.datasets.dataset import Dataset, View
from smalti.datasets.images import ImageCache
from smalti.primitives.gaussians import Gaussians
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import Evaluation, ViewScore, compare, draw, evaluate, protocol_for, target_of
from smalti.trainers.metrics import Protocol, psnr, ssim

SIZE = (36, 28)


def make_scene(count: int = 60, seed: int = 0) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, 3, generator=generator) - 0.5
    family = Gaussians.from_points(positions, torch.rand(count, 3, generator=generator), {"sh_degree": 1})
    family.parameters["logit_opacities"].data.fill_(1.0)
    scene = Scene()
    scene.add("gaussians", family)
    return scene


def make_camera(k: int) -> Camera:
    position = torch.tensor([2.5 * math.sin(k), 0.4, -2.5 * math.cos(k)])
    camera = Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.7, SIZE)
    return Camera(camera.rotation, camera.translation, camera.intrinsics, *SIZE, name=f"view_{k}.png")


def make_dataset(folder: Path, scene: Scene, *, alpha: bool = False, mask: bool = False, count: int = 4) -> Dataset:
    """Pictures of the scene itself, moved by a known error of 4 grey levels times the row."""
    views = []
    for k in range(count):
        camera = make_camera(k)
        color = draw(scene, camera, torch.ones(3) if alpha else torch.zeros(3)).color
        pixels = (color.clamp(0, 1) * 255).round().to(torch.int64)
        pixels = torch.where(pixels < 128, pixels + 4 * k, pixels - 4 * k).to(torch.uint8).numpy()
        if alpha:
            shade = np.full((*pixels.shape[:2], 1), 255, np.uint8)
            shade[:, :9] = 0
            pixels = np.concatenate([pixels, shade], axis=2)
        path = folder / camera.name
        Image.fromarray(pixels).save(path)
        hidden = None
        if mask:
            plane = np.zeros(pixels.shape[:2], np.uint8)
            plane[5:22, 4:30] = 255
            hidden = folder / f"mask_{k}.png"
            Image.fromarray(plane).save(hidden)
        views.append(View(camera, path, hidden))
    return Dataset(folder, "test", tuple(views))


def test_figures_are_those_of_the_metrics(tmp_path: Path) -> None:
    scene = make_scene()
    dataset, seen = make_dataset(tmp_path, scene), []
    result = evaluate(scene, ImageCache(dataset), [3, 1], Protocol(), on_view=seen.append)
    assert [view.name for view in result.views] == ["view_3.png", "view_1.png"]
    assert list(result.views) == seen
    for row, view in zip([3, 1], result.views, strict=True):
        truth = torch.from_numpy(np.asarray(Image.open(dataset.views[row].image), np.float32) / 255)
        image = scene.render(dataset.views[row].camera).color.detach().clamp(0, 1)
        assert view.values == {"psnr": float(psnr(image, truth)), "ssim": float(ssim(image, truth))}
        # an error of 4 k levels with up to half a level of rounding
        assert view.values["psnr"] == pytest.approx(-20 * math.log10(4 * row / 255), abs=0.4)
    assert result.mean["psnr"] == pytest.approx((result.views[0].values["psnr"] + result.views[1].values["psnr"]) / 2)
    assert [view.name for view in result.worst(1)] == ["view_3.png"]


def test_rounding_makes_equal_pictures_equal(tmp_path: Path) -> None:
    scene = make_scene()
    images = ImageCache(make_dataset(tmp_path, scene))
    exact = evaluate(scene, images, [0], Protocol(rounding=True)).views[0]
    assert exact.values == {"psnr": math.inf, "ssim": pytest.approx(1.0, abs=1e-12)}
    free = evaluate(scene, images, [0], Protocol()).views[0]
    assert 55 < free.values["psnr"] < 65  # only the truth is rounded: uniform error of one level, 59 dB


def test_masks_and_alpha_are_honoured(tmp_path: Path) -> None:
    scene = make_scene()
    (tmp_path / "a").mkdir()
    (tmp_path / "m").mkdir()
    images = ImageCache(make_dataset(tmp_path / "a", scene, alpha=True))
    truth, mask = target_of(images.get(0), torch.tensor([0.25, 0.5, 1.0]))
    assert mask is None
    assert torch.equal(truth[:, :9], torch.tensor([0.25, 0.5, 1.0]).expand(28, 9, 3))
    images = ImageCache(make_dataset(tmp_path / "m", scene, mask=True))
    pair = compare(scene, images, 1, Protocol())
    assert pair.mask is not None
    assert int(pair.mask.sum()) == 17 * 26
    score = evaluate(scene, images, [1], Protocol()).views[0]
    assert score.values["psnr"] == float(psnr(pair.image, pair.truth, pair.mask))


def test_exposure_is_explicit(tmp_path: Path) -> None:
    scene = make_scene()
    dataset = make_dataset(tmp_path, scene, count=1)
    dark = (np.asarray(Image.open(dataset.views[0].image)) * 0.5).astype(np.uint8)
    Image.fromarray(dark).save(dataset.views[0].image)
    plain = evaluate(scene, ImageCache(dataset), [0], Protocol())
    fitted = evaluate(scene, ImageCache(dataset), [0], Protocol(exposure="fitted"))
    assert fitted.mean["psnr"] > plain.mean["psnr"] + 20
    assert "exposure fitted" in fitted.lines()[-1]
    assert "exposure as rendered" in plain.lines()[-1]


def test_json_and_text_carry_the_protocol(tmp_path: Path) -> None:
    scene = make_scene()
    result = evaluate(scene, ImageCache(make_dataset(tmp_path, scene)), [0, 1, 2], Protocol(rounding=True))
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["views"][0] == {"name": "view_0.png", "psnr": None, "ssim": plain["views"][0]["ssim"]}
    assert plain["mean"]["psnr"] is None
    assert plain["worst"] == ["view_2.png", "view_1.png", "view_0.png"]
    assert plain["protocol"]["rounding"] is True
    assert plain["protocol"]["text"] == str(result.protocol)
    assert plain["views"][1]["psnr"] == result.views[1].values["psnr"]


def test_lpips_ranks_by_distance() -> None:
    views = tuple(ViewScore(str(k), {"lpips": k / 10}) for k in range(4))
    assert [view.name for view in Evaluation(Protocol(metrics=("lpips",)), views).worst(2)] == ["3", "2"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    scene = make_scene()
    images = ImageCache(make_dataset(tmp_path, scene))
    with pytest.raises(ValueError, match="no views to evaluate"):
        evaluate(scene, images, [], Protocol())
    with pytest.raises(ValueError, match="downscale 1, but the protocol says 2"):
        evaluate(scene, images, [0], Protocol(downscale=2))
    with pytest.raises(ValueError, match="expected some of psnr, ssim"):
        Protocol(metrics=("psnrr",))


def test_an_empty_scene_is_its_background(tmp_path: Path) -> None:
    camera = make_camera(0)
    frame = draw(Scene(), camera, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(frame.color, torch.tensor([0.1, 0.2, 0.3]).expand(28, 36, 3))
    assert float(frame.alpha.max()) == 0.0


def test_the_protocol_of_a_configuration() -> None:
    dataset = Dataset(Path(), "test", (), background=(1.0, 1.0, 1.0))
    assert protocol_for(DataConfig(downscale=2), dataset) == Protocol((1.0, 1.0, 1.0), 2)
    assert protocol_for(DataConfig(background="black"), dataset).background == (0.0, 0.0, 0.0)
    assert protocol_for(DataConfig(background="random"), dataset, rounding=True) == Protocol(
        (1, 1, 1), 1, rounding=True
    )
    assert protocol_for(DataConfig(), Dataset(Path(), "test", ())).background == (0.0, 0.0, 0.0)


def test_from_disk_to_the_last_digit(tmp_path: Path) -> None:
    """What the trainer measures in memory and what is measured from its checkpoint are the same bits."""
    from smalti.trainers.checkpoints import TrainerState, checkpoint_path, read_scene, write_checkpoint

    scene = make_scene(200)
    images = ImageCache(make_dataset(tmp_path, make_scene(80, seed=1)))
    memory = evaluate(scene, images, [0, 1, 2], Protocol())
    write_checkpoint(tmp_path, 7, scene, TrainerState(), keep=1)
    disk = evaluate(read_scene(checkpoint_path(tmp_path)), ImageCache(images.dataset), [0, 1, 2], Protocol())
    assert disk == memory

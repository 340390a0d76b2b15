"""The methods inside nerfstudio: its trainer, its optimisers, its checkpoints, its viewer, its commands."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.plugins.registry import discover_methods
from PIL import Image

from smalti.configs.resolve import ConfigError
from smalti.datasets.images import ImageCache
from smalti.datasets.open import open_dataset
from smalti.scene import Scene
from smalti.trainers.evaluation import evaluate
from smalti.trainers.metrics import Protocol
from smalti_nerfstudio.data import along_rays, camera_of
from smalti_nerfstudio.model import configured, refuse_unsupported
from smalti_nerfstudio.optimizers import Decay, RowAdam

METHODS = sorted(point.name for point in entry_points(group="nerfstudio.method_configs") if "smalti" in point.name)
QUICK = ("data.points=frustum", "data.sampled_points=200")
GROWING = (*QUICK, "density.rule=gradient", "density.start=2", "density.every=2", "gradient.threshold=1e-7")


def a_config(method: str, capture: Path, out: Path, steps: int = 8, options: tuple[str, ...] = QUICK) -> TrainerConfig:
    config = copy.deepcopy(discover_methods()[0][method])
    config.machine.device_type, config.vis, config.output_dir = "cpu", "tensorboard", out
    config.timestamp, config.experiment_name, config.max_num_iterations = "now", "test", steps
    config.pipeline.datamanager.data = capture
    config.pipeline.model.options = options
    config.viewer.quit_on_train_completion = True
    config.steps_per_eval_image, config.logging.profiler = 4, "none"
    return config


def trained(config: TrainerConfig) -> Trainer:
    config.get_base_dir().mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def test_all_methods_are_found() -> None:
    configs, descriptions = discover_methods()
    assert len(METHODS) == 10
    assert all(configs[name].method_name == name and descriptions[name] for name in METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_evaluates(method: str, capture: Path, tmp_path: Path) -> None:
    trainer = trained(a_config(method, capture, tmp_path))
    model = trainer.pipeline.model
    before = model.growth.config
    assert before.run.steps == 8
    assert model.growth.moments.bytes > 0
    figures = trainer.pipeline.get_average_eval_image_metrics()
    assert math.isfinite(figures["psnr"])
    assert figures["psnr"] > 5.0
    assert 0.0 < figures["ssim"] <= 1.0
    saved = Scene.load(trainer.base_dir / "smalti")
    assert saved.counts() == model.scene.counts()


def test_training_brings_the_pictures_nearer(capture: Path, tmp_path: Path) -> None:
    few = trained(a_config("smalti-gaussians-fast", capture, tmp_path / "a", 1)).pipeline
    many = trained(a_config("smalti-gaussians-fast", capture, tmp_path / "b", 150)).pipeline
    first, last = (each.get_average_eval_image_metrics()["psnr"] for each in (few, many))
    assert last > first + 4.0


def test_growth_moves_moments_and_groups_along(capture: Path, tmp_path: Path) -> None:
    trainer = trained(a_config("smalti-gaussians", capture, tmp_path, 9, GROWING))
    model, optimizers = trainer.pipeline.model, trainer.optimizers
    assert model.growth.changes["cloned"] + model.growth.changes["split"] > 0
    (layer,) = model.scene
    assert len(layer.family) > 200
    for name, group in model.group_of.items():
        parameter = model.primitives[name]
        adam: Any = optimizers.optimizers[group]
        assert isinstance(adam, RowAdam)
        assert parameter is layer.family.parameters[group]
        assert parameter is adam.parameter
        assert parameter is optimizers.parameters[group][0]
        assert adam.state[parameter]["first"].shape == parameter.shape
        assert list(adam.state) == [parameter]
    assert optimizers.optimizers["means"].param_groups[0]["scale"] == model.extent > 0.5
    assert optimizers.optimizers["sh_dc"].param_groups[0]["scale"] == 1.0


def test_a_checkpoint_is_read_by_the_safe_loader_and_goes_on(capture: Path, tmp_path: Path) -> None:
    first = trained(a_config("smalti-gaussians", capture, tmp_path / "first", 9, GROWING))
    (path,) = first.checkpoint_dir.glob("*.ckpt")
    assert torch.load(path, weights_only=True)["step"] == 8
    config = a_config("smalti-gaussians", capture, tmp_path / "second", 3, GROWING)
    config.load_dir = first.checkpoint_dir
    second = config.setup(local_rank=0, world_size=1)
    second.setup()
    old, new = first.pipeline.model, second.pipeline.model
    assert new.growth.config.run.steps == 9  # the schedule is that of the first run
    for name, group in old.group_of.items():
        assert torch.equal(old.primitives[name], new.primitives[name])
        states = [trainer.optimizers.optimizers[group] for trainer in (first, second)]
        one, other = (adam.state[adam.parameter] for adam in states)
        assert one["count"] == other["count"]
        assert torch.equal(one["second"], other["second"])
        assert states[1].parameter is new.primitives[name]
    for one, other in zip(old.growth.populations, new.growth.populations, strict=True):
        assert all(torch.equal(one.statistics[key], other.statistics[key]) for key in one.statistics)
    assert torch.equal(old.generator.get_state(), new.generator.get_state())
    second.train()
    assert second.step == 11
    assert not torch.equal(old.primitives["gaussians/sh_dc"], new.primitives["gaussians/sh_dc"])


def test_the_viewer_draws_what_the_renderer_draws(capture: Path, tmp_path: Path) -> None:
    from nerfstudio.viewer.render_state_machine import RenderStateMachine
    from nerfstudio.viewer.utils import CameraState

    config = a_config("smalti-gaussians-fast", capture, tmp_path, 2)
    config.vis, config.viewer.websocket_host = "viewer", "127.0.0.1"
    trainer = trained(config)
    viewer, model = trainer.viewer_state, trainer.pipeline.model
    try:
        machine = RenderStateMachine(viewer, 10.0, client=None)
        machine.state = "high"
        pose = trainer.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[0]
        state = CameraState(0.8, 4 / 3, pose, CameraType.PERSPECTIVE)
        picture = machine._render_img(state)["rgb"]
        height, width = picture.shape[:2]
        focal = 0.5 * height / math.tan(0.4)
        same = Cameras(pose[None], focal, focal, width / 2, height / 2, width, height)
        np.testing.assert_allclose(picture, model.get_outputs_for_camera(same)["rgb"], atol=1e-4)
        assert float(picture.std()) > 0.01
    finally:
        trainer.shutdown()


def test_a_crop_box_leaves_the_rest_out(capture: Path, tmp_path: Path) -> None:
    trainer = trained(a_config("smalti-gaussians-fast", capture, tmp_path, 1))
    model = trainer.pipeline.model
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1]
    nothing = OrientedBox.from_params((50.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    all_of_it = OrientedBox.from_params((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (99.0, 99.0, 99.0))
    assert model.get_outputs_for_camera(camera, nothing)["accumulation"].max() == 0
    whole = model.get_outputs_for_camera(camera)["rgb"]
    assert torch.equal(model.get_outputs_for_camera(camera, all_of_it)["rgb"], whole)
    assert model.training  # as it was


def test_poses_can_be_refined(capture: Path, tmp_path: Path) -> None:
    config = a_config("smalti-gaussians-fast", capture, tmp_path, 30)
    config.pipeline.model.camera_optimizer.mode = "SO3xR3"
    model = trained(config).pipeline.model
    assert float(model.camera_optimizer.pose_adjustment.abs().max()) > 1e-5


def test_depth_is_a_distance() -> None:
    camera = camera_of(Cameras(torch.eye(4)[None, :3], 10.0, 20.0, 8.0, 4.0, 16, 8))
    alpha = torch.ones(8, 16)
    alpha[0, 0] = 0.0
    depth = along_rays(camera, torch.full((8, 16), 2.0), alpha)
    # Pixel (13, 5): (13.5 - 8) / 10 = 0.55 and (5.5 - 4) / 20 = 0.075, so 2 sqrt(1 + 0.55^2 + 0.075^2).
    assert float(depth[5, 13]) == pytest.approx(2.0 * math.sqrt(1.0 + 0.3025 + 0.005625), rel=1e-6)
    assert depth[0, 0] == depth.max()  # nothing was hit there
    assert (along_rays(camera, torch.zeros(8, 16), torch.zeros(8, 16)) == 10.0).all()


def test_lenses_that_cannot_be_drawn_are_refused() -> None:
    def camera(kind: CameraType, k1: float | None) -> Cameras:
        given = None if k1 is None else torch.tensor([k1, 0.0, 0.0, 0.0, 0.0, 0.0])
        return Cameras(torch.eye(4)[None, :3], 10.0, 20.0, 8.0, 4.0, 16, 8, given, kind)

    assert camera_of(camera(CameraType.FISHEYE, 0.1)).model == "PINHOLE"  # nerfstudio made its picture straight
    for kind, k1 in ((CameraType.FISHEYE, None), (CameraType.FISHEYE, 0.0), (CameraType.EQUIRECTANGULAR, None)):
        with pytest.raises(ValueError, match=kind.name.lower()):
            camera_of(camera(kind, k1))


def test_rows_without_a_number_stay() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    adam = RowAdam([parameter], lr=0.1, eps=1e-15, beta_1=0.9, beta_2=0.999)
    parameter.grad = torch.ones(3, 2)
    adam.step()
    parameter.grad = torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [1.0, 1.0]])
    before = parameter.detach().clone()
    adam.step()
    assert torch.equal(parameter[1], before[1])
    assert torch.isfinite(parameter).all()
    assert (parameter[0] < before[0]).all()
    assert adam.held == 1


def test_the_rate_decays_as_smaltis() -> None:
    adam = RowAdam([torch.nn.Parameter(torch.ones(1))], lr=2.0, eps=1e-15, beta_1=0.9, beta_2=0.999)
    decay = Decay(adam, final=0.01, steps=4, warmup=0)
    rates = [adam.param_groups[0]["lr"]]
    for _ in range(5):
        adam.step()
        decay.step()
        rates.append(adam.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [2.0, 2.0 * 0.01**0.25, 0.2, 2.0 * 0.01**0.75, 0.02, 0.02])
    assert all(type(rate) is float for rate in rates)


@pytest.mark.parametrize("option", ["run.steps=10", "optimizer.beta_1=0.5", "learning_rates.means=1", "data.path=x"])
def test_what_nerfstudio_decides_is_not_taken(option: str) -> None:
    with pytest.raises(ConfigError, match="nerfstudio decides this"):
        configured("gaussians", [option])


@pytest.mark.parametrize(
    ("preset", "option"), [("gaussians", "loss.perceptual=0.1"), ("blocks", ""), ("neural-splats-paper", "")]
)
def test_what_only_our_own_trainer_does_is_refused(preset: str, option: str) -> None:
    with pytest.raises(ConfigError, match="train with `smalti train`"):
        configured(preset, [option] if option else [])


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("use_grad_scaler", True, "use-grad-scaler"),
        ("gradient_accumulation_steps", {"means": 2}, "gradient-accumulation-steps"),
        ("world_size", 2, "one process"),
    ],
)
def test_what_density_control_could_not_follow_is_refused(field: str, value: object, problem: str) -> None:
    plain = {"use_grad_scaler": False, "gradient_accumulation_steps": {}, "world_size": 1}
    refuse_unsupported(SimpleNamespace(**plain))
    with pytest.raises(ValueError, match=problem):
        refuse_unsupported(SimpleNamespace(**{**plain, field: value}))


def test_the_commands(capture: Path, tmp_path: Path) -> None:
    """`ns-train` and `ns-eval` as a user calls them; the scene that is left gives the same figure in our own hands."""
    folder = Path(sys.executable).parent
    options = [*QUICK, "density.rule=mcmc", "density.start=20", "density.every=10", "density.pixels_per_primitive=0"]
    train = [
        folder / "ns-train", "smalti-gaussians-fast", "--data", capture, "--output-dir", tmp_path / "out",
        "--experiment-name", "tiny", "--timestamp", "now", "--max-num-iterations", "120", "--vis", "tensorboard",
        "--machine.device-type", "cpu", "--pipeline.model.options", *options,
        "--optimizers.means.optimizer.lr", "4e-4", "nerfstudio-data", "--eval-mode", "interval",
    ]  # fmt: skip
    subprocess.run([str(word) for word in train], check=True, timeout=500)
    base = tmp_path / "out" / "tiny" / "smalti-gaussians-fast" / "now"
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    evaluation = [
        folder / "ns-eval", "--load-config", base / "config.yml", "--output-path", figures,
        "--render-output-path", pictures,
    ]  # fmt: skip
    subprocess.run([str(word) for word in evaluation], check=True, timeout=500)
    found = json.loads(figures.read_text())["results"]
    scene = Scene.load(base / "smalti")
    assert scene.counts()["gaussians"] > 300
    dataset = open_dataset(capture)  # our own reader
    rows = [row for row in range(len(dataset.views)) if row % 8 == 0]
    with ImageCache(dataset) as cache:
        ours = evaluate(scene, cache, rows, Protocol(background=(1.0, 1.0, 1.0)))
    assert found["psnr"] == pytest.approx(ours.mean["psnr"], abs=0.02)
    assert found["ssim"] == pytest.approx(ours.mean["ssim"], abs=1e-3)
    assert found["psnr"] > 15.0
    with Image.open(pictures / "eval_img_0000.png") as picture:
        assert picture.size == (128, 48)  # truth beside render

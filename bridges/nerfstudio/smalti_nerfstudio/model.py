"""A scene of Smalti's as a model of nerfstudio's: any preset, trained by nerfstudio's loop and optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizer, CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor, nn

from smalti.cameras.camera import Camera
from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, full_name, parse_value, resolve
from smalti.configs.stretch import stretched
from smalti.datasets.dataset import Dataset
from smalti.datasets.nerfstudio_outputs import input_from_parser
from smalti.renderers.render import render
from smalti.scene.scene import CONSTANTS, Scene
from smalti.trainers import schedules
from smalti.trainers.evaluation import draw, target_of
from smalti.trainers.initial import initial_scene, scene_extent, starting_points
from smalti.trainers.initializers import Ground
from smalti.trainers.losses import ImageLossWeights, family_loss, image_loss, psnr_of
from smalti.trainers.metrics import Protocol, measure
from smalti.trainers.views import prepared, stated_background
from smalti_nerfstudio.data import KEY, along_rays, camera_of, loaded_view, reduced
from smalti_nerfstudio.growth import Growth, Seen
from smalti_nerfstudio.optimizers import Moments

OWNED = ("optimizer", "run", "data", "refine", "schedule.batch")
"""Options of Smalti's that are nerfstudio's here."""
ALLOWED = ("data.background", "data.points", "data.max_points", "data.sampled_points", "run.seed")
ALONE = (
    "data.align", "loss.pixel", "loss.perceptual", "optimizer.scale_positions", "optimizer.drops", "schedule.weights",
    "density.model", "exchange.every",
)  # fmt: skip
"""What only Smalti's own trainer does."""


@dataclass
class SmaltiModelConfig(ModelConfig):
    """A preset of Smalti's"""

    _target: type = field(default_factory=lambda: SmaltiModel)
    enable_collider: bool = False
    """Of ray-based models; not used."""
    preset: str = "gaussians"
    """Preset or YAML file of Smalti's. Its layers and parameters must be those of the method's optimisers."""
    options: tuple[str, ...] = ()
    """Further options of Smalti's, each FIELD=VALUE (density.rule=mcmc, density.max_primitives=50000)."""
    steps: int = 0
    """Length of the schedule; 0: of the run (--max-num-iterations)."""
    camera_optimizer: CameraOptimizerConfig = field(default_factory=lambda: CameraOptimizerConfig(mode="off"))
    """Refinement of the cameras' poses"""


def configured(preset: str, options: Sequence[str]) -> TrainConfig:
    """The configuration. ConfigError for options that do not exist, are nerfstudio's to set or are not done here."""
    overrides: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigError(f"--pipeline.model.options {option!r}: write FIELD=VALUE")
        name = full_name(name.strip())
        owned = any(name == each or name.startswith(f"{each}.") for each in OWNED) or ".learning_rates" in name
        if owned and name not in ALLOWED:
            raise ConfigError(
                f"--pipeline.model.options {option!r}: nerfstudio decides this: rates are "
                "--optimizers.NAME.optimizer.lr, the length is --max-num-iterations, data and poses are the "
                "datamanager's and camera_optimizer's"
            )
        overrides[name] = parse_value(value)
    config, plain = resolve(preset, overrides), TrainConfig()
    asked = [name for name in ALONE if attrgetter(name)(config) != attrgetter(name)(plain)]
    if asked:
        raise ConfigError(
            f"{preset}: {', '.join(asked)}: not done in nerfstudio's loop; train with `smalti train` on the same data "
            "(--data-format nerfstudio takes its parsers)"
        )
    return config


def refuse_unsupported(trainer: Any) -> None:
    """ValueError for ways of training under which density control would not see the gradients of one step."""
    if trainer.use_grad_scaler:
        raise ValueError("growth reads gradients as they are; leave --mixed-precision and --use-grad-scaler off")
    if any(count != 1 for count in trainer.gradient_accumulation_steps.values()):
        raise ValueError("growth follows every step; leave --gradient-accumulation-steps out")
    if trainer.world_size > 1:
        raise ValueError("Smalti's scenes are trained by one process; leave --machine.num-devices at 1")


class SmaltiModel(Model):
    """The scene's parameters are `primitives`, by `layer/parameter`; the families hold the same tensors."""

    config: SmaltiModelConfig
    camera_optimizer: CameraOptimizer

    def populate_modules(self) -> None:
        """The first scene, or an empty one where a checkpoint will be loaded."""
        super().populate_modules()
        self.smalti = configured(self.config.preset, self.config.options)
        self.generator = torch.Generator().manual_seed(self.smalti.run.seed)
        self.primitives = nn.ParameterDict()
        self.scene, self.extent, self.step = Scene(), 1.0, 0
        self.growth: Growth | None = None
        self._restored: dict[str, Any] | None = None
        self._seen: Seen | None = None
        self._camera: Camera | None = None
        self._factor = 1
        self.camera_optimizer = self.config.camera_optimizer.setup(num_cameras=self.num_train_data, device="cpu")
        training_views = self.kwargs["metadata"].pop(KEY, None)
        if training_views is not None:
            self._begin(training_views)

    def _begin(self, dataset: Dataset) -> None:
        config = self.smalti
        points = starting_points(config, dataset, range(len(dataset.views)), self.generator)
        self.extent = scene_extent([view.camera for view in dataset.views], points[0])
        scene = initial_scene(config, Ground(dataset, *points, self.generator), self.extent)
        scene.background = stated_background(dataset, config.data.background)
        self._adopt(scene)

    def _adopt(self, scene: Scene) -> None:
        """Take a scene; tensors that are known by name stay the same objects, because optimisers hold them."""
        self.scene = scene
        for layer in scene:
            layer.family.to(self._home())
            for key, value in layer.family.parameters.items():
                name = f"{layer.name}/{key}"
                if name in self.primitives:
                    self.primitives[name].data = value.detach()
                else:
                    self.primitives[name] = nn.Parameter(value.detach(), requires_grad=not layer.locked)
        self._share()

    def _home(self) -> torch.device:
        marker = getattr(self, "device_indicator_param", None)
        return torch.device("cpu") if marker is None else marker.device

    def _share(self) -> None:
        """The families' parameters are the module's."""
        for layer in self.scene:
            for key in layer.family.parameters:
                layer.family.parameters[key] = self.primitives[f"{layer.name}/{key}"]

    def bind(self, moments: Moments) -> None:
        """After density control: what the families hold is new; module and optimisers follow."""
        for layer in self.scene:
            for key, value in layer.family.parameters.items():
                name = f"{layer.name}/{key}"
                if value is not self.primitives[name]:
                    self.primitives[name] = nn.Parameter(value.detach(), requires_grad=not layer.locked)
                    if not layer.locked:
                        moments.exchange(name, self.primitives[name])
        self._share()

    def _apply(self, fn: Any, recurse: bool = True) -> SmaltiModel:
        """Constants (a mesh's faces) move along with the parameters."""
        super()._apply(fn, recurse)
        for layer in self.scene:
            layer.family.constants = {key: fn(value) for key, value in layer.family.constants.items()}
        self._share()
        return self

    # -- optimisers and callbacks -------------------------------------------------------------------------------------
    @property
    def group_of(self) -> dict[str, str]:
        """nerfstudio's parameter group by `layer/parameter`: the parameter's name, with the layer's before it where
        there are several layers.
        """
        alone = len(self.scene.layers) == 1
        trained = [layer for layer in self.scene if not layer.locked]
        return {
            f"{layer.name}/{key}": key if alone else f"{layer.name}_{key}"
            for layer in trained
            for key in layer.family.parameters
        }

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """One group for each parameter of each layer."""
        groups = {group: [self.primitives[name]] for name, group in self.group_of.items()}
        self.camera_optimizer.get_param_groups(param_groups=groups)
        return groups

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Density control around every iteration; the scene in the input's frame after the last."""
        given = training_callback_attributes
        assert given.optimizers is not None
        assert given.pipeline is not None
        assert given.trainer is not None
        refuse_unsupported(given.trainer)
        datamanager: Any = given.pipeline.datamanager
        datamanager.get_train_rays_per_batch()  # loads and undistorts the pictures, which changes their cameras
        views = datamanager.train_dataset.cameras
        cameras = [camera_of(views[row : row + 1]) for row in range(len(views))]
        restored = self._restored
        steps = self.config.steps or given.trainer.config.max_num_iterations
        if restored:
            steps = restored["growth"]["steps"]
        config = self.smalti.model_copy(deep=True)
        config.run.stretch = steps / config.run.steps
        growth = Growth(self, given.optimizers, cameras, stretched(config))
        growth.load(restored["growth"]) if restored else growth.trim_to_budget()
        self.growth = growth

        def before(step: int) -> None:
            self.step, self._seen = step, None
            growth.before(step)

        def after(step: int) -> None:
            seen, self._seen, self._camera = self._seen, None, None
            growth.after(step, seen)

        def end(step: int) -> None:
            folder = given.trainer.base_dir / "smalti"
            self.input_scene(datamanager.train_dataparser_outputs).save(folder)

        where = TrainingCallbackLocation
        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], before),
            TrainingCallback([where.AFTER_TRAIN_ITERATION], after),
            TrainingCallback([where.AFTER_TRAIN], end),
        ]

    def input_scene(self, outputs: Any) -> Scene:
        """The scene in the frame of the data that `outputs` (a `DataparserOutputs`) was made from."""
        similarity = input_from_parser(outputs)
        moved = Scene(order=self.scene.order, near=self.scene.near * similarity.scale, background=self.scene.background)
        for layer in self.scene:
            family = layer.family.copy()
            family.to("cpu")
            family.transform(similarity)
            moved.add(layer.name, family, visible=layer.visible, locked=layer.locked)
        return moved

    # -- pictures -----------------------------------------------------------------------------------------------------
    def _background(self) -> Tensor:
        if self.training and self.smalti.data.background == "random":
            return torch.rand(3, generator=self.generator).to(self.device)
        return torch.tensor(self.scene.background or (0.0, 0.0, 0.0), device=self.device)

    def get_outputs(self, ray_bundle: Cameras) -> dict[str, Tensor]:  # type: ignore[override]
        """`rgb`, `accumulation`, `background`, and outside of training `depth` (along the ray)."""
        if not self.training:
            return self._drawn(self.scene, camera_of(ray_bundle))
        assert self.growth is not None
        pose = self.camera_optimizer.apply_to_camera(ray_bundle)[0]
        self._camera = camera_of(ray_bundle, pose)
        self._factor = schedules.reduction(self.step, self.growth.config.schedule)
        camera = reduced(self._camera, self._factor)
        background = self._background()
        layers = self.scene.visible_layers()
        drawn = [(layer, list(layer.drawables(camera, camera.time))) for layer in layers]
        settings = self.scene.settings(absolute_gradient=self.growth.absolute)
        drawables = [drawable for _, parts in drawn for drawable in parts]
        frame = render(drawables, camera, background=background, settings=settings)
        self._seen = Seen.of(frame, drawn, camera)
        return {"rgb": frame.color, "accumulation": frame.alpha[..., None], "background": background}

    @torch.no_grad()
    def _drawn(self, scene: Scene, camera: Camera) -> dict[str, Tensor]:
        background = self._background()
        frame = draw(scene, camera.to(torch.float32), background, depth=True)
        assert frame.depth is not None
        self._camera = camera
        return {
            "rgb": frame.color.clamp(0.0, 1.0),
            "depth": along_rays(camera, frame.depth, frame.alpha)[..., None],
            "accumulation": frame.alpha[..., None],
            "background": background.expand_as(frame.color),
        }

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """The picture from a camera; of the primitives whose centre is in `obb_box` alone, where one is given."""
        was_training = self.training
        self.eval()  # whoever asks for a picture between two steps wants no training render
        try:
            scene = self.scene if obb_box is None else self._inside(obb_box)
            return self._drawn(scene, camera_of(camera))
        finally:
            self.train(was_training)

    def _inside(self, box: OrientedBox) -> Scene:
        cropped = Scene(order=self.scene.order, near=self.scene.near, background=self.scene.background)
        for layer in self.scene.visible_layers():
            family = layer.family.copy()
            family.prune(~box.within(family.positions().detach()))
            cropped.add(layer.name, family)
        return cropped

    # -- losses and figures -------------------------------------------------------------------------------------------
    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the step's picture and the number of primitives."""
        target, mask = self._target(outputs, batch)
        figures = {
            "psnr": torch.tensor(psnr_of(outputs["rgb"], target, mask)),
            "primitives": torch.tensor(float(len(self.scene))),
        }
        self.camera_optimizer.get_metrics_dict(figures)
        return figures

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The photometric loss and every layer's own terms."""
        target, mask = self._target(outputs, batch)
        losses = {"image": image_loss(outputs["rgb"], target, mask, ImageLossWeights(self.smalti.loss.dssim))}
        for layer in self.scene.visible_layers() if self.growth is not None else ():
            if not layer.locked:
                term = family_loss(layer.family, self.growth.plans[layer.name].weights, self.growth.context)
                if term is not None:
                    losses[layer.name] = term
        if self.training:
            self.camera_optimizer.get_loss_dict(losses)
        return losses

    def _target(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """The picture as the render should be: reduced like it, over the same background, with its mask."""
        assert self._camera is not None
        background = outputs["background"] if self.training else outputs["background"][0, 0]
        factor = self._factor if self.training else 1
        view = prepared(loaded_view(self._camera, batch), 0, factor, background)
        return view.target, view.mask

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM under the protocol of `smalti eval` (no LPIPS), and truth beside render."""
        assert self._camera is not None
        background = outputs["background"][0, 0]
        truth, mask = target_of(loaded_view(self._camera, batch), background)
        picture = Protocol(background=tuple(background.tolist())).prepare(outputs["rgb"], truth, mask)
        figures = {name: measure(name, picture, truth, mask) for name in ("psnr", "ssim")}
        return figures, {"img": torch.cat([truth, picture], dim=1)}

    # -- checkpoints --------------------------------------------------------------------------------------------------
    def get_extra_state(self) -> dict[str, Any]:
        """What the parameters do not say: tensors and plain values alone, so that torch's safe loader reads it."""
        tensors, plain = self.scene.state()
        return {
            "plain": plain,
            "constants": {key: value for key, value in tensors.items() if CONSTANTS in key},
            "extent": self.extent,
            "generator": self.generator.get_state(),
            "growth": None if self.growth is None else self.growth.state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Done by `load_state_dict`, before parameters are copied: their numbers of rows come from there."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A checkpoint's scene, of any number of primitives."""
        extra, prefix = state_dict["_extra_state"], "primitives."
        tensors = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        self._adopt(Scene.from_state({**tensors, **extra["constants"]}, extra["plain"]))
        self.extent = float(extra["extent"])
        self.generator.set_state(extra["generator"])
        self._restored = extra if extra["growth"] else None
        return super().load_state_dict(state_dict, *args, **kwargs)

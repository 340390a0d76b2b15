"""The trainer: set-up, one step after another, density control, checkpoints. What it shows and when it stops is the
loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import parse_bytes
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset
from smalti.datasets.images import ImageCache
from smalti.datasets.open import select_views
from smalti.primitives.family import LossContext
from smalti.renderers.backends import choose
from smalti.renderers.frame import Frame
from smalti.renderers.gsplat_backend import require_drawable
from smalti.renderers.render import render
from smalti.scene.scene import Scene
from smalti.trainers import checkpoints, schedules
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.alignment import Alignment, alignment_of, wishes_of
from smalti.trainers.clock import Clock
from smalti.trainers.density.budget import Budget, limits_of, most_primitives
from smalti.trainers.density.evidence import near_cameras, unsupported
from smalti.trainers.density.exchange import Exchange, Judged
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change, make_rule
from smalti.trainers.edited import EditedState, trained_layers
from smalti.trainers.guard import BadGradient, BadGradientError
from smalti.trainers.initial import found_points, initial_scene, scene_extent, tensors_of
from smalti.trainers.initializers import Ground
from smalti.trainers.losses import DepthLoss, ImageLossWeights, image_loss
from smalti.trainers.ordering import ViewOrder
from smalti.trainers.perceptual import perceptual_term
from smalti.trainers.plans import plans_of, require_known_names, require_scheduled_terms
from smalti.trainers.race import raced
from smalti.trainers.refinement import Refinement
from smalti.trainers.run import Run
from smalti.trainers.step import StepOptions, backward
from smalti.trainers.views import TrainingView, ViewSource, stated_background


@dataclass(eq=False)
class StepReport:
    """What one step of the trainer did."""

    loss: float
    psnr: float
    changes: dict[str, int]
    problems: list[str]


class Trainer:
    """A scene being trained; everything that decides its future is in `save` and `load`."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset | None = None,
        *,
        resume: bool = False,
        depth_loss: DepthLoss | None = None,
        backend: str = "",
    ) -> None:
        """`backend`: by default the configured one."""
        self.run, self.config = run, run.config
        if not resume:
            require_known_names(self.config)  # before any picture is read
        self.dataset = run.dataset() if dataset is None else dataset
        self.device = chosen_device(self.config.run.device, self.config.run.backend)
        self.generator = torch.Generator().manual_seed(self.config.run.seed)
        self.train_rows, self.test_rows = run.split(self.dataset)
        data = self.config.data
        self.cache = ImageCache(self.dataset, downscale=data.downscale, bytes=parse_bytes(data.cache))
        self.source = ViewSource(self.dataset, self.train_rows, self.cache, data.background)
        self.cameras = self.source.cameras()
        self.step_number = 0
        self.notices: list[str] = []
        """What there is to say before the first step: of files that were read, of primitives that were left out."""
        self.alignment: Alignment | None = None
        """The capture's canonical frame and what it is by; None in a run that goes on, and without `data.align`."""
        self.clock = Clock()
        self.backend, self.depth_loss = backend or self.config.run.backend, depth_loss
        if resume:
            self.load()
        else:
            self._start()

    def _start(self) -> None:
        """The first scene."""
        config = self.config
        wishes_of(config.data)  # what is wrong with them is said before any work
        found = found_points(config, self.dataset, self.train_rows, self.generator)
        views, points, seed = select_views(self.dataset, self.train_rows), tensors_of(found), config.run.seed
        self.alignment = alignment_of(config.data, views, found)
        world = self.alignment.world if self.alignment else None
        self.extent = world.unit if world else scene_extent(self.cameras, points[0])
        ground = Ground(views, *points, self.generator, notices=self.notices, seed=seed, aligned=world)
        self.scene = initial_scene(config, ground, self.extent)
        self.scene.canonical_from_scene = world.canonical_from_input if world else None
        self.scene.background = stated_background(self.dataset, config.data.background)
        self._assemble()
        if not self.active:
            raise ConfigError(
                "scene: every layer is frozen, so there is nothing to train; leave one of them free (frozen: false), "
                "or draw what there is with smalti render"
            )
        self._trim_to_budget()

    def _assemble(self, perceptual: str = "") -> None:
        """Everything that leans on scene and extent. `perceptual`: the kind of that term in a run that goes on."""
        config = self.config
        self.perceptual = perceptual_term(config.loss, self.generator, perceptual)
        if self.perceptual is not None:
            self.notices.append(self.perceptual.describe())
        for layer in self.scene:
            layer.family.to(self.device)
            layer.family.require_gradients(not layer.locked)
        settings = AdamSettings(config.optimizer.beta_1, config.optimizer.beta_2, config.optimizer.epsilon)
        self.adam = Adam(settings)
        if self.backend == "gsplat":  # refused here, not in the first step, when there is a run folder already
            require_drawable(self.scene.drawables(self.cameras[0]), self.cameras[0], self.scene.settings())
        self.order = ViewOrder(len(self.source), self.generator)
        self.refinement = Refinement(config.refine, len(self.source), self.extent)
        context = LossContext(self.extent, self.generator, config.loss.anisotropy_limit)
        self.budget = Budget(parse_bytes(config.density.budget), most_primitives(config, self.cameras))
        self.budget.model = parse_bytes(config.density.model) if config.density.model else 0
        require_scheduled_terms(self.scene, config, context)
        self.exchange = Exchange(config.exchange)
        self.plan([Population(layer, self.adam) for layer in trained_layers(self.scene)], context)
        self.edited = EditedState(self)

    def plan(self, populations: list[Population], context: LossContext | None = None) -> None:
        """Train these layers, as the configuration says of each; called anew where edits made or locked some."""
        config, self.populations = self.config, populations
        context = context or self.options.context
        assert context is not None
        self.plans = plans_of(self.scene, config, context)
        for population in populations:
            population.most = self.plans[population.layer.name].most
            population.changes = self.plans[population.layer.name].rule != "none"
        names = [population.layer.name for population in populations]
        self.rules = {name: make_rule(self.plans[name].rule, config, self.extent) for name in names}
        self.budget.fixed = sum(layer.family.bytes for layer in self.scene if layer.locked)
        self.options = StepOptions(
            image=ImageLossWeights(config.loss.dssim, config.loss.pixel),
            perceptual=self.perceptual,
            changes=config.schedule.weights,
            weights={name: plan.weights for name, plan in self.plans.items()},
            context=context,
            backend=self.backend,
            absolute_gradient=any(rule.absolute_gradient for rule in self.rules.values()),
            depth_loss=self.depth_loss,
        )

    @property
    def perceptual_kind(self) -> str | None:
        """Of the perceptual term that is really used; None without one."""
        return None if self.perceptual is None else self.perceptual.kind

    @property
    def can_step(self) -> bool:
        """False where edits left nothing that is drawn and trained; `step` would raise then."""
        self.edited.follow()
        return bool(self.active)

    @property
    def active(self) -> list[Population]:
        """Those that a step moves: hidden layers rest."""
        return [population for population in self.populations if population.layer.visible]

    # -- one step -----------------------------------------------------------------------------------------------------
    def step(self) -> StepReport:
        """Render, differentiate, update, and change the structure where it is due. Takes edits of the scene into
        account; ValueError where they left nothing to train.
        """
        config, step = self.config, self.step_number
        if not self.can_step:
            raise ValueError(
                f"step {step}: nothing is left to train; every layer is hidden, locked or empty. Undo the edit, or "
                "show, unlock or add a layer"
            )
        for population in self.populations:
            population.family.advance(schedules.color_degree(step, config.schedule))
        views = self._next_views(schedules.reduction(step, config.schedule))
        for population in self.populations:
            population.family.begin_step(schedules.share(step, config), self.generator)
        result = backward(self.scene, views, self.refinement, self.options, step)
        for population in self.populations:
            population.family.end_step()
        problems = [str(each) for each in result.bad]
        if result.bad and config.run.bad_gradient == "stop":
            raise BadGradientError("; ".join(problems))
        for population in self.populations:
            name, rule = population.layer.name, self.rules[population.layer.name]
            if name in result.pulls:
                rule.feel(population, result.pulls[name], result.seen(name))
                continue
            for sighting in result.sightings:
                if name in sighting:
                    rule.observe(population, sighting[name])
        self.budget.observe(result.arena, len(self.scene))
        problems += self._update(views, result.bad)
        self.step_number += 1
        changes = self._change_structure()
        return StepReport(result.loss, result.psnr, changes, problems)

    def _next_views(self, factor: int) -> list[TrainingView]:
        indices = self.order.next(self.config.schedule.batch)
        self.source.prefetch(self.order.upcoming())
        return [self.source.get(index, factor, self.generator, self.device) for index in indices]

    def _update(self, views: list[TrainingView], bad: list[BadGradient]) -> list[str]:
        """Optimiser steps of scene, poses and exposures; returns a line for each view whose own gradient is bad."""
        config, step = self.config, self.step_number
        position_rate = 0.0
        for population in self.active:
            family, layer = population.family, population.layer
            given = self.plans[layer.name].rates
            rates = schedules.learning_rates(family, given, config.optimizer, step, schedules.length(config))
            positions = set(family.position_parameters())
            unit = self.extent if config.optimizer.scale_positions else 1.0
            position_rate = max([rates[name] for name in positions & set(rates)], default=0.0) * (unit / self.extent)
            scaled = {
                f"{layer.name}/{name}": rate * (unit if name in positions else 1.0) for name, rate in rates.items()
            }
            self.adam.step(population.parameters(), scaled, population.rows_to_hold(bad))
            self.rules[layer.name].after_update(population, self._moment(step + 1, position_rate))
        share = schedules.decay(step, schedules.length(config), config.optimizer.position_final)
        share *= schedules.dropped(step, config.optimizer.drops)
        stayed = self.refinement.step([view.index for view in views], step, share)
        names = {view.index: view.camera.name for view in views}
        return [f"step {step}: gradient of {table} is NaN or Inf (view {names[row]})" for table, row in stayed]

    def _moment(self, step: int, position_rate: float = 0.0) -> Change:
        return Change(step, self.populations, self.budget, self.generator, position_rate)

    # -- structure ----------------------------------------------------------------------------------------------------
    def _change_structure(self) -> dict[str, int]:
        step, total = self.step_number, {}
        if step in self.config.contribution.at:
            total = _added(total, {"unsupported": self._prune_unsupported()})
        due = [population for population in self.active if self.rules[population.layer.name].due(step)]
        first = step // self.config.density.every % max(len(due), 1)  # no layer is always the first to take the room
        for population in [*due[first:], *due[:first]]:
            centres = torch.stack([camera.centre.detach() for camera in self.cameras])
            doomed = near_cameras(population.family, centres, self.config.density.near_camera * self.extent)
            if bool(doomed.all()):
                doomed = torch.zeros_like(doomed)
            changes = self.rules[population.layer.name].change(population, doomed, self._moment(step))
            total = _added(total, changes)
        if self.exchange.due(step, self.config.density.start, self.config.density.stop):
            if self.exchange.undecided(self.active):
                self.exchange.choice = raced(self)
            total = _added(total, self.move_bytes())
        return {key: value for key, value in total.items() if value}

    def move_bytes(self) -> dict[str, int]:
        """Let the exchange of bytes do what it would now; returns its counts."""
        return self.exchange.change(self.scene, self._moment(self.step_number), len(self.source), self._judged)

    def loss_of(self, rows: Sequence[int]) -> float:
        """Mean loss of these training views, without regularisers, as the scene is now; no random number is drawn."""
        return sum(self._judged(self.scene, row).loss for row in rows) / len(rows)

    @torch.no_grad()
    def _judged(self, scene: Scene, row: int) -> Judged:
        """A training view as the exchange of bytes looks at it: alike whenever it is asked for in one step."""
        view = self.source.plain(row, self.device)
        camera = self.refinement.camera(view.camera, row)
        frame = self._with_statistics(scene, camera, view.background)
        color = self.refinement.exposed(frame.color, row)
        error = (color - view.target).abs().mean(dim=2)
        loss = image_loss(color, view.target, view.mask, self.options.at(self.step_number).image)
        return Judged(frame, error if view.mask is None else error * view.mask, float(loss))

    def _prune_unsupported(self) -> int:
        with torch.no_grad():
            found = unsupported(self.scene, self.cameras, self.config.contribution, self._with_statistics)
        return sum(
            population.prune(found[population.layer.name])
            for population in self.populations
            if (population.changes or population.family.grows)
            and population.layer.name in found
            and not bool(found[population.layer.name].all())
        )

    def _with_statistics(self, scene: Scene, camera: Camera, background: Tensor | None = None) -> Frame:
        settings = scene.settings(statistics=True)
        backend = "auto" if self.backend == "gsplat" else self.backend  # it has no statistics; the engine draws these
        return render(scene.drawables(camera), camera, background=background, settings=settings, backend=backend)

    def _trim_to_budget(self) -> None:
        """Initial primitives beyond the budget go, at random and from each layer that can shrink by the same share: the
        run must be able to start.
        """
        growing = [population for population in self.populations if population.family.grows]
        for population, kept in zip(growing, self.budget.shares(self.populations), strict=True):
            over = len(population) - kept
            if over > 0:
                order = torch.randperm(len(population), generator=self.generator)
                doomed = torch.zeros(len(population), dtype=torch.bool)
                doomed[order[:over]] = True
                self.budget.refused += population.prune(doomed.to(self.device))
                why = limits_of(self.config, self.cameras, population.most)
                self.notices.append(
                    f"{over:,} of the {kept + over:,} initial primitives of layer {population.layer.name!r} were left "
                    f"out, at random; the limits are {why}"
                )

        if self.budget.model and (held := self.budget.model_used(self.populations)) > self.budget.model:
            raise ConfigError(
                f"density.model={self.config.density.model}: the layers take {held:,} bytes and cannot be thinned out "
                "further; start them smaller (their `settings`), or raise it"
            )

    # -- state --------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """A checkpoint of this step."""
        self.edited.follow()
        state = checkpoints.TrainerState()
        tensors, counts = self.adam.state()
        state.tensors.update({f"adam/{key}": value for key, value in tensors.items()})
        state.tensors.update({f"refine/{key}": value for key, value in self.refinement.state().items()})
        for population in self.populations:
            prefix = f"density/{population.layer.name}"
            state.tensors.update({f"{prefix}/{key}": value for key, value in population.state().items()})
        state.tensors["generator"] = self.generator.get_state()
        state.plain = {
            "adam": counts,
            "order": self.order.state(),
            "budget": self.budget.state(),
            "exchange": self.exchange.state(),
            "extent": self.extent,
            "views": len(self.source),
            "perceptual": self.perceptual_kind,
        }
        state.clock = {"cpu": self.clock.cpu, "wall": self.clock.wall}
        checkpoints.write_checkpoint(
            self.run.path, self.step_number, self.scene, state, self.config.run.keep, anew=self.edited.unsaved
        )
        self.edited.unsaved = False

    def load(self, step: int | None = None) -> None:
        """Continue from a checkpoint (the latest by default): the same bytes as if the run had not been interrupted."""
        folder = checkpoints.checkpoint_path(self.run.path, step)
        self.scene = checkpoints.read_scene(folder)
        state = checkpoints.read_state(folder)
        with checkpoints.reading(folder):
            self.extent = float(state.plain["extent"])
            self._assemble(state.plain.get("perceptual") or "")  # what older versions saved has none
            self.step_number = int(state.plain["step"])
            self.adam.load(_below(state.tensors, "adam/"), state.plain["adam"], self.device)
            self.refinement.load(_below(state.tensors, "refine/"))
            for population in self.populations:
                population.load(_below(state.tensors, f"density/{population.layer.name}/"))
            self.generator.set_state(state.tensors["generator"])
            self.order.load(state.plain["order"])
            self.budget.load(state.plain["budget"])
            self.exchange.load(state.plain.get("exchange", {"worth": {}}))
            self.clock.cpu_before, self.clock.wall_before = state.clock["cpu"], state.clock["wall"]
            before = state.plain["views"]
        if before != len(self.source):
            raise checkpoints.CheckpointError(
                f"{folder}: trained on {before} views, but {self.config.data.path} now gives {len(self.source)}; "
                "put the capture back as it was, or start a new run with --init-from"
            )


def chosen_device(name: str, backend: str = "auto") -> torch.device:
    """The configured device; a BackendError with the remedy where nothing, or not `backend`, can draw on it."""
    choose(backend, name)
    return torch.device(name)


def _added(total: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {key: total.get(key, 0) + more.get(key, 0) for key in {**total, **more}}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

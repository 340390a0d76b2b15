"""Density control inside nerfstudio's trainer: what `smalti.trainers.trainer` does around a step, as its callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import TrainConfig, parse_bytes
from smalti.primitives.family import LossContext
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.scene.scene import Layer, Scene
from smalti.trainers import schedules
from smalti.trainers.density.budget import Budget, most_primitives
from smalti.trainers.density.evidence import fold, near_cameras, unsupported
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change, Sighting, make_rule
from smalti.trainers.plans import plans_of
from smalti_nerfstudio.optimizers import Moments, follow_run, rate_of

if TYPE_CHECKING:
    from smalti_nerfstudio.model import SmaltiModel


@dataclass(eq=False)
class Seen:
    """One training render: kept from the forward pass, read after the update."""

    frame: Frame
    parts: dict[str, tuple[slice, Tensor, Tensor, bool]]
    """By layer: its rows of the frame, visible and radii of its primitives, and whether rows are primitives."""
    width: int
    height: int

    @staticmethod
    def of(frame: Frame, drawn: Sequence[tuple[Layer, Sequence[Any]]], camera: Camera) -> Seen:
        """Folded to primitives now: an update may change which rows they draw."""
        parts, start = {}, 0
        for layer, drawables in drawn:
            rows = slice(start, start + sum(len(drawable) for drawable in drawables))
            start = rows.stop
            visible = fold(frame.visibility.visible[rows].to(torch.uint8), layer.family).bool()
            radii = fold(frame.visibility.radii[rows], layer.family)
            parts[layer.name] = (rows, visible, radii, layer.family.owners() is None)
        return Seen(frame, parts, camera.width, camera.height)

    def visible(self, layer: str) -> Tensor:
        """Which primitives of a drawn layer were in the picture."""
        return self.parts[layer][1]

    def sighting(self, layer: str, absolute: bool) -> Sighting:
        """What density rules ask for, after the backward pass."""
        rows, visible, radii, plain = self.parts[layer]
        gradient = self.frame.visibility.screen_gradient.get("absolute" if absolute else "sum")
        gradient = None if gradient is None or not plain else torch.as_tensor(gradient[rows]).detach()
        return Sighting(visible, radii, gradient, self.width, self.height)


class Growth:
    """Populations, rules and budget of the model's scene."""

    def __init__(
        self, model: SmaltiModel, optimizers: Optimizers, cameras: Sequence[Camera], config: TrainConfig
    ) -> None:
        self.model, self.config, self.cameras = model, config, list(cameras)
        self.moments = Moments(optimizers, model.group_of)
        follow_run(optimizers, config.run.steps)
        self.context = LossContext(model.extent, model.generator, config.loss.anisotropy_limit)
        self.plans = plans_of(model.scene, config, self.context)
        trained = [layer for layer in model.scene if not layer.locked]
        self.populations = [Population(layer, self.moments) for layer in trained]
        for population in self.populations:
            plan = self.plans[population.layer.name]
            population.most, population.changes = plan.most, plan.rule != "none"
            for name in population.family.position_parameters():
                if name in population.family.parameters:
                    adam = self.moments.of(f"{population.layer.name}/{name}")
                    adam.param_groups[0]["scale"] = model.extent
        self.rules = {layer.name: make_rule(self.plans[layer.name].rule, config, model.extent) for layer in trained}
        fixed = sum(layer.family.bytes for layer in model.scene if layer.locked)
        self.budget = Budget(parse_bytes(config.density.budget), most_primitives(config, self.cameras), fixed)
        self.absolute = any(rule.absolute_gradient for rule in self.rules.values())
        self.changes: dict[str, int] = {}
        self._rates: dict[str, float] = {}

    # -- around a step ------------------------------------------------------------------------------------------------
    def before(self, step: int) -> None:
        """Colour degrees, this step's noise, this step's rates of positions."""
        for population in self.populations:
            family, layer = population.family, population.layer
            family.advance(schedules.color_degree(step, self.config.schedule))
            family.begin_step(min(step / self.config.run.steps, 1.0), self.model.generator)
            names = set(family.position_parameters()) & set(family.parameters)
            rates = [rate_of(self.moments.of(f"{layer.name}/{name}")) for name in names]
            self._rates[layer.name] = max(rates, default=0.0)

    def after(self, step: int, seen: Seen | None) -> None:
        """Evidence of the render, what follows an update, and the change of structure where it is due.

        A family that measures the pull itself reads gradients, in which its own loss terms are here.
        """
        for population in self.populations:
            population.family.end_step()
        if seen is None:
            return
        for population in self.populations:
            name, pull = population.layer.name, population.family.growth_signal()
            if name not in seen.parts:
                continue
            if pull is not None:
                self.rules[name].feel(population, pull, seen.visible(name))
            else:
                self.rules[name].observe(population, seen.sighting(name, self.absolute))
        self.budget.observe(seen.frame.visibility.memory.get("arena", 0), len(self.model.scene))
        for population in self.populations:
            moment = self._moment(step + 1, self._rates.get(population.layer.name, 0.0))
            self.rules[population.layer.name].after_update(population, moment)
        self._change_structure(step + 1)
        self.model.bind(self.moments)

    def _moment(self, step: int, position_rate: float = 0.0) -> Change:
        return Change(step, self.populations, self.budget, self.model.generator, position_rate)

    def _change_structure(self, step: int) -> None:
        if step in self.config.contribution.at:
            self._count({"unsupported": self._prune_unsupported()})
        due = [population for population in self.populations if self.rules[population.layer.name].due(step)]
        first = step // self.config.density.every % max(len(due), 1)  # no layer is always the first to take the room
        for population in [*due[first:], *due[:first]]:
            centres = torch.stack([camera.centre.detach() for camera in self.cameras])
            distance = self.config.density.near_camera * self.model.extent
            doomed = near_cameras(population.family, centres, distance)
            if bool(doomed.all()):
                doomed = torch.zeros_like(doomed)
            self._count(self.rules[population.layer.name].change(population, doomed, self._moment(step)))

    def _prune_unsupported(self) -> int:
        def draw(scene: Scene, camera: Camera) -> Frame:
            return render(scene.drawables(camera), camera, settings=scene.settings(statistics=True))

        with torch.no_grad():
            found = unsupported(self.model.scene, self.cameras, self.config.contribution, draw)
        return sum(
            population.prune(found[population.layer.name])
            for population in self.populations
            if (population.changes or population.family.grows)
            and population.layer.name in found
            and not bool(found[population.layer.name].all())
        )

    def trim_to_budget(self) -> None:
        """Initial primitives beyond the budget go, at random and from each layer by the same share."""
        growing = [population for population in self.populations if population.family.grows]
        for population, kept in zip(growing, self.budget.shares(self.populations), strict=True):
            if len(population) > kept:
                order = torch.randperm(len(population), generator=self.model.generator)
                doomed = torch.zeros(len(population), dtype=torch.bool)
                doomed[order[kept:]] = True
                self.budget.refused += population.prune(doomed.to(population.family.device))
        self.model.bind(self.moments)

    def _count(self, changes: dict[str, int]) -> None:
        for key, value in changes.items():
            self.changes[key] = self.changes.get(key, 0) + value

    # -- state --------------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        statistics = {population.layer.name: population.state() for population in self.populations}
        return {"statistics": statistics, "budget": self.budget.state(), "steps": self.config.run.steps}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for population in self.populations:
            population.load(state["statistics"][population.layer.name])
        self.budget.load(state["budget"])

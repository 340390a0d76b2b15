"""What a configuration says of each layer, checked against its family: rates, loss terms, density rule. What can be
known without the data is checked before it is read, because reading may take a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch

from smalti.configs.config import LayerConfig, TrainConfig
from smalti.configs.resolve import ConfigError
from smalti.primitives.family import Family, LossContext, find_family
from smalti.scene.scene import Layer, Scene
from smalti.trainers import schedules
from smalti.trainers.initializers import metadata_of, settings_of
from smalti.trainers.perceptual import require_weights


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """How one layer is trained."""

    rates: Mapping[str, float]
    """By parameter, over the family's defaults."""
    weights: Mapping[str, float]
    """Of loss terms, by name."""
    rule: str
    """Of density control."""
    most: int
    """Primitives, 0 for no limit."""


def plans_of(scene: Scene, config: TrainConfig, context: LossContext) -> dict[str, LayerPlan]:
    """The plan of every layer, by name; a layer that the configuration does not know, or knows as one of another family
    (layers are renamed by hand), is trained by the defaults.

    Raises ConfigError for parameters, loss terms and rules that its family does not have.
    """
    known = {(layer.name, layer.family): layer for layer in config.scene}
    return {
        layer.name: _plan(
            layer,
            known.get((layer.name, layer.family.name)) or LayerConfig(family=layer.family.name),
            config,
            context,
        )
        for layer in scene
    }


PICTURE_TERMS = ("dssim", "perceptual")
"""Those that `schedule.weights` may name besides the families' own."""


def require_known_names(config: TrainConfig) -> None:
    """Hold a configuration against what it names, as far as that can be known without the data: families with their
    metadata, parameters and loss terms, initialisers with their settings, a perceptual network with its weights.

    Raises ConfigError, FamilyError or LpipsUnavailable.
    """
    offered: dict[str, set[str]] = {}
    for layer in config.scene:
        family, where = find_family(layer.family), f"scene.{layer.name}"
        settings_of(layer)
        metadata = metadata_of(layer, config.run.seed)
        _require(layer.learning_rates, family.default_learning_rates(), f"{where}.learning_rates", "parameter")
        terms = _offered(family, metadata)
        if terms is not None:
            _require(layer.regularizers, terms, f"{where}.regularizers", "loss term")
            offered[layer.name] = terms
    _require_scheduled(config, offered)
    require_weights(config.loss)


def _offered(family: type[Family], metadata: Mapping[str, Any]) -> set[str] | None:
    """Names of a family's loss terms, which one primitive of it tells; None where none can be made just so."""
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    try:
        return set(family.at_random(bounds, 1, generator, metadata).regularizers(LossContext(1.0, generator)))
    except Exception:  # a family of somebody else's that needs data for that: checked when it has them
        return None


def require_scheduled_terms(scene: Scene, config: TrainConfig, context: LossContext) -> None:
    """ConfigError where `schedule.weights` names a term that neither pictures nor layers have, or lifts dssim above
    one. Layers that the configuration has and the scene no longer (they were edited away) are taken at their word.
    """
    _require_scheduled(config, {layer.name: layer.family.regularizers(context) for layer in scene})


def _require_scheduled(config: TrainConfig, offered: Mapping[str, Iterable[str]]) -> None:
    """`offered`: by layer. Those that the configuration has besides are taken at their word."""
    known, gone = {*PICTURE_TERMS}, {layer.name for layer in config.scene} - set(offered)
    for name, terms in offered.items():
        known |= {*terms, *(f"{name}/{term}" for term in terms)}
    changes = config.schedule.weights
    named = [term for _, term, _ in changes if term.partition("/")[0] not in gone]
    _require(named if not gone else [term for term in named if "/" in term], known, "schedule.weights", "loss term")
    dssim = [config.loss.dssim * schedules.weight_factor(step, "dssim", changes) for step, _, _ in changes]
    if max(dssim, default=0.0) > 1:
        raise ConfigError(f"schedule.weights: dssim would become {max(dssim):g} with loss.dssim={config.loss.dssim:g}; "
                          "it is a share of the picture loss, at most 1")  # fmt: skip


def _plan(layer: Layer, given: LayerConfig, config: TrainConfig, context: LossContext) -> LayerPlan:
    family, where = layer.family, f"scene.{layer.name}"
    _require(given.learning_rates, family.default_learning_rates(), f"{where}.learning_rates", "parameter")
    rates = {name: rate for name, rate in given.learning_rates.items() if name in family.parameters}
    offered = family.regularizers(context)
    _require(given.regularizers, offered, f"{where}.regularizers", "loss term")
    shared = {"opacity": config.loss.opacity, "scale": config.loss.scale, "anisotropy": config.loss.anisotropy}
    weights = {name: weight for name, weight in shared.items() if name in offered}
    weights |= {**family.default_regularizers(), **given.regularizers}
    rule = "none" if layer.locked else given.density or (config.density.rule if family.grows else "none")
    return LayerPlan(rates, weights, rule, given.max_primitives)


def _require(names: Iterable[str], known: Iterable[str], where: str, what: str) -> None:
    known = sorted(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: no {what} is called {name!r}; there are {', '.join(known)}{hint}")

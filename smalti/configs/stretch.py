"""Step numbers belong together: a run of another length needs its schedule stretched, or says what it will miss."""

from __future__ import annotations

from collections.abc import Iterable

from smalti.configs.config import TrainConfig


def stretched(config: TrainConfig) -> TrainConfig:
    """The configuration with `run.stretch` carried out: its length and all steps of its schedule times that number.

    The pace stays (`density.every`, records, checkpoints): what happens every so many steps happens as often.
    """
    if config.run.stretch == 1.0:
        return config
    values = config.model_dump()

    def at(step: int) -> int:
        return max(round(step * config.run.stretch), 1) if step else 0

    for section, name in (
        ("run", "steps"), ("schedule", "length"), ("schedule", "sh_every"), ("density", "start"), ("density", "stop"),
        ("gradient", "reset_every"), ("refine", "start"), ("optimizer", "warmup"),
    ):  # fmt: skip
        values[section][name] = at(values[section][name])
    # Two limits that fall on one step: the finer pictures win.
    values["schedule"]["resolution"] = list({at(until): factor for until, factor in config.schedule.resolution}.items())
    # Factors multiply up, so those that fall on one step become one.
    values["optimizer"]["drops"] = _joined((at(step), "", factor) for step, factor in config.optimizer.drops)
    values["optimizer"]["drops"] = [(step, factor) for step, _, factor in values["optimizer"]["drops"]]
    weights = config.schedule.weights
    values["schedule"]["weights"] = _joined((at(step), term, factor) for step, term, factor in weights)
    values["contribution"]["at"] = sorted({at(step) for step in config.contribution.at})
    values["run"]["stretch"] = 1.0
    return TrainConfig.model_validate(values)


def _joined(changes: Iterable[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
    result: dict[tuple[int, str], float] = {}
    for step, term, factor in changes:
        result[step, term] = result.get((step, term), 1.0) * factor
    return [(step, term, factor) for (step, term), factor in result.items()]


def beyond_the_end(config: TrainConfig) -> list[str]:
    """What of the schedule the run is too short to reach, a phrase each."""
    steps, found = config.run.steps, []
    if config.schedule.length > steps:
        found.append(f"rates and families do not come to their end (schedule.length={config.schedule.length})")
    if config.density.rule != "none" and config.density.stop > steps:
        found.append(f"growth goes on to the end (density.stop={config.density.stop})")
    if config.schedule.resolution and config.schedule.resolution[-1][0] >= steps:
        until = config.schedule.resolution[-1][0]
        found.append(f"pictures are never seen at full resolution (schedule.resolution, to step {until})")
    if config.schedule.sh_every >= steps:
        found.append(f"colours never depend on the direction (schedule.sh_every={config.schedule.sh_every})")
    found += [f"contribution.at={step} never comes" for step in config.contribution.at if step > steps]
    if (config.refine.poses or config.refine.exposure) and config.refine.start >= steps:
        found.append(f"nothing is refined (refine.start={config.refine.start})")
    if config.optimizer.warmup >= steps:
        found.append(f"rates are still rising at the end (optimizer.warmup={config.optimizer.warmup})")
    late = [step for step, _ in config.optimizer.drops if step >= steps]
    found += [f"rates never drop at step {step} (optimizer.drops)" for step in late]
    for step in sorted({step for step, _, _ in config.schedule.weights if step >= steps}):
        terms = ", ".join(term for at, term, _ in config.schedule.weights if at == step)
        found.append(f"the weight of {terms} never changes at step {step} (schedule.weights)")
    return found

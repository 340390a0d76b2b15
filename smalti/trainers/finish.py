"""The end of a run: figures, curves, comparison sheet, scene file, video, as `run.finish` lists them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from smalti.trainers import evaluation
from smalti.trainers.trainer import Trainer


def finish(trainer: Trainer) -> list[str]:
    """Make everything that `run.finish` lists; returns lines to show. What cannot be made is said and does not stop the rest."""
    lines = []
    for name in (each for each in trainer.config.run.finish if each in MAKERS):
        try:
            lines += MAKERS[name](trainer)
        except (ImportError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
            lines.append(f"{name}: not made: {error}")
    return lines


def _evaluation(trainer: Trainer) -> list[str]:
    if not trainer.test_rows:
        return ["evaluation: no view is held out (data.split)"]
    protocol = evaluation.protocol_for(trainer.config.data, trainer.dataset)
    result = evaluation.evaluate(trainer.scene, trainer.cache, trainer.test_rows, protocol, backend=trainer.backend)
    path = trainer.run.path / "evaluation.json"
    path.write_text(json.dumps({"step": trainer.step_number, **result.to_json()}, indent=1), encoding="utf-8")
    clock = {"cpu_seconds": round(trainer.clock.cpu, 3), "wall_seconds": round(trainer.clock.wall, 3)}
    count = {"primitives": len(trainer.scene)}
    trainer.run.record({"kind": "evaluation", "step": trainer.step_number, **clock, **count, **result.mean})
    return [*result.lines(per_view=False), f"figures per view: {path}"]


MAKERS: dict[str, Callable[[Trainer], list[str]]] = {"evaluation": _evaluation}

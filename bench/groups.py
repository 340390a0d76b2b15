"""What `Scene.find_groups` finds in blocks with known regularities, and what its edits do there.

Fifty fences, tables, shelves and rings of chairs for each amount of noise, with clutter and members missing
(`groups_scenes.py`). Reported: precision and recall of groups, errors of their counts, free numbers and description
length before and after, and how far an edit (one copy more, another spacing, a leg moved) puts members from where the
generator's own edit puts them.

    python bench/groups.py --json docs/groups.json --picture docs/groups.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from groups_pictures import draw
from groups_scenes import MAKERS, Made, Truth, make

from smalti.renderers.engine import set_threads
from smalti.scene import Scene
from smalti.scene.groups import Group, Groups
from smalti.scene.groups.boxes import Array, Boxes
from smalti.scene.groups.demo import layer_of
from smalti.scene.groups.fit import Model, fitted
from smalti.scene.groups.levels import DoubleMirror, Grid, LinearArray, Rotation, Slot
from smalti.scene.groups.members import read
from smalti.scene.groups.settings import setting
from smalti.scene.groups.walks import fit_array, fit_grid, fit_rotation

ENOUGH = 0.75
"""Shared members over all members of two groups from which one counts as found."""
NOISE = (0.0, 0.005, 0.01, 0.02)
TOLERANCES = (0.0025, 0.005, 0.01, 0.02, 0.04)


def overlap(group: Group, truth: Truth) -> float:
    """Members that both have, of those that one has."""
    rows = {part.row for part in group.members}
    return len(rows & set(truth.rows)) / len(rows | set(truth.rows))


def measured(made: Made, tolerance: float) -> dict[str, Any]:
    """Of one scene; `tolerance` in shares of its extent."""
    scene = Scene(order="ray")
    layer_of(scene, "blocks", made.boxes, texture_size=2)
    start = time.process_time()
    groups = scene.find_groups(tolerance * made.boxes.extent())
    seconds = time.process_time() - start
    found = [group for group in groups if group.kind != "same_size"]
    hits = [(truth, max(found, key=lambda group: overlap(group, truth), default=None)) for truth in made.truths]
    good = [(truth, group) for truth, group in hits if group is not None and overlap(group, truth) >= ENOUGH]
    plain = [(truth, group) for truth, group in good if group.inner is None and group.kind == truth.level.kind]
    numbers = {"before": 9 * len(made.boxes), "after": free_numbers(groups, len(made.boxes))}
    row = {
        "truths": len(made.truths),
        "found": len(found),
        "hits": len(good),
        "kinds": len(plain),
        "count_errors": [abs(group.parameters.count - truth.level.count) for truth, group in plain],
        "numbers": numbers,
        "cost": [groups.cost, groups.separate_cost],
        "seconds": seconds,
    }
    loose = [edit_errors(scene, made, truth, group) for truth, group in plain]
    for _, group in plain:
        group.apply()
    snapped = [edit_errors(scene, made, truth, group) for truth, group in plain]
    lying = [error for truth, group in plain for error in member_errors(scene, made, truth, group)]
    return row | {"edits": sum(loose, []), "snapped": sum(snapped, []), "lying": lying}  # noqa: RUF017


def member_errors(scene: Scene, made: Made, truth: Truth, group: Group) -> list[float]:
    """Mean corner distance of members to where the generator has them, over the scene's extent."""
    clean = place(truth, group)
    if clean is None:
        return []
    said, now = clean.place(group.slots).corners(), read(scene, group.members).corners()
    return [float(corner_distance(said, now).mean()) / made.boxes.extent()]


def free_numbers(groups: Groups, blocks: int) -> int:
    """Nine for a part; a group's own. Of blocks of one size: three, and six for each place."""
    held = 0
    for group in groups:
        levels, each = 0, group
        while each is not None:
            levels += each.parameters.free
            each = each.inner
        held += 9 + levels
        blocks -= len(group.members)
    return held + 9 * blocks


def edit_errors(scene: Scene, made: Made, truth: Truth, group: Group) -> list[float]:
    """Mean corner distance of edited members to where the generator's edit has them, over the scene's extent."""
    clean = place(truth, group)
    if clean is None:
        return []
    unit, errors = made.boxes.extent(), list[float]()
    level = group.parameters
    match level:
        case LinearArray():
            edits: list[dict[str, Any]] = [{"count": level.count + 1}, {"spacing": 1.25 * level.spacing}]
        case Grid():
            edits = [{"columns": level.columns + 1}, {"row_spacing": 1.25 * float(np.linalg.norm(level.row_step))}]
        case Rotation():
            edits = [{"count": level.count + 1, "mode": "fit"}]
        case _:
            edits = [{}]
    for values in edits:
        mode = values.pop("mode", "extend")
        if values:
            shares = {name: new / old for name, new, old in _relative(level, values)}
            true_values = {
                name: value if name in ("count", "columns") else shares[name] * _value(clean.levels[0], name)
                for name, value in values.items()
            }
            wanted = setting(clean.levels[0], true_values, mode, "base")
            model = Model((wanted.level,), clean.base)
            group.set(mode=mode, **values)
        else:
            step = 0.1 * unit * np.array([0.48, 0.6, 0.64])
            number = group.slots.index(((0, 0),)) if ((0, 0),) in group.slots else None
            if number is None:
                continue
            base = Boxes(clean.base.centres + step, clean.base.rotations, clean.base.halves, clean.base.exponents)
            model = Model(clean.levels, base)
            group.move(step.tolist(), number)
        is_now = read(scene, group.members).corners()
        errors.append(float(corner_distance(model.place(group.slots).corners(), is_now).mean()) / unit)
        scene.undo()
    return errors


def corner_distance(one: Array, two: Array) -> Array:
    """Hausdorff distance between corner sets [n, 8, 3]."""
    between = np.linalg.norm(one[:, :, None] - two[:, None], axis=3)
    return np.maximum(between.min(axis=1).max(axis=1), between.min(axis=2).max(axis=1))


def place(truth: Truth, group: Group) -> Model | None:
    """The generator's regularity, counted as the group that was found counts its copies; None where a member is none
    of the generator's.
    """
    own = dict(zip(truth.rows, truth.slots, strict=True))
    rows = [part.row for part in group.members]
    if not set(rows) <= set(own):
        return None
    clean = Model((truth.level,), truth.base).place([(own[row],) for row in rows])
    slots: list[tuple[Slot, ...]] = group.slots
    flat, level = [slot[0] for slot in slots], group.parameters
    match level:
        case LinearArray():
            new = fit_array(flat, clean.centres)
        case Grid():
            new = fit_grid(flat, clean.centres)
        case Rotation():
            new = fit_rotation(flat, clean.centres, level.number if level.closed else 0)
        case _:
            new = truth.level
            # Which of the planes is the first is the group's to say.
            assert isinstance(new, DoubleMirror)
            assert isinstance(level, DoubleMirror)
            if abs(np.dot(new.normals[0], level.normals[0])) < 0.5:
                (one, two), (near, far) = new.normals, new.offsets
                new = DoubleMirror((two, one), (far, near))
    if new is None:
        return None
    fit = fitted((new,), list(range(len(rows))), slots, clean, (1e-3, 1.0))
    return fit.model if fit.worst < 1e-6 * (1.0 + float(np.abs(clean.centres).max())) else None


def _value(level: Any, name: str) -> float:
    if name == "row_spacing":
        return float(np.linalg.norm(level.row_step))
    return float(getattr(level, name))


def _relative(level: Any, values: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(name, float(value), _value(level, name)) for name, value in values.items()]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several scenes."""
    truths, found, hits = (sum(row[name] for row in rows) for name in ("truths", "found", "hits"))
    counts = [error for row in rows for error in row["count_errors"]]
    edits = [error for row in rows for error in row["edits"]]
    before, after = (sum(row["numbers"][name] for row in rows) for name in ("before", "after"))
    return {
        "scenes": len(rows),
        "recall": round(hits / truths, 3),
        "precision": round(hits / max(found, 1), 3),
        "kind_right": round(sum(row["kinds"] for row in rows) / truths, 3),
        "count_error": round(float(np.mean(counts)), 3) if counts else None,
        "free_numbers": [before, after],
        "cost_ratio": round(sum(row["cost"][0] for row in rows) / sum(row["cost"][1] for row in rows), 3),
        "edit_error": mean(edits),
        "edit_error_applied": mean([error for row in rows for error in row["snapped"]]),
        "member_error_applied": mean([error for row in rows for error in row["lying"]]),
        "edits": len(edits),
        "seconds": round(float(np.mean([row["seconds"] for row in rows])), 3),
        "slowest": round(max(row["seconds"] for row in rows), 2),
    }


def mean(values: list[float]) -> float | None:
    """Rounded; None of nothing."""
    return round(float(np.mean(values)), 5) if values else None


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", nargs="?", const="-", help="a file, or print it")
    parser.add_argument("--picture", help="draw the page's picture there")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="four scenes for each noise, one tolerance")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_threads(1)
    count = 4 if arguments.quick else arguments.scenes
    kinds = list(MAKERS)
    runs: list[dict[str, Any]] = []

    def run(noise: float, tolerance: float, name: str) -> None:
        rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for seed in range(count):
            kind = kinds[seed % len(kinds)]
            made = make(kind, np.random.default_rng([seed, 7]), noise)
            rows[kind].append(measured(made, tolerance))
        entry = {
            "part": name,
            "noise": noise,
            "tolerance": tolerance,
            **summary([row for each in rows.values() for row in each]),
        }
        runs.append({**entry, "by_kind": {kind: summary(each) for kind, each in rows.items()}})
        if arguments.json != "-":
            print(entry, flush=True)

    for noise in NOISE:
        run(noise, 0.02, "default tolerance")
        if not arguments.quick and 2 * noise > 0.02:
            run(noise, 2 * noise, "tolerance of twice the noise")
    for tolerance in () if arguments.quick else TOLERANCES:
        run(0.005, tolerance, "tolerance at noise 0.005")
    text = json.dumps({"enough": ENOUGH, "runs": runs}, indent=1)
    if arguments.json == "-":
        print(text)
    elif arguments.json:
        Path(arguments.json).write_text(text + "\n")
    if arguments.picture:
        draw(Path(arguments.picture))


if __name__ == "__main__":
    main()

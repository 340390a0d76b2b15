"""What the runs of the toy experiment (`neural_toy.py`) say: curves, and what is read off them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np

NUMBERS = {"neural": (99, 54), "gaussian": (59, 14), "ellipsoid": (59, 14)}
"""Per primitive, with colours of degree 3 and 0."""
DEGREES = (3, 0)
MEASURES = ("psnr", "psnr_fine")
SIXTEEN = 16
"""Gaussians, whose PSNR is to be reached."""
Group = tuple[str, str, int]
"""Solid, model, number of primitives."""
Curve = dict[int, tuple[float, float, float]]
"""Number of primitives -> PSNR: mean, least and most over the seeds."""
Curves = dict[tuple[str, str], Curve]
"""Solid, model -> curve."""


def rows_of(runs: Iterable[tuple[Group, dict[str, float]]]) -> list[dict[str, Any]]:
    """Mean over the seeds, and range, of every group."""
    groups: dict[Group, list[dict[str, float]]] = {}
    for group, values in runs:
        groups.setdefault(group, []).append(values)
    rows = []
    for (solid, model, count), seeds in groups.items():
        row: dict[str, Any] = {"solid": solid, "model": model, "primitives": count, "seeds": len(seeds)}
        for name in MEASURES:
            each = [values[name] for values in seeds]
            row |= {name: round(statistics.fmean(each), 3), f"{name}_range": [round(min(each), 3), round(max(each), 3)]}
        for name, digits in (("training_loss", 5), ("cpu_seconds", 2)):
            row[name] = round(statistics.fmean(values[name] for values in seeds), digits)
        rows.append(row)
    return rows


def curves_of(rows: list[dict[str, Any]], measure: str) -> Curves:
    """By solid and model, numbers rising; those without variants."""
    found: Curves = {}
    for row in sorted(rows, key=lambda row: row["primitives"]):
        if row["model"] in NUMBERS:
            points = found.setdefault((row["solid"], row["model"]), {})
            points[row["primitives"]] = (row[measure], *row[f"{measure}_range"])
    return found


def needed(points: Curve, quality: float) -> float | None:
    """How many primitives reach that PSNR, between two that were tried on a logarithmic scale; None: more than were
    tried. Of fewer than the fewest nothing is known: then the fewest.
    """
    before: tuple[int, float] | None = None
    for count, (mean, _, _) in points.items():
        if mean >= quality:
            if before is None:
                return float(count)
            share = (quality - before[1]) / (mean - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(count) - math.log(before[0])))
        before = (count, mean)
    return None


def sixteen_gaussians(curves: Curves, measure: str) -> list[dict[str, Any]]:
    """Per solid: how many of the others reach the PSNR of 16 Gaussians, by number and by parameters, and what neural
    splats gain on Gaussians of as many parameters.
    """
    found = []
    for solid in dict.fromkeys(solid for solid, _ in curves):
        gaussian, neural = curves.get((solid, "gaussian"), {}), curves.get((solid, "neural"), {})
        if SIXTEEN not in gaussian or not neural:
            continue
        quality = gaussian[SIXTEEN][0]
        count = needed(neural, quality)
        row: dict[str, Any] = {"solid": solid, "measure": measure, "psnr": quality}
        row |= {"neural": _short(count), "ellipsoids": _short(needed(curves[solid, "ellipsoid"], quality))}
        row["third_or_less"] = count is not None and count <= SIXTEEN / 3
        for which, degree in enumerate(DEGREES):
            ratio = NUMBERS["neural"][which] / NUMBERS["gaussian"][which]
            row[f"parameters_over_gaussians_degree_{degree}"] = _short(
                None if count is None else count * ratio / SIXTEEN
            )
            row[f"gain_at_equal_parameters_degree_{degree}"] = gains(neural, gaussian, ratio)
        found.append(row)
    return found


def gains(neural: Curve, gaussian: Curve, ratio: float) -> dict[str, float]:
    """By number of neural splats: their PSNR less that of `ratio` times as many Gaussians, read off their curve."""
    found, counts = {}, list(gaussian)
    levels = [mean for mean, _, _ in gaussian.values()]
    for count, (mean, _, _) in neural.items():
        if counts[0] <= count * ratio <= counts[-1]:
            other = float(np.interp(math.log(count * ratio), np.log(counts), levels))
            found[str(count)] = round(mean - other, 2)
    return found


def equal_numbers(curves: Curves, pairs: dict[int, int], measure: str) -> list[dict[str, Any]]:
    """Neural splats, and the Gaussians of `pairs`, which have no more parameters; both trained."""
    return [
        {
            "solid": solid,
            "measure": measure,
            "neural": count,
            "gaussians": equal,
            "neural_psnr": curves[solid, "neural"][count][0],
            "gaussian_psnr": curves[solid, "gaussian"][equal][0],
        }
        for solid in dict.fromkeys(solid for solid, _ in curves)
        for count, equal in pairs.items()
        if count in curves.get((solid, "neural"), {}) and equal in curves.get((solid, "gaussian"), {})
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)

"""Neural splats, Gaussians, and both in one scene, at equal bytes on a capture. Part `chair` of `neural_splats.py`.

Data: `chair_blender` at downscale 4 (200 x 200 pixels), over black as the publication has it; the 100 training views.
Families, rates and sizes were fixed before the 13 test views were looked at, with every tenth of the training views
held out instead (`--validate`); what was changed after such a look is said below.
Bytes: 0.1, 0.4 and 1.0 MB (10^6) of parameters, kept by `density.model`. A variant is a family and the degree of its
spherical harmonics: degree 3 is the publication's (99 numbers a neural splat, 59 a Gaussian), but of those 48 are
colour, so the accounting decides much; degree 0 (54 and 14) is the other end.
- `gaussians-D`: EWA, the publication's opponent. `ray_gaussians-D`: the same evaluated on the ray, in exact order.
- `neural-D`: the published field, a tenth of the gradient for rays of negative density.
- `...-exchange`: with the density control `exchange` beside the relocation; in a single layer it moves bytes inside.
- `mix-D`: ray Gaussians and neural splats of degree D in one scene, with `exchange`, which moves bytes between the two
  layers as well. They start with half the bytes each at degree 3, where the families are near each other alone, and 9
  to 1 at degree 0, where Gaussians are far ahead. First sizes are those of all points together. Before any bytes move
  the layers race for them (`exchange.race`), and where one does better alone it gets them all but a primitive's.
Alike for all: as many primitives from the start as the bytes allow, on points of the visual hull; the trainer; 1,000
steps of one view in full resolution; 0.8 L1 + 0.2 (1 - SSIM) without regularisers of opacity and size; MCMC relocation
of the dead; positions at three times, scales and rotations at twice the rates of `gaussians-fast`. The last state is
judged. It was chosen at 0.1 MB with seed 0 and 600 steps; the race at 0.4 MB with seeds 0 and 1, after mixes without it
had been seen on the test views; that only a layer which could take all bytes within the race may win it, after one run
(degree 0, 1.0 MB) in which another had won.
Published (mean of eight scenes, 800 x 800, 100,000 steps, the best checkpoint on test views): Gaussians 23.1, 25.6,
27.2 dB, neural splats 24.7, 27.6, 28.9 dB.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from smalti.configs.resolve import resolve
from smalti.primitives.family import find_family
from smalti.renderers.engine import set_threads
from smalti.trainers.evaluation import compare, evaluate, protocol_for
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

BUDGETS, SEEDS, STEPS, PRESET_STEPS = ("0.1MB", "0.4MB", "1.0MB"), (0, 1, 2), 1000, 4000
RATES = {"means": 1.0e-3, "log_scales": 2.0e-2, "quaternions": 4.0e-3, "sh_dc": 5.0e-3, "sh_rest": 2.5e-4}
NETWORK = {"frequencies": 2.0e-3, "phases": 2.0e-3, "amplitudes": 5.0e-3, "offsets": 5.0e-2}
SPLATS: dict[str, dict[str, Any]] = {
    "gaussians": {
        "family": "gaussians",
        "metadata": {"initial_opacity": 0.3, "initial_scale": 0.7},
        "learning_rates": {**RATES, "logit_opacities": 5.0e-2},
    },
    "ray_gaussians": {
        "family": "ray_gaussians",
        "metadata": {"initial_opacity": 0.3, "initial_scale": 0.7},
        "learning_rates": {**RATES, "logit_opacities": 5.0e-2},
    },
    "neural": {
        "family": "neural_splats",
        "metadata": {"initial_scale": 0.8, "initial_offset": 1.0, "leak": 0.1},
        "learning_rates": {**RATES, **NETWORK},
    },
}
MIXES: dict[str, dict[str, float]] = {
    "mix-3": {"ray_gaussians-3": 0.5, "neural-3": 0.5},
    "mix-0": {"ray_gaussians-0": 0.9, "neural-0": 0.1},
}
"""Layers and their first shares of the bytes."""
VARIANTS = (
    "gaussians-3", "neural-3", "ray_gaussians-3-exchange", "neural-3-exchange", "mix-3", "ray_gaussians-0-exchange",
    "mix-0", "gaussians-0", "neural-0", "ray_gaussians-3", "ray_gaussians-0", "neural-0-exchange",
)  # fmt: skip
EXCHANGE, SWAPPED = {"exchange.every": 25, "exchange.race": 100}, "-exchange"
KINDS = {"gaussians": "Gaussians (EWA)", "ray_gaussians": "Gaussians on the ray", "neural": "neural splats",
         "mix": "both, bytes moved"}  # fmt: skip
COLORS = {"gaussians": "C7", "ray_gaussians": "C0", "neural": "C1", "mix": "C3"}
PUBLISHED = {"gaussians": (23.1, 25.6, 27.2), "neural": (24.7, 27.6, 28.9)}


def layers_of(variant: str, total: int) -> list[dict[str, Any]]:
    """The scene of a variant, of as many primitives as `total` bytes allow."""
    parts = MIXES.get(variant) or {variant.removesuffix(SWAPPED): 1.0}
    result: list[dict[str, Any]] = []
    for name, share in parts.items():
        kind, degree = name.rsplit("-", 1)
        metadata: dict[str, Any] = {**SPLATS[kind]["metadata"], "sh_degree": int(degree)}
        layer: dict[str, Any] = {**SPLATS[kind], "name": name, "metadata": metadata}
        made = find_family(layer["family"]).from_points(torch.rand(8, 3), torch.rand(8, 3), layer["metadata"])
        layer["settings"] = {"count": int(share * total) // made.bytes_per_primitive}
        result.append(layer)
    points = sum(layer["settings"]["count"] for layer in result)
    for layer in result:  # surfaces: sizes go by the root of the number
        layer["metadata"]["initial_scale"] *= math.sqrt(layer["settings"]["count"] / points)
    return result


def config_of(variant: str, budget: str, seed: int, data: Path, arguments: argparse.Namespace, file: Path) -> Any:
    """The run's configuration; `file` takes its layers."""
    total = int(float(budget.removesuffix("MB")) * 1_000_000)
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers_of(variant, total)}))
    options = {
        "data.path": str(data), "data.downscale": 20 if arguments.quick else 4, "data.background": "black",
        "run.seed": seed, "run.stretch": (20 if arguments.quick else STEPS) / PRESET_STEPS, "run.finish": [],
        "density.model": budget, "density.pixels_per_primitive": 0, "schedule.resolution": [], "data.cache": "2GB",
        "loss.opacity": 0.0, "loss.scale": 0.0,
    }  # fmt: skip
    if variant in MIXES or variant.endswith(SWAPPED):
        options |= {"exchange.every": 5, "exchange.race": 4} if arguments.quick else EXCHANGE
    if arguments.quick:  # the hull looks at all pictures
        options |= {"data.points": "frustum", "data.sampled_points": 2000}
    if arguments.validate:
        options |= {"data.path": str(data / "transforms_train.json"), "data.split": "every:10"}
    return resolve(str(file), options)


def train(variant: str, budget: str, seed: int, data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run, or what it gave before; its figures on the held-out views."""
    kept = arguments.cache / f"chair-{variant}-{budget}-{seed}{'-validation' if arguments.validate else ''}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(variant, budget, seed, data, arguments, Path(folder) / "layers.yaml")
        trainer = Trainer(Run.planned(Path(folder) / "run", config))
        begin, moved = time.process_time(), 0
        for _ in range(config.run.steps):
            moved += trainer.step().changes.get("moved_between", 0)
        seconds = time.process_time() - begin
    found = evaluate(trainer.scene, trainer.cache, trainer.test_rows, protocol_for(config.data, trainer.dataset))
    held = {layer.name: layer.family.bytes for layer in trainer.scene}
    if sum(held.values()) > trainer.budget.model:
        raise SystemExit(f"neural_chair: {variant} holds {sum(held.values())} bytes, more than {budget}")
    row = {
        "variant": variant, "budget": budget, "seed": seed, "steps": config.run.steps,
        "psnr": found.mean["psnr"], "primitives": len(trainer.scene), "layers": trainer.scene.counts(),
        "bytes": sum(held.values()), "bytes_by_layer": held, "moved_between": moved, "views": len(trainer.test_rows),
        "cpu_seconds": round(seconds, 1),
    }  # fmt: skip
    pictures(trainer, config, kept.with_suffix(".png"))
    kept.write_text(json.dumps(row))
    return row


def pictures(trainer: Trainer, config: Any, target: Path) -> None:
    """Truth and render of one held-out view, side by side."""
    from PIL import Image

    row = trainer.test_rows[len(trainer.test_rows) // 3]
    pair = compare(trainer.scene, trainer.cache, row, protocol_for(config.data, trainer.dataset))
    both = torch.cat([pair.truth, pair.image.clamp(0, 1)], dim=1)
    Image.fromarray((both * 255).round().byte().cpu().numpy()).save(target)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By budget and variant: mean and range over seeds; what the issue asks of the mixes."""
    table: dict[str, dict[str, Any]] = {}
    verdicts: dict[str, Any] = {}
    for budget in BUDGETS:
        here = [row for row in rows if row["budget"] == budget]
        by_seed = {name: {row["seed"]: row["psnr"] for row in here if row["variant"] == name} for name in VARIANTS}
        for variant, values in by_seed.items():
            if not values:
                continue
            found = [row for row in here if row["variant"] == variant]
            table.setdefault(budget, {})[variant] = {
                "psnr": statistics.fmean(values.values()), "range": [min(values.values()), max(values.values())],
                "seeds": len(values), "primitives": statistics.fmean(row["primitives"] for row in found),
                "bytes": max(row["bytes"] for row in found),
                "cpu_seconds": statistics.fmean(row["cpu_seconds"] for row in found),
            }  # fmt: skip
        for mix, singles in product(MIXES, (False, True)):
            found = verdict(by_seed, mix, exchanged=singles)
            if found:
                which = "with exchange" if singles else "without exchange"
                verdicts.setdefault(budget, {}).setdefault(mix, {})[which] = found
    return {"table": table, "mixes": verdicts}


def verdict(by_seed: dict[str, dict[int, float]], mix: str, exchanged: bool) -> dict[str, Any] | None:
    """A mix against the better of the single families of its degree, over the seeds that all of them have.

    `exchanged`: those have the mix's density control too, inside themselves; else they are trained without it, and EWA
    Gaussians stand beside those that are evaluated on the ray. None where one of the mix's families is missing.
    """
    families = list(MIXES[mix])
    names = [family + SWAPPED for family in families] if exchanged else [*families, mix.replace("mix", "gaussians")]
    names = [name for name in names if by_seed.get(name)]
    if not set(families) <= {name.removesuffix(SWAPPED) for name in names}:
        return None
    seeds = sorted(set(by_seed[mix]).intersection(*(by_seed[name] for name in names)))
    if not seeds:
        return None
    best = max(names, key=lambda name: statistics.fmean(by_seed[name][seed] for seed in seeds))
    gains = [by_seed[mix][seed] - by_seed[best][seed] for seed in seeds]
    return {"better_single": best, "gain": statistics.fmean(gains), "gains": gains, "seeds": seeds,
            "reached": statistics.fmean(gains) >= 0.3}  # fmt: skip


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs that are there or fit into `arguments.seconds`, small budgets and first seeds before others."""
    torch.set_num_threads(1)
    set_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    budgets, seeds = (BUDGETS[:1], SEEDS[:1]) if arguments.quick else (BUDGETS, SEEDS)
    variants = ("ray_gaussians-3", "neural-3", "mix-3") if arguments.quick else VARIANTS
    if arguments.variants:
        variants = tuple(arguments.variants.split(","))
        if unknown := set(variants) - set(VARIANTS):
            raise SystemExit(f"neural_chair: no variant {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    rows: list[dict[str, Any]] = []
    begin, left = time.perf_counter(), 0
    rounds = sorted(product(seeds, budgets), key=lambda each: each[0] + BUDGETS.index(each[1]))
    for (seed, budget), variant in product(rounds, variants):
        kept = arguments.cache / f"chair-{variant}-{budget}-{seed}{'-validation' if arguments.validate else ''}.json"
        if not kept.is_file() and time.perf_counter() - begin > arguments.seconds:
            left += 1
            continue
        rows.append(train(variant, budget, seed, arguments.data / "chair_blender", arguments))
    result = {"part": "chair", "published": PUBLISHED, "runs_left": left, **summary(rows), "runs": rows}
    if arguments.out and rows:
        figure(result, arguments.out / f"neural-chair{'-validation' if arguments.validate else ''}.png")
    return result


def named(variant: str) -> str:
    """A variant in words, without its degree."""
    kind, _, rest = variant.partition("-")
    return KINDS[kind] + (", bytes moved" if rest.endswith(SWAPPED) else "")


def figure(result: dict[str, Any], target: Path) -> None:
    """PSNR against bytes, with the range over seeds, a panel for each degree of the colours; the published figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    drawing, axes = pyplot.subplots(1, 2, figsize=(9.0, 5.2), sharey=True)
    found = {row["variant"] for row in result["runs"]}
    for axis, degree in zip(axes, "30", strict=True):
        for variant in [name for name in VARIANTS if name in found and name.split("-")[1] == degree]:
            points = [(float(b.removesuffix("MB")), v[variant]) for b, v in result["table"].items() if variant in v]
            middle = [value["psnr"] for _, value in points]
            spread = [[value["psnr"] - value["range"][0] for _, value in points],
                      [value["range"][1] - value["psnr"] for _, value in points]]  # fmt: skip
            kind, moved = variant.split("-")[0], variant.endswith(SWAPPED) or variant in MIXES
            axis.errorbar([b for b, _ in points], middle, yerr=spread, fmt="-" if moved else "--", marker="o", ms=4,
                          lw=2.2 if variant in MIXES else 1.3, capsize=2, color=COLORS[kind],
                          label=named(variant))  # fmt: skip
        for kind, values in PUBLISHED.items() if degree == "3" else ():
            axis.plot([0.1, 0.4, 1.0], values, ":", color="gray", marker="s" if kind == "neural" else "^", ms=4,
                      label=f"published {KINDS[kind].split(' (')[0]} (8 scenes, 800 x 800)")  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks([0.1, 0.4, 1.0], ["0.1", "0.4", "1.0"])
        axis.minorticks_off()
        axis.set_title(f"colours of degree {degree}", fontsize=10)
        axis.set_xlabel("MB of parameters")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR of held-out views, dB")
    entries = dict[str, Any]()
    for axis in axes:
        entries |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    entries = {label: entries[label] for label in sorted(entries, key=lambda label: ("published" in label, label))}
    drawing.legend(entries.values(), entries.keys(), loc="lower center", ncol=3, fontsize=8, frameon=False)
    drawing.tight_layout(rect=(0.0, 0.14, 1.0, 1.0))
    drawing.savefig(target, dpi=110)
    Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)

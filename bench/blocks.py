"""Blocks World (Monnier et al. 2023) as the preset `blocks`: its published effects, and what real captures give.

    python bench/blocks.py --part synthetic --json --out docs/methods
    python bench/blocks.py --part dtu --data DTU_SCAN24 --run RUN --out docs/methods
    python bench/blocks.py --part capture --data FOX --name fox --run RUN --out docs/methods
    python bench/blocks.py --part time --data DTU_SCAN24

`synthetic`: three cuboids on a checker ground (`bench/blocks_scene.py`, `bench/blocks_synthetic.py`): the complete
method, its ablations and three weights of parsimony, three seeds each, 1,500 steps. Runs are kept in `--work` one by
one and not repeated while their configuration is the same; `--minutes` starts no further run after that time.
`dtu`, `capture`: a finished run is reported; where `--run` is not there yet, it is trained (`smalti train blocks`, with
what `--set FIELD=VALUE` says), and continued where it was stopped; `--collect` reports it as it stands. All views are
trained on, as published.
`time`: processor milliseconds of a step by part.

Everything is written into `blocks.json` in `--out`, each part into its own section, with its figure beside it. Blocks
are those above one half; Chamfer is of the blocks alone, both ways (`smalti.testing.chamfer`); pictures are the
training views, drawn with hard edges and 4 x 4 samples per pixel; PSNR in both forms.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from blocks_figures import capture_figure, synthetic_figure
from blocks_measures import block_layers, counts, flat_picture, hardened, measured_pictures, supersampled
from blocks_synthetic import PUBLISHED, STEPS, VARIANTS, claims, outcome, summary, train
from blocks_time import times

from smalti.configs.config import parse_bytes
from smalti.datasets.images import ImageCache
from smalti.renderers.engine import set_threads
from smalti.trainers.run import Run
from smalti.trainers.views import stated_background

QUICK_STEPS = 12
PARTS = ("synthetic", "dtu", "capture", "time")
PUBLISHED_SCANS = {"psnr_of_batches": 20.5, "blocks": 4.6, "of": 10, "what": "mean of ten DTU scans, 400 x 300"}
SHOWN = 4
"""Views of a capture in its figure, spread over all."""


def synthetic(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All runs that are there, and those that the time allows."""
    begin, rows, missing = time.perf_counter(), list[dict[str, Any]](), list[str]()
    steps = QUICK_STEPS if arguments.quick else arguments.steps
    seeds = [0] if arguments.quick else list(range(arguments.seeds))
    for seed in seeds:
        for variant in arguments.variants:
            row = outcome(variant, seed, work, steps)
            late = time.perf_counter() - begin > 60 * arguments.minutes
            if row is None and (late or arguments.collect):
                missing.append(f"{variant}, seed {seed}")
                continue
            if row is None:
                row = train(variant, seed, work, steps)
                if not arguments.json:
                    print(json.dumps(row), flush=True)
            rows.append(row)
    found = summary(rows)
    if arguments.out and rows:
        synthetic_figure(rows, work, arguments.out / "blocks-synthetic.png")
    return {
        "steps": steps, "seeds": seeds, "missing": missing, "claims": claims(found), "variants": found,
        "published": {name: dict(zip(("blocks_of_10", "chamfer_mm", "psnr"), values, strict=True))
                      for name, values in PUBLISHED.items()},
        "runs": rows,
    }  # fmt: skip


def capture(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """The figures of one run on real pictures."""
    if not arguments.collect and not finished(arguments.run):
        trained(arguments)
    run = Run.open(arguments.run)
    scene, dataset = run.load_scene(), run.dataset()
    rows, held = run.split(dataset)
    data = run.config.data
    cache = ImageCache(dataset, downscale=data.downscale, bytes=parse_bytes(data.cache))
    background = stated_background(dataset, data.background) or (0.0, 0.0, 0.0)
    pictures = measured_pictures(scene, cache, rows, background)
    records = [record for record in run.metrics() if record["kind"] == "train"]
    camera = cache.get(rows[0]).camera
    if arguments.out:
        shown = [rows[place * len(rows) // SHOWN] for place in range(SHOWN)]
        columns = []
        for row in shown:
            view = cache.get(row).camera
            drawn = supersampled(hardened(scene), view, torch.tensor(background))
            grey = 0.35 + 0.65 * drawn.mean(dim=-1, keepdim=True).expand(-1, -1, 3)
            columns.append({"drawn": drawn.numpy(), "its blocks": flat_picture(scene, view, grey).numpy()})
        titles = [cache.get(row).camera.name for row in shown]
        capture_figure(columns, titles, arguments.out / f"blocks-{name}.jpg")
    cache.close()
    return {
        "data": dataset.root.name, "width": camera.width, "height": camera.height, "views": len(rows),
        "held_out": len(held), "steps": run.config.run.steps,
        "step": run.latest_step(), "batch": run.config.schedule.batch,
        "seed": run.config.run.seed, "blocks_layers": [layer.name for layer in block_layers(scene)],
        **counts(scene), **asdict(pictures),
        "cpu_seconds": records[-1]["cpu_seconds"] if records else None,
        "wall_seconds": records[-1]["wall_seconds"] if records else None,
        "loss": records[-1]["loss"] if records else None,
        **({"published": PUBLISHED_SCANS} if name == "dtu" else {}),
    }  # fmt: skip


def finished(folder: Path) -> bool:
    """Whether a run is there and has come to its end."""
    if not (folder / "config.yaml").is_file():
        return False
    run = Run.open(folder)
    return bool(run.steps()) and run.latest_step() >= run.config.run.steps


def trained(arguments: argparse.Namespace) -> None:
    """Start the run, or go on with it; SystemExit where it does not end well."""
    from smalti.cli.main import main as smalti

    if (arguments.run / "config.yaml").is_file():
        words = ["train", "--resume", str(arguments.run)]
    else:
        words = ["train", "blocks", "--data", str(arguments.data), "--out", str(arguments.run), "--data.split", "none"]
        words += [word for each in arguments.set for word in ("--set", each)]
    code = smalti(words)
    if code:
        raise SystemExit(code)
    if not finished(arguments.run):
        raise SystemExit(f"blocks: {arguments.run} is not at its end yet; give the same command again")


def reported(part: str, found: dict[str, Any], folder: Path | None) -> None:
    """Put the section of a part into `blocks.json`; the others stay."""
    if folder is None:
        return
    target = folder / "blocks.json"
    everything = json.loads(target.read_text()) if target.is_file() else {}
    everything[part] = found
    target.write_text(json.dumps(everything, indent=1) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="synthetic")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="one seed, a dozen steps: does it run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="for a look beyond the experiment")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further run after so many")
    parser.add_argument("--collect", action="store_true", help="report what is there, start nothing")
    parser.add_argument("--work", type=Path, help="where finished runs of the synthetic part are kept between calls")
    parser.add_argument("--data", type=Path, help="folder of the capture")
    parser.add_argument("--name", default="capture", help="what its section and its figure are called")
    parser.add_argument("--run", type=Path, help="the run to report, or to train first")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for its training")
    parser.add_argument("--out", type=Path, help="folder for blocks.json and the figures")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    set_threads(arguments.threads)
    part = arguments.part
    if part in ("dtu", "capture") and arguments.run is None:
        parser.error(f"--part {part} needs --run RUN (and --data, where it is to be trained)")
    with tempfile.TemporaryDirectory() as temporary:
        if part == "synthetic":
            found = synthetic(arguments, arguments.work or Path(temporary))
        elif part == "time":
            found = times(arguments.data, arguments.run, arguments.set, 2 if arguments.quick else 7)
        else:
            part = "dtu" if part == "dtu" else arguments.name
            found = capture(arguments, part)
    reported(part, found, arguments.out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Blocks World (Monnier et al. 2023) as the preset `blocks`: its published effects, and what real captures give.

    python bench/blocks.py --part synthetic --json --out docs/methods
    python bench/blocks.py --part dtu --data DTU_SCAN24 --set data.downscale=2 --run RUN --out docs/methods
    python bench/blocks.py --part perceptual --run RUN RUN --out docs/methods
    python bench/blocks.py --part capture --data FOX --name fox --run RUN --out docs/methods
    python bench/blocks.py --part time --data DTU_SCAN24

`synthetic`: three cuboids on a checker ground (`bench/blocks_scene.py`, `bench/blocks_synthetic.py`): the complete
method, its ablations and three weights of parsimony, three seeds each, 1,500 steps. Runs are kept in `--work` one by
one and not repeated while their configuration is the same; `--minutes` starts no further run after that time. Two more
variants, with LPIPS, are run where `--variants` names them.
`dtu`, `capture`: a finished run is reported; where `--run` is not there yet, it is trained (`smalti train blocks`, or
`--preset FILE`, with what `--set FIELD=VALUE` says), and continued where it was stopped; `--collect` reports it as it
stands. All views are trained on, as published. `dtu` has `--seeds` seeds, and shows the best by its training loss.
`perceptual`: finished runs with several perceptual terms, side by side.
`time`: processor milliseconds of a step by part.

Everything is written into `blocks.json` in `--out`, each part into its own section, with its figure beside it. Blocks
are those above one half; Chamfer is of the blocks alone, both ways (`smalti.testing.chamfer`); pictures are the
training views, drawn with hard edges and 4 x 4 samples per pixel; PSNR in both forms; LPIPS (VGG) where it is here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from blocks_captures import capture, compared
from blocks_figures import synthetic_figure
from blocks_synthetic import EVERY, PUBLISHED, STEPS, VARIANTS, claims, outcome, summary, train
from blocks_time import times

from smalti.renderers.engine import set_threads

QUICK_STEPS = 12
PARTS = ("synthetic", "dtu", "perceptual", "capture", "time")


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
        synthetic_figure(rows, work, arguments.out / f"blocks-{arguments.name or 'synthetic'}.png")
    return {
        "steps": steps, "seeds": seeds, "missing": missing, "claims": claims(found), "variants": found,
        "published": {name: dict(zip(("blocks_of_10", "chamfer_mm", "psnr"), values, strict=True))
                      for name, values in PUBLISHED.items()},
        "runs": rows,
    }  # fmt: skip


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
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(EVERY))
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further run after so many")
    parser.add_argument("--collect", action="store_true", help="report what is there, start nothing")
    parser.add_argument("--work", type=Path, help="where finished runs of the synthetic part are kept between calls")
    parser.add_argument("--data", type=Path, help="folder of the capture")
    parser.add_argument("--name", default="", help="what its section and its figure are called; by default as the part")
    parser.add_argument("--run", type=Path, nargs="+", help="the run (or folder of seeds) to report, or to train first")
    parser.add_argument("--preset", default="blocks", help="for its training: a preset or a file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for its training")
    parser.add_argument("--out", type=Path, help="folder for blocks.json and the figures")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    set_threads(arguments.threads)
    part = arguments.part
    if part in ("dtu", "perceptual", "capture") and arguments.run is None:
        parser.error(f"--part {part} needs --run RUN (and --data, where it is to be trained)")
    if part != "perceptual" and len(arguments.run or []) > 1:
        parser.error(f"--part {part} takes one --run; of several seeds, the folder that holds them")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)  # before any run, whose work would be lost
    with tempfile.TemporaryDirectory() as temporary:
        if part == "synthetic":
            found = synthetic(arguments, arguments.work or Path(temporary))
        elif part == "time":
            run = arguments.run[0] if arguments.run else None
            found = times(arguments.data, run, arguments.set, 2 if arguments.quick else 7)
        elif part == "perceptual":
            found = compared(arguments)
        else:
            found = capture(arguments, arguments.name or part)
    reported(arguments.name or part, found, arguments.out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Training on real captures: held-out PSNR against processor seconds, several seeds. `python bench/captures.py --json`.

Every job is one `smalti train` with the same preset; nothing is tuned to a capture. Jobs keep their run folders below
`--out`, so an interrupted benchmark goes on where it was, and the figures of finished jobs are read, not made again.
Processor seconds are of all threads and leave evaluation out. The prototype's compositor is timed beside each job.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("SMALTI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MARKS = (30, 60, 120, 276, 600, 1380)


@dataclass(frozen=True)
class Job:
    """One capture, how it is split, how long it is trained."""

    name: str
    data: str
    downscale: int
    split: str
    steps: int | None
    """None for the preset's own number."""
    seeds: tuple[int, ...] = (0,)
    options: dict[str, str] = field(default_factory=dict)


JOBS = (
    # The preset as it is, for all; one capture is also trained more than ten times longer, to see whether it spoils.
    Job("king-every8", "king_colmap", 2, "every:8", None, (0, 1, 2)),
    Job("fox", "fox", 4, "every:8", None, (0, 1, 2)),
    Job("chair", "chair_blender", 2, "auto", None),
    Job("king", "king_colmap", 2, "names:DSC_5290.jpg", 50_000),
)


def train(job: Job, seed: int, preset: str, folder: Path) -> list[dict[str, Any]]:
    """Run (or go on with) one job; returns the records of metrics.jsonl."""
    run = folder / f"{job.name}-{seed}"
    done = run / "finished.json"
    if not done.is_file():
        command = [
            sys.executable,
            "-c",
            "import sys; from smalti.cli.main import main; sys.exit(main(sys.argv[1:]))",
            "train",
        ]
        if (run / "checkpoints" / "latest").is_file():
            command += ["--resume", str(run)]
        else:
            options = {
                "data.downscale": job.downscale,
                "data.split": job.split,
                **({} if job.steps is None else {"run.steps": job.steps}),
                "run.seed": seed,
                "run.eval_at_cpu_seconds": json.dumps(MARKS),
                "run.checkpoint_every": 2500,
                "run.finish": "[evaluation, curves, sheet]",
                **job.options,
            }
            command += [preset, "--data", str(DATA / job.data), "--out", str(run)]
            command += [f"--set={key}={value}" for key, value in options.items()]
        subprocess.run(command, check=True, stdout=sys.stderr)
        done.write_text(json.dumps({"prototype": prototype_milliseconds()}))
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def prototype_milliseconds() -> dict[str, float]:
    """The yardstick's CPU milliseconds on this machine at this time."""
    from prototype import Prototype
    from timing import cpu_milliseconds

    prototype = Prototype()
    return cpu_milliseconds({"forward": prototype.forward, "backward": prototype.backward}, 5)


def summarise(job: Job, seed: int, records: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Curve and end of one run."""
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    curve = [
        {key: record.get(key) for key in ("mark_cpu_seconds", "cpu_seconds", "step", "psnr", "ssim", "primitives")}
        for record in evaluations
    ]
    last = evaluations[-1]
    row: dict[str, Any] = {
        "job": job.name,
        "seed": seed,
        "downscale": job.downscale,
        "split": job.split,
        "steps": last["step"],
        "curve": curve,
    }
    row |= {key: last[key] for key in ("psnr", "ssim", "primitives", "cpu_seconds")}
    row["wall_seconds"] = last.get("wall_seconds")
    row |= json.loads((folder / f"{job.name}-{seed}" / "finished.json").read_text())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--jobs", nargs="*", default=[job.name for job in JOBS], choices=[job.name for job in JOBS])
    parser.add_argument("--preset", default="gaussians-fast")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-captures"))
    parser.add_argument("--only-finished", action="store_true", help="train nothing, summarise what is there")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"captures not found at {DATA}; set SMALTI_TEST_DATA to their folder")
    result: dict[str, Any] = {"preset": arguments.preset, "runs": [], "spread": {}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for job in (job for job in JOBS if job.name in arguments.jobs):
        finals = []
        for seed in job.seeds:
            if arguments.only_finished and not (arguments.out / f"{job.name}-{seed}" / "finished.json").is_file():
                continue
            row = summarise(job, seed, train(job, seed, arguments.preset, arguments.out), arguments.out)
            result["runs"].append(row)
            finals.append(row["psnr"])
            (arguments.out / "captures.json").write_text(json.dumps(result, indent=2))
        if len(finals) > 1:
            result["spread"][job.name] = {
                "mean": statistics.mean(finals),
                "standard_deviation": statistics.stdev(finals),
            }
    (arguments.out / "captures.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()

"""Memory of training: the peak at 200 k Gaussians, and whether a byte budget holds. `python bench/memory.py --json`.

Each measurement is a process of its own; "over base" is its peak resident size less the resident size after
`import torch` and one small tensor operation.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MEGABYTE = 1e6


def resident_bytes() -> int:
    """Resident size of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def torch_base() -> int:
    """Resident size once torch is imported and has computed something."""
    import torch

    torch.ones(8).sum()
    return resident_bytes()


def training_peak(count: int, size: int) -> dict[str, Any]:
    """Ten whole training steps (render, loss, backward, Adam) of `count` Gaussians, SH degree 3, size x size pixels."""
    base = torch_base()
    from step import Step

    step = Step(count, size)
    for _ in range(10):
        step()
    parameters = sum(p.numel() * p.element_size() for p in step.layer.family.parameters.values())
    return {
        "gaussians": count,
        "pixels": size * size,
        "peak_over_base_MB": (peak_bytes() - base) / MEGABYTE,
        "base_MB": base / MEGABYTE,
        "parameters_MB": parameters / MEGABYTE,
    }


def budget_run(budget: str, steps: int) -> dict[str, Any]:
    """The demo set, growing as fast as it may, under a byte budget: what the program counts, what the process takes."""
    base = torch_base()
    from smalti.cli.main import main
    from smalti.configs.config import parse_bytes

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = {
            "density.budget": budget,
            "density.max_primitives": 10_000_000,
            "density.pixels_per_primitive": 0,
            "density.start": 20,
            "density.stop": steps,
            "density.every": 10,
            "mcmc.growth": 0.5,
            "schedule.resolution": "[]",
            "schedule.sh_every": 1,
            "run.steps": steps,
            "run.checkpoint_every": 0,
            "run.finish": "[]",
        }
        arguments = [f"--set={key}={value}" for key, value in options.items()]
        before = resident_bytes()
        code = main(["train", "gaussians-fast", "--data", "demo", "--out", str(run), *arguments])
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if code:
        raise SystemExit(f"training under a budget of {budget} ended with code {code}")
    training = [record for record in records if record["kind"] == "train"]
    counted, allowed = max(record["bytes"] for record in training), parse_bytes(budget)
    return {
        "budget_MB": allowed / MEGABYTE,
        "counted_peak_MB": counted / MEGABYTE,
        "counted_over_budget": counted / allowed,
        "primitives": training[-1]["primitives"],
        "refused_growth": training[-1]["refused_growth"],
        "peak_over_base_MB": (peak_bytes() - base) / MEGABYTE,
        "before_training_over_base_MB": (before - base) / MEGABYTE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--budget", default="256MB")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--child", choices=["peak", "budget"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        peak = arguments.child == "peak"
        row = training_peak(arguments.count, arguments.size) if peak else budget_run(arguments.budget, arguments.steps)
        print("RESULT " + json.dumps(row))
        return
    result: dict[str, Any] = {}
    for child in ("peak", "budget"):
        command = [sys.executable, *sys.argv, "--child", child]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if done.returncode or not lines:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        result[child] = json.loads(lines[0].removeprefix("RESULT "))
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()

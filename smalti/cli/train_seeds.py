"""`smalti train --seeds N`: the same run with several seeds at once, and which of them is the best."""

from __future__ import annotations

import sys
from pathlib import Path

from smalti.configs.config import TrainConfig
from smalti.trainers.seeds import Seeds


def start(path: Path, config: TrainConfig, count: int, jobs: int) -> int:
    """A new folder. Returns 0 where all came to a good end, 1 where one died or its scene is lost, 2 where none could
    begin, 130 where Ctrl-C saved and stopped them.
    """
    from smalti.trainers.plans import require_known_names

    require_known_names(config)  # once, before any process is started
    return _conduct(Seeds.create(path, config, count), jobs)


def go_on(path: Path, jobs: int) -> int:
    """All that are not finished, from where they stand."""
    return _conduct(Seeds.open(path), jobs)


def _conduct(seeds: Seeds, jobs: int) -> int:
    from smalti.trainers.seed_board import make_board
    from smalti.trainers.seed_processes import Conductor, sensible_jobs

    open_seeds = [each for each in seeds.seeds if not each.is_done]
    if open_seeds:
        at_once, threads = sensible_jobs(len(open_seeds), seeds.config.run.device, jobs)
        named = ", ".join(str(each.seed) for each in open_seeds)
        shared = f"{at_once} at a time, {threads} engine thread{'s' if threads > 1 else ''} each"
        print(f"training {seeds.path} with the seeds {named}: {shared}", flush=True)
        interrupted = Conductor(seeds, at_once, threads, make_board(seeds.seeds, str(seeds.path))).run()
    else:
        interrupted = False
    if not seeds.anything_began:
        told = list(dict.fromkeys(each.message for each in seeds.seeds if each.message))
        seeds.remove()
        told = told or ["interrupted before any of the seeds had begun; nothing of it is kept"]
        print("\n".join(f"smalti: {text}" for text in told), file=sys.stderr)
        return 130 if interrupted else 2
    for line in seeds.table():
        print(line)
    resume_line = f"continue with: smalti train --resume {seeds.path}"
    if seeds.best is not None:
        print(f"best: {seeds.run_path(seeds.best)}; smalti view, eval, render and export {seeds.path} use it")
    if interrupted:
        print(f"saved; {resume_line}")
        return 130
    if any(each.status == "failed" for each in seeds.seeds):
        print(f"smalti: not all seeds came to their end; {resume_line}", file=sys.stderr)
    return 1 if any(each.status in ("failed", "lost") for each in seeds.seeds) else 0

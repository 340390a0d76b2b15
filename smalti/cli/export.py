"""`smalti export RUN FILE`: writes a trained scene as a file for other programs, in the input's frame."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from smalti.cli.failures import UsageError, reported
from smalti.cli.runs import add_run_arguments


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="smalti export", description="Write a trained scene for other programs.")
    add_run_arguments(result, drawing=False)
    result.add_argument("out", metavar="FILE", type=Path, help="scene file; its extension decides the format (.ply)")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Writes the file and says what is in it. Returns 0, or 2 where it cannot be written."""
    from smalti.scene.exchange import export_scene
    from smalti.trainers.run import Run

    arguments = parser().parse_args(argv)
    if not arguments.out.suffix:
        raise UsageError(f"{arguments.out}: the extension decides the format; write for example {arguments.out}.ply")
    run = Run.open(arguments.run)
    scene = run.load_scene(arguments.step)
    try:
        done = export_scene(scene, arguments.out)
    except ValueError as error:
        raise UsageError(str(error)) from error
    data = done.metadata
    filtered = f"filter variance {data.filter_variance:g}{', compensated' if data.compensated else ''}"
    print(
        f"{done.path}: {done.primitives:,} primitives, {done.bytes / 1e6:.1f} MB, degree {data.sh_degree}, {filtered}"
    )
    return 0

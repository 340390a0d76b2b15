"""`smalti export RUN FILE`: writes a trained scene as a file for other programs, in the input's frame."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported
from smalti.cli.runs import add_run_arguments
from smalti.files import FORMATS

if TYPE_CHECKING:
    from smalti.scene.scene import Scene


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    known = ", ".join(extension for extension, row in FORMATS.items() if row.writer)
    result = argparse.ArgumentParser(prog="smalti export", description="Write a trained scene for other programs.")
    add_run_arguments(result, drawing=False)
    result.add_argument(
        "out",
        metavar="FILE",
        type=Path,
        help=f"scene file, its extension decides the format ({known}, .smalti for every layer of any family); without "
        "one, a scene folder",
    )
    result.add_argument("--layers", metavar="A,B", help="only these layers of a scene of several (scene files)")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Writes the file and says what is in it. Returns 0, or 2 where it cannot be written."""
    from smalti.scene.exchange import export_scene
    from smalti.scene.single_file import is_scene_file
    from smalti.trainers.run import Run

    arguments = parser().parse_args(argv)
    run = Run.open(arguments.run)
    scene = run.load_scene(arguments.step)
    if not arguments.out.suffix or is_scene_file(arguments.out):
        return _whole(scene, arguments)
    try:
        done = export_scene(scene, arguments.out, arguments.layers.split(",") if arguments.layers else None)
    except ValueError as error:
        raise UsageError(str(error)) from error
    data = done.metadata
    filtered = f"filter variance {data.filter_variance:g}{', compensated' if data.compensated else ''}"
    print(
        f"{done.path}: {done.primitives:,} primitives, {done.bytes / 1e6:.1f} MB, degree {data.sh_degree}, {filtered}"
    )
    for notice in done.notices:
        print(f"  note: {notice}")
    return 0


def _whole(scene: Scene, arguments: argparse.Namespace) -> int:
    from smalti.scene.folder import save_scene

    if arguments.layers:
        raise UsageError("--layers: a scene folder holds all layers; for some of them name a scene file, such as .ply")
    folder = not arguments.out.suffix
    if folder and arguments.out.is_file():
        raise UsageError(f"{arguments.out} is a file; without an extension a scene folder is written")
    size = save_scene(scene, arguments.out)
    layers = ", ".join(f"{name} {count:,}" for name, count in scene.counts().items())
    form = "scene folder" if folder else "scene file"
    print(f"{arguments.out}: {form}, {len(scene):,} primitives ({layers}), {size / 1e6:.1f} MB")
    return 0

"""`smalti convert IN OUT`: reads a scene file of Gaussians in any format and writes it in another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported
from smalti.files import FORMATS

if TYPE_CHECKING:
    from smalti.cameras.similarity import Similarity


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    readers = ", ".join(extension for extension, row in FORMATS.items() if row.reader)
    writers = ", ".join(extension for extension, row in FORMATS.items() if row.writer)
    result = argparse.ArgumentParser(prog="smalti convert", description="Convert a scene file of Gaussians.")
    result.add_argument("source", metavar="IN", type=Path, help=f"file to read ({readers})")
    result.add_argument("out", metavar="OUT", type=Path, help=f"file to write ({writers})")
    result.add_argument(
        "--axes",
        metavar="X,Y,Z",
        default="x,y,z",
        help="which axes of the input become x, y and z, with signs, such as x,-z,y; on top of what the formats mean "
        "by their own (docs/scene-files.md). Write --axes=-x,... where a sign comes first",
    )
    result.add_argument(
        "--scale", type=float, default=1.0, help="units of the output per unit of the input (default: 1)"
    )
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Converts and says what the format could not hold. Returns 0, or 2 where it cannot be done."""
    from smalti.files import read_scene_file, write_scene_file
    from smalti.files.splats import similarity_transform

    arguments = parser().parse_args(argv)
    if not arguments.source.exists():
        raise UsageError(f"{arguments.source}: there is no such file")
    if arguments.out.exists() and arguments.out.samefile(arguments.source):
        raise UsageError(f"{arguments.out} is the input itself; choose another name")
    move = turned(arguments.axes, arguments.scale)
    splats = read_scene_file(arguments.source)
    notices = (*splats.notices, *write_scene_file(arguments.out, splats, similarity_transform(move)))
    size = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {len(splats):,} Gaussians, degree {splats.sh_degree}, {size:.1f} MB")
    for notice in notices:
        print(f"  note: {notice}")
    return 0


def turned(axes: str, scale: float) -> Similarity:
    """The similarity that `--axes` and `--scale` name; UsageError for anything but one of the 24 rotations."""
    import torch

    from smalti.cameras.similarity import Similarity

    rotation = torch.zeros(3, 3, dtype=torch.float64)
    words = [word.strip().lower() for word in axes.split(",")]
    if len(words) != 3 or any(word.lstrip("+-") not in ("x", "y", "z") or len(word) > 2 for word in words):
        raise UsageError(f"--axes {axes}: expected three of x, y and z with signs, such as x,-z,y")
    for row, word in enumerate(words):
        rotation[row, "xyz".index(word[-1])] = -1.0 if word[0] == "-" else 1.0
    determinant = float(torch.linalg.det(rotation))
    if determinant != 1.0:
        why = "it names an axis twice" if determinant == 0 else "it mirrors, which rotations of Gaussians cannot follow"
        raise UsageError(f"--axes {axes}: {why}; change a sign or two axes")
    if not 0 < scale < float("inf"):
        raise UsageError(f"--scale {scale}: expected a positive number")
    return Similarity(scale, rotation)

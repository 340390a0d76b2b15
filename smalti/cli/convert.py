"""`smalti convert IN OUT`: reads a scene, splat or mesh file in any format and writes it in another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported
from smalti.files import FORMATS, extension_of
from smalti.files.frames import FRAMES

if TYPE_CHECKING:
    from smalti.cameras.similarity import Similarity


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    readers = ", ".join(extension for extension, row in FORMATS.items() if row.reader)
    writers = ", ".join(extension for extension, row in FORMATS.items() if row.writer)
    more = ".obj, .json, .smalti"
    result = argparse.ArgumentParser(prog="smalti convert", description="Convert a file of splats, meshes or blocks.")
    result.add_argument("source", metavar="IN", type=Path, help=f"file to read ({readers}, {more}), or a scene folder")
    result.add_argument(
        "out", metavar="OUT", type=Path, help=f"file to write ({writers}, {more}); without an extension a scene folder"
    )
    for word, other in (("from", "the input"), ("to", "the output")):
        result.add_argument(
            f"--{word}",
            dest=f"{word}_frame",
            choices=tuple(FRAMES),
            help=f"axes of {other}, where they are not the format's usual ones: scene is right, down, forward (most), "
            "gltf +Y up (.glb), spz right, up, back (.spz), z-up (.json)",
        )
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
    result.add_argument("--layers", metavar="A,B", help="only these layers of a scene of several")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Converts and says what the format could not hold. Returns 0, or 2 where it cannot be done."""
    arguments = parser().parse_args(argv)
    source, out = arguments.source, arguments.out
    if not source.exists():
        raise UsageError(f"{source}: there is no such file")
    if out.exists() and out.samefile(source):
        raise UsageError(f"{out} is the input itself; choose another name")
    move = turned(arguments.axes, arguments.scale)
    names = arguments.layers.split(",") if arguments.layers else None
    if names is None and _streams(source, out):
        return _splats(arguments, move)
    from smalti.cli.export import save, show
    from smalti.scene.exchange import export_scene
    from smalti.scene.open_file import open_scene

    opened = open_scene(source, arguments.from_frame)
    for notice in opened.notices:
        print(f"  note: {notice}")
    scene = opened.scene
    if not move.is_identity:
        scene.turn_canonical(move)
        for layer in scene:
            layer.similarity = move @ layer.similarity
    if not out.suffix or out.suffix.lower() == ".smalti":
        return save(scene.flattened(), out, names, arguments.to_frame)
    try:
        show(export_scene(scene, out, names, arguments.to_frame))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return 0


def _streams(source: Path, out: Path) -> bool:
    """Whether splats go to a file of splats, chunk by chunk and without a scene between."""
    from smalti.files.contents import SPLATS, contents_of
    from smalti.scene.open_file import is_scene

    if is_scene(source) or extension_of(out) is None:
        return False
    return source.is_dir() or contents_of(source) == frozenset({SPLATS})


def _splats(arguments: argparse.Namespace, move: Similarity) -> int:
    from smalti.files import read_scene_file, write_scene_file
    from smalti.files.frames import reframing
    from smalti.files.splats import similarity_transform

    source, out = arguments.source, arguments.out
    whole = reframing(out, arguments.to_frame, writing=True) @ move @ reframing(source, arguments.from_frame)
    splats = read_scene_file(source)
    notices = (*splats.notices, *write_scene_file(out, splats, similarity_transform(whole)))
    size = out.stat().st_size / 1e6
    print(f"{out}: {len(splats):,} Gaussians, degree {splats.sh_degree}, {size:.1f} MB")
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

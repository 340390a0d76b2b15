"""`smalti export RUN FILE`: writes a trained scene as a file for other programs, in the input's frame."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported
from smalti.cli.runs import add_run_arguments
from smalti.files import FORMATS
from smalti.files.frames import FRAMES

if TYPE_CHECKING:
    from smalti.scene.exchange import Exported
    from smalti.scene.scene import Scene


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    known = ", ".join([*(extension for extension, row in FORMATS.items() if row.writer), ".obj", ".json", ".smalti"])
    result = argparse.ArgumentParser(prog="smalti export", description="Write a trained scene for other programs.")
    add_run_arguments(result, drawing=False)
    result.add_argument(
        "out",
        metavar="FILE",
        type=Path,
        nargs="?",
        help=f"scene file, its extension decides the format ({known}; .smalti holds every layer of any family); "
        "without one, a scene folder",
    )
    result.add_argument("--out", dest="out_too", metavar="FILE", type=Path, help="the same as FILE")
    result.add_argument(
        "--frame",
        choices=tuple(FRAMES),
        help="axes of the file where they are not to be the format's usual ones: scene is right, down, forward",
    )
    result.add_argument(
        "--upright",
        action="store_true",
        help="in the canonical frame that --align found (standing, centred, of size one) instead of the input's",
    )
    result.add_argument("--layers", metavar="A,B", help="only these layers of a scene of several")
    result.add_argument(
        "--parts",
        action="store_true",
        help="into the folder FILE: a closed, textured mesh of each separate part (block) of the scene as .glb, "
        "parts.glb with all of them, and assembly.json; RUN may be a scene then",
    )
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Writes the file and says what is in it. Returns 0, or 2 where it cannot be written."""
    from smalti.scene.exchange import export_scene
    from smalti.trainers.run import Run

    arguments = parser().parse_args(argv)
    out: Path | None = arguments.out or arguments.out_too
    if out is None or (arguments.out and arguments.out_too):
        raise UsageError("say once where to write to: smalti export RUN FILE")
    if arguments.parts and out.suffix:
        raise UsageError(f"--parts writes several files: give a folder, not {out}")
    names = arguments.layers.split(",") if arguments.layers else None
    if arguments.parts:
        return save_parts(_placed(read_scene(arguments), arguments), out, names, arguments.frame)
    scene = _placed(Run.open(arguments.run).load_scene(arguments.step), arguments)
    if not out.suffix or out.suffix.lower() == ".smalti":
        return save(scene, out, names, arguments.frame)
    try:
        done = export_scene(scene, out, names, arguments.frame)
    except ValueError as error:
        raise UsageError(str(error)) from error
    show(done)
    return 0


def read_scene(arguments: argparse.Namespace) -> Scene:
    """The scene of a run folder, or another that `smalti view` shows."""
    from smalti.cli.runs import is_run
    from smalti.scene.open_file import open_scene
    from smalti.trainers.run import Run

    if is_run(Path(arguments.run)):
        return Run.open(arguments.run).load_scene(arguments.step)
    if arguments.step is not None:
        raise UsageError(f"--step is for run folders; {arguments.run} is none")
    return open_scene(Path(arguments.run)).scene


def _placed(scene: Scene, arguments: argparse.Namespace) -> Scene:
    """In the frame that is asked for."""
    if not arguments.upright:
        return scene
    if scene.canonical_from_scene is None:
        raise UsageError(f"--upright: {arguments.run} knows no canonical frame; train it with --align auto")
    return scene.upright().flattened()


def save_parts(scene: Scene, out: Path, names: Sequence[str] | None, frame: str | None) -> int:
    """Writes the separate parts of some layers or of all visible ones as files. UsageError where there are none."""
    from smalti.scene.exchange import chosen_layers
    from smalti.scene.exchange_parts import export_parts

    if out.is_file():
        raise UsageError(f"{out} is a file; --parts writes into a folder")
    try:
        chosen = [layer.name for layer in chosen_layers(scene, names)]
        scene.layers = {name: layer for name, layer in scene.layers.items() if name in chosen}
        done = export_parts(scene, out, frame=frame)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(done)
    for notice in done.notices:
        print(f"  note: {notice}")
    return 0


def show(done: Exported) -> None:
    """Says what an export wrote, and what it could not."""
    parts = [f"{done.primitives:,} primitives", f"{done.bytes / 1e6:.1f} MB"]
    if done.faces:
        parts.append(f"{done.faces:,} triangles")
    if done.metadata is not None:
        filtered = f"filter variance {done.metadata.filter_variance:g}"
        parts += [
            f"degree {done.metadata.sh_degree}",
            filtered + (", compensated" if done.metadata.compensated else ""),
        ]
    print(f"{done.path}: {', '.join(parts)}")
    for notice in done.notices:
        print(f"  note: {notice}")


def save(scene: Scene, out: Path, names: Sequence[str] | None = None, frame: str | None = None) -> int:
    """Writes a scene folder or a `.smalti` file, of some layers or of all, hidden ones too. UsageError where it cannot
    be.
    """
    kind = "scene file" if out.suffix else "scene folder"
    if frame not in (None, "scene"):
        raise UsageError(f"--frame {frame}: a {kind} has the scene's axes; to turn it: smalti convert --axes")
    if not out.suffix and out.is_file():
        raise UsageError(f"{out} is a file; without an extension a scene folder is written")
    unknown = [name for name in names or () if name not in scene.layers]
    if unknown:
        raise UsageError(f"--layers: there is no layer {unknown[0]!r}; there are {', '.join(scene.layers)}")
    if names is not None:
        scene.layers = {name: layer for name, layer in scene.layers.items() if name in names}
    size = scene.save(out)
    layers = ", ".join(f"{name} {count:,}" for name, count in scene.counts().items())
    print(f"{out}: {kind}, {len(scene):,} primitives ({layers}), {size / 1e6:.1f} MB")
    return 0

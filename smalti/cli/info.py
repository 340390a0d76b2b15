"""`smalti info FILE`: what a file of splats, meshes or blocks, a scene, or a run holds, column by column."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smalti.cli.failures import UsageError, reported

if TYPE_CHECKING:
    from smalti.files.splats import Splats
    from smalti.scene.scene import Scene

STATISTICS = ("minimum", "median", "mean", "maximum", "deviation")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="smalti info", description="Say what a scene file, a scene folder or a run holds."
    )
    result.add_argument(
        "path",
        metavar="FILE",
        type=Path,
        help="scene file of any format that is read, scene folder, or run folder; of one of several seeds how each "
        "fared, and the best",
    )
    result.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Prints the figures. Returns 0, or 2 where the file cannot be read."""
    from smalti.trainers.seeds import Seeds, is_seeds

    arguments = parser().parse_args(argv)
    path: Path = arguments.path
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if not is_seeds(path):
        told, found = list[str](), described(path)
    else:
        seeds = Seeds.open(path)
        told, found = list(seeds.table()), {"path": str(path), **seeds.to_json()}
        if seeds.best is not None:
            found |= described(seeds.run_path(seeds.best))
        else:
            told.append(f"none of them has come to its end; continue with: smalti train --resume {path}")
    if arguments.json:
        print(json.dumps(_plain(found), allow_nan=False))
        return 0
    for line in told:
        print(line)
    if "format" in found:
        show(Path(found["path"]), found)
    return 0


def described(path: Path) -> dict[str, Any]:
    """The figures of a file, a scene folder, or the latest scene of a run."""
    from smalti.cli.runs import is_run
    from smalti.scene.open_file import open_scene
    from smalti.trainers.checkpoints import checkpoint_path, read_scene

    found: dict[str, Any] = {"path": str(path)}
    if is_run(path) and (path / "config.yaml").is_file():
        latest = checkpoint_path(path)  # no more is asked of a run, so that it may be of any version
        scene = read_scene(latest)
        held = sum(layer.family.bytes for layer in scene)
        return {**found, "format": f"run, step {int(latest.name)}", "bytes": held, **of_scene(scene), "notices": []}
    opened = open_scene(path)
    found |= {"format": opened.title, "bytes": size_of(path)}
    if opened.splats is not None:
        return {**found, **of_splats(opened.splats)}
    return {**found, **of_scene(opened.scene), "notices": list(opened.notices)}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def columns_of(name: str, values: np.ndarray[Any, Any]) -> dict[str, dict[str, float]]:
    """Statistics of every column of [n, ...] numbers, by name and place."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    found: dict[str, dict[str, float]] = {}
    for k in range(flat.shape[1] if len(flat) else 0):
        column = flat[:, k]
        with np.errstate(invalid="ignore"):  # a column with infinities has no deviation
            numbers = (column.min(), np.median(column), column.mean(), column.max(), column.std())
        found[name if flat.shape[1] == 1 else f"{name}[{k}]"] = dict(zip(STATISTICS, map(float, numbers), strict=True))
    return found


def of_splats(splats: Splats) -> dict[str, Any]:
    """Count, degree, metadata and statistics of a file of Gaussians."""
    from smalti.files.splats import PARAMETERS

    columns: dict[str, dict[str, float]] = {}
    for name in PARAMETERS:
        columns |= columns_of(name, getattr(splats, name))
    metadata = {**asdict(splats.metadata), "sh_degree": splats.sh_degree}
    return {"primitives": len(splats), "metadata": metadata, "notices": list(splats.notices), "columns": columns}


def of_scene(scene: Scene) -> dict[str, Any]:
    """Layers of a scene folder, with the statistics of their parameters."""
    layers: list[dict[str, Any]] = []
    for layer in scene:
        columns: dict[str, dict[str, float]] = {}
        for name, values in layer.family.parameters.items():
            columns |= columns_of(name, values.detach().cpu().numpy()) if values[:1].numel() <= 45 else {}
        shapes = {name: list(values.shape) for name, values in layer.family.parameters.items()}
        shapes |= {name: list(values.shape) for name, values in layer.family.constants.items()}
        row: dict[str, Any] = {"name": layer.name, "family": layer.family.name, "primitives": len(layer.family)}
        layers.append({**row, "visible": layer.visible, "locked": layer.locked, "shapes": shapes, "columns": columns})
    return {"primitives": len(scene), "order": scene.order, "layers": layers}


def show(path: Path, found: Mapping[str, Any]) -> None:
    """The figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    size = f", {found['bytes'] / 1e6:.1f} MB" if "bytes" in found else ""
    console.print(
        f"{path}: {found['format']}, {found['primitives']:,} primitives{size}", highlight=False, soft_wrap=True
    )
    for name, value in found.get("metadata", {"order": found.get("order")}).items():
        console.print(f"  {name}: {value}", highlight=False, soft_wrap=True)
    for notice in found.get("notices", ()):
        console.print(f"  note: {notice}", highlight=False, soft_wrap=True)
    for part in found.get("layers", [found]):
        title = f"{part['name']}: {part['family']}, {part['primitives']:,}" if "name" in part else None
        table = Table(title=title)
        table.add_column("column", no_wrap=True)
        for key in STATISTICS:
            table.add_column(key, justify="right", no_wrap=True)
        for name, column in part["columns"].items():
            table.add_row(name, *(f"{column[key]:.4g}" for key in STATISTICS))
        console.print(table)
        for name, shape in part.get("shapes", {}).items():
            if name not in part["columns"] and f"{name}[0]" not in part["columns"]:
                console.print(f"  {name}: {' x '.join(map(str, shape))}", highlight=False)

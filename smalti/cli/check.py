"""`smalti check DATA`: examines a data set before any training, prints what it found and draws the cameras."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from smalti.datasets.check import CheckReport
    from smalti.datasets.checking.report import ErrorFigures
    from smalti.datasets.dataset import DatasetError


HULL_POINTS = 4000
"""Fewer than training samples of a visual hull: enough to find the frame by, and sooner there."""
STATED = ("up", "centre", "radius", "ground")
"""Parts of the canonical frame that can be stated."""
RUNS = Path("runs")
"""Where `smalti train` puts its runs too: nothing else is left in the current folder."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="smalti check", description="Examine a data set before any training.")
    result.add_argument("data", metavar="DATA", help="folder or file of the capture, or `demo`")
    result.add_argument(
        "--format", "--data-format", default="auto", help="format of the data where it cannot be told (default: auto)"
    )
    result.add_argument(
        "--json", action="store_true", help="print one JSON object with every figure instead of the table"
    )
    result.add_argument("--out", type=Path, metavar="PNG", help="overview picture (default: runs/check_<name>.png)")
    result.add_argument("--no-overview", action="store_true", help="draw no picture")
    result.add_argument(
        "--features",
        choices=("auto", "always", "never"),
        default="auto",
        help="match features between neighbours: auto = where the file has no points with sightings",
    )
    result.add_argument(
        "--views", type=int, default=400, metavar="N", help="match features in at most N views, 0 = all (default: 400)"
    )
    world = result.add_argument_group(
        "canonical frame", "with --world that alone is found, told and drawn, as training with --align auto would"
    )
    world.add_argument("--world", type=Path, metavar="PNG", help="picture of it: from above, the front and the side")
    world.add_argument("--up", help="states up: an axis of the input (z, -y) or three numbers (0,-0.4,-0.9)")
    world.add_argument("--centre", metavar="X,Y,Z", help="states the origin")
    world.add_argument("--radius", metavar="R", help="states half the cube's side, in the input's unit")
    world.add_argument(
        "--ground", metavar="Y|none", help="states the ground's height in the frame, or that it has none"
    )
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Runs the check. Returns 0 (also with warnings) or 2 for bad data."""
    arguments = parser().parse_args(with_values_joined(argv))
    if arguments.world is not None:
        return _show_world(arguments)
    stated = [name for name in STATED if getattr(arguments, name) is not None]
    if stated:
        raise UsageError(f"--{stated[0]} goes with --world OUT.png, which finds and draws the canonical frame")
    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise UsageError(f"--out {arguments.out}: the overview is a PNG picture; give a name that ends in .png")
    if arguments.views < 0:
        raise UsageError(f"--views {arguments.views}: expected a number of views, or 0 for all")
    from rich.console import Console

    from smalti.datasets.check import CheckOptions, check_dataset
    from smalti.datasets.dataset import DatasetError
    from smalti.datasets.open import open_dataset

    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)  # what cannot be is said now, not after the work
    console = Console(highlight=False, soft_wrap=False)
    try:
        dataset = open_dataset(arguments.data, format=arguments.format)
        name = Path(dataset.root).stem if Path(dataset.root).is_file() else Path(dataset.root).resolve().name
        picture = None if arguments.no_overview else arguments.out or RUNS / f"check_{name}.png"
        options = CheckOptions(arguments.features, arguments.views, picture)
        with Console(stderr=True).status("reading") as status:
            report = check_dataset(dataset, options, lambda part: status.update(part))
    except DatasetError as error:
        if arguments.json:
            print(json.dumps(_error(error)))
        raise
    if arguments.json:
        print(json.dumps(report.to_json(), allow_nan=False))
    else:
        show(report, console)
    for problem in report.problems:
        print(f"smalti: {problem}", file=sys.stderr)
    return report.exit_code


def with_values_joined(argv: Sequence[str]) -> list[str]:
    """`--up -y` as `--up=-y`: a value may begin with a dash."""
    words, result = list(argv), list[str]()
    while words:
        word = words.pop(0)
        result.append(f"{word}={words.pop(0)}" if word in [f"--{name}" for name in STATED] and words else word)
    return result


def _show_world(arguments: argparse.Namespace) -> int:
    """Finds the canonical frame as training would, prints and draws it."""
    from smalti.configs.resolve import ConfigError, parse_value, resolve
    from smalti.datasets.open import open_dataset
    from smalti.trainers.alignment import found_alignment

    if arguments.world.suffix.lower() != ".png":
        raise UsageError(f"--world {arguments.world}: it is a PNG picture; give a name that ends in .png")
    given = {name: getattr(arguments, name) for name in STATED}
    values = {f"data.{name}": parse_value(text) for name, text in given.items() if text is not None}
    if isinstance(values.get("data.centre"), str):
        values["data.centre"] = [parse_value(part) for part in values["data.centre"].split(",")]
    try:
        config = resolve("", {"data.align": "auto", "data.sampled_points": HULL_POINTS, **values})
        dataset = open_dataset(arguments.data, format=arguments.format)
        alignment = found_alignment(config, dataset)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if arguments.json:
        print(json.dumps(alignment.world.to_plain(), allow_nan=False))
    else:
        print("\n".join(alignment.lines()))
    alignment.draw(arguments.world, str(arguments.data))
    if not arguments.json:
        print(f"picture: {arguments.world.resolve()}")
    return 0


def show(report: CheckReport, console: Console) -> None:
    """Prints the report as a short table and its warnings below."""
    from rich.markup import escape

    console.print(_table(report))
    for note in report.notes:
        console.print(f"note [bold]{note.code}[/]: {escape(note.text)}")
    for warning in report.warnings:
        console.print(f"[yellow]warning[/] [bold]{warning.code}[/]: {escape(warning.text)}")
    for problem in report.problems:
        console.print(f"[red]problem[/] [bold]{problem.code}[/]: {escape(str(problem))}")
    if report.overview is not None:
        console.print(f"overview: {escape(str(Path(report.overview).resolve()))}", soft_wrap=True)
    if report.problems:
        console.print("[red]Not fit for training.[/]")
    else:
        untested = report.reprojection is None and report.epipolar is None
        verdict = "Fit for training" + (" as far as could be seen (the poses were not tested)" if untested else "")
        read = "; read the warnings first" if report.warnings else ""
        console.print(f"{verdict}{read}." if untested or read else f"[green]{verdict}.[/]")


def _table(report: CheckReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(f"{report.name} ({report.format})"),
        show_header=False,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _lines(report):
        table.add_row(name, escape(value))
    return table


def _lines(report: CheckReport) -> list[tuple[str, str]]:
    scale = report.scale
    unit = " m" if scale.unit == "metres" else ""
    lines = [
        ("pictures", f"{report.images_found} found, {report.images_missing} missing"),
        ("sizes", _counted(report.sizes)),
        (
            "cameras",
            f"{report.cameras} ({_counted(report.models)}), fx {report.focal[0]:.1f} to {report.focal[1]:.1f} px",
        ),
    ]
    if report.splits:
        lines.append(("splits", _counted(report.splits)))
    if report.times.count > 1:
        span = f"{report.times.first:g} to {report.times.last:g}"
        lines.append(
            ("times", f"{report.times.count} instants ({span}), {report.times.views_per_instant:.4g} views each")
        )
    lines.append(
        (
            "scale",
            f"cameras span {scale.camera_extent:.4g}{unit}, scene {scale.scene_extent:.4g}{unit}, "
            f"distance {scale.camera_distance:.4g}{unit}" + ("" if unit else " (arbitrary unit)"),
        )
    )
    lines.append(("points", "none" if report.points is None else f"{report.points:,}"))
    if report.reprojection is not None:
        figures = report.reprojection
        text = f"median {figures.median:.3f} px, p95 {figures.p95:.2f} px, {figures.sightings:,} sightings"
        lines.append(("reprojection", text + _worst(figures)))
    if report.behind is not None:
        lines.append(("behind cameras", f"{report.behind:.2%} of the sightings"))
    if report.epipolar is not None:
        figures = report.epipolar
        text = f"median {figures.median:.3f} px, p95 {figures.p95:.2f} px at 1000 px width, {figures.pairs} pairs"
        lines.append(("epipolar", text + _worst(figures)))
    if report.epipolar_note and (report.reprojection is None or report.epipolar is not None):
        lines.append(("" if report.epipolar else "epipolar", report.epipolar_note))
    if report.masks or report.alpha:
        lines.append(("foreground", f"{report.masks} mask files, {report.alpha} pictures with alpha"))
    if report.exposure is not None:
        exposure = report.exposure
        lines.append(("brightness", f"{exposure.darkest_stops:+.2f} to {exposure.brightest_stops:+.2f} stops"))
    return lines


def _worst(figures: ErrorFigures) -> str:
    name = max(figures.per_view, key=lambda view: figures.per_view[view])
    return f", worst {Path(name).name or name} {figures.per_view[name]:.2f}"


def _counted(counts: dict[str, int], limit: int = 3) -> str:
    items = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} x{count}" for name, count in items[:limit])
    return text + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _error(error: DatasetError) -> dict[str, object]:
    entry = {"file": error.file, "record": error.record, "problem": error.problem, "remedy": error.remedy}
    return {"exit_code": 2, "problems": [{"code": "unreadable", **entry}]}

"""What converting costs: every pair of families with its image error, on the spot mesh (with its texture) and blocks.

    python bench/conversions.py [--mesh FILE] [--json docs/conversions.json] [--picture docs/conversions.png]

Errors are measured from 12 held-out cameras of 160 x 160 pixels around the object, on black (`ImageError`). trimesh
reads the mesh; without a file blocks alone are converted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.primitives.family import Family, find_family
from smalti.scene.conversions import cameras_around, convert
from smalti.scene.conversions.sources import draw, extent

MESH = Path(__file__).resolve().parents[2] / "shared" / "data" / "meshes" / "spot" / "spot.obj"
VIEW = 5
"""Of the cameras around, the one in the picture."""


def blocks() -> Family:
    """Six textured blocks of different shapes."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(6, 3, generator=generator) * 1.6 - 0.8
    made = find_family("superquadrics").from_points(
        points, torch.rand(6, 3, generator=generator), {"texture_size": 32, "level": 3, "edges": "antialiased"}
    )
    made.replace(
        {
            "raw_exponents": 2 * torch.randn(6, 2, generator=generator),
            "rotations": torch.randn(6, 6, generator=generator),
            "logit_opacities": torch.full((6,), 12.0),
            "raw_textures": made.parameters["raw_textures"].detach()
            + torch.nn.functional.interpolate(
                2 * torch.randn(6, 3, 5, 8, generator=generator), (32, 32), mode="bilinear"
            ).permute(0, 2, 3, 1),
        }
    )
    return made


JOBS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("blocks", "meshes", {}, ""),
    ("blocks", "gaussians", {}, ""),
    ("blocks", "boxes", {}, ""),
    ("mesh", "gaussians", {}, ""),
    ("mesh", "gaussians", {"steps": 100}, "gaussians"),
    ("mesh", "ray_gaussians", {}, ""),
    ("mesh", "surfels", {}, "surfels"),
    ("mesh", "boxes", {"steps": 0}, ""),
    ("mesh", "boxes", {}, "boxes"),
    ("gaussians", "surfels", {}, ""),
    ("gaussians", "surfels", {"steps": 60}, ""),
    ("gaussians", "meshes", {}, ""),
    ("gaussians", "boxes", {}, ""),
    ("surfels", "gaussians", {}, ""),
    ("surfels", "meshes", {}, ""),
    ("boxes", "meshes", {}, ""),
    ("boxes", "surfels", {}, ""),
)
"""(source, target, settings, what later rows call the result)."""


def measured(mesh: Path | None) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """Rows of the table, and of each the original beside the converted."""
    sources: dict[str, Family] = {"blocks": blocks()}
    if mesh is not None:
        from smalti.files.mesh_files import meshes_from_file

        sources["mesh"] = meshes_from_file(mesh)
    rows, shown = [], []
    for name, kind, settings, kept in JOBS:
        if name not in sources:
            continue
        source = sources[name]
        start = time.perf_counter()
        done = convert(source, kind, **settings)
        seconds = time.perf_counter() - start
        if kept:
            sources[kept] = done.family
        row = {"from": name, "to": kind, "settings": settings, "route": done.route, "seconds": round(seconds, 1)}
        row |= {"before": len(source), "after": len(done.family), "bytes": done.family.bytes, **done.error.to_plain()}
        rows.append(row)
        print(f"{name:>10} -> {kind:<14}{settings!s:<16} {seconds:6.1f} s  {done}", flush=True)
        camera = cameras_around(extent(source), 12, (240, 240), turn=0.5)[VIEW]
        with torch.no_grad():
            shown.append(torch.cat([draw(each, camera).color.clamp(0, 1) for each in (source, done.family)], dim=1))
    return rows, shown


def pictured(rows: list[dict[str, Any]], shown: list[Tensor], path: Path) -> None:
    """The pairs in a sheet, each original left of what became of it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = 4
    down = -(-len(rows) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.4 * across, 2.0 * down), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, row, picture in zip(axes.flat, rows, shown, strict=False):
        axis.imshow(picture.cpu().numpy())
        what = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        decibels = "exact" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
        axis.set_title(f"{row['from']} → {row['to']}{f' ({what})' if what else ''}: {decibels}", fontsize=7)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| from | to | settings | way | primitives | PSNR | on the object | alpha |", "|" + " --- |" * 8]
    for row in rows:
        what = ", ".join(f"`{key}={value!r}`" for key, value in row["settings"].items())
        numbers = (f"{row[key]:.1f}" if row[key] is not None else "inf" for key in ("psnr", "psnr_covered"))
        first, second = numbers
        counts = f"{row['before']} → {row['after']}"
        start = f"| {row['from']} | {row['to']} | {what} | {row['route']} | {counts} "
        lines.append(f"{start}| {first} | {second} | {row['alpha']:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table; writes what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, default=MESH, help="a textured mesh file (default: spot of the test data)")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--picture", type=Path, help="write the pictures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # what is timed is one core and the engine's
    mesh = arguments.mesh if arguments.mesh.is_file() else None
    if mesh is None:
        print(f"{arguments.mesh}: not there; converting blocks alone")
    rows, shown = measured(mesh)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"size": 160, "views": 12, "rows": rows}, indent=1) + "\n")
    if arguments.picture:
        pictured(rows, shown, arguments.picture)


if __name__ == "__main__":
    main()

"""Draws docs/kinds-speed.png from docs/kinds-speed.json, made by `python bench/kinds.py --only scaling --json`."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs"
SWEEPS = {"pixels": "pixels", "primitives": "primitives", "covered": "covered pixels (events of rays)"}


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = json.loads((FOLDER / "kinds-speed.json").read_text())["scaling"]
    figure, axes = pyplot.subplots(1, len(SWEEPS), figsize=(15, 5), sharey=True, layout="constrained")
    for axis, (sweep, label) in zip(axes, SWEEPS.items(), strict=True):
        for kind in dict.fromkeys(row["kind"] for row in rows):
            own = [row for row in rows if row["kind"] == kind and row["sweep"] == sweep]
            across = [row["events" if sweep == "covered" else sweep] for row in own]
            axis.loglog(across, [row["both_ms"] for row in own], marker="o", markersize=4, label=kind)
        axis.set_xlabel(label)
        axis.grid(True, which="both", alpha=0.25)
    axes[0].set_ylabel("forward + backward, CPU milliseconds")
    axes[-1].legend(fontsize=8)
    figure.savefig(FOLDER / "kinds-speed.png", dpi=110)


if __name__ == "__main__":
    main()

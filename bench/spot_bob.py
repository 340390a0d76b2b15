"""Two textured objects at one instant (`spot_bob_dynamic`): a mesh from the coarse visual hull with Gaussians, against
either alone, at equal bytes of the scene and equal steps. `python bench/spot_bob.py --json` prints held-out PSNR.

Two budgets, because they answer differently: a small one is best spent on faces alone (the truth is two meshes); where
faces are no longer what is missing, Gaussians mend the silhouettes and hollows that the hull's mesh does not reach. The
data set's own split (12 cameras to train, 4 to test). A scene's bytes are those of all its layers' parameters and
constants; each variant starts with as many primitives as these allow, or may grow to as many. Nothing else differs: the
layers of the mix have the settings that they have alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

from smalti.configs.resolve import resolve
from smalti.renderers.engine import set_threads
from smalti.trainers.evaluation import evaluate, protocol_for
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

DATA = Path(os.environ.get("SMALTI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
BYTES_PER_FACE = 24
"""Three vertex numbers of 32 bits, and half a vertex with its colour."""
MESH = {
    "name": "surface", "family": "meshes", "initializer": "hull", "regularizers": {"smoothness": 0.1, "opacity": 0.0},
    "learning_rates": {"vertices": 1e-3, "raw_colors": 2.5e-2}, "metadata": {"texture_size": 0},
}  # fmt: skip
FUZZ = {
    "name": "fuzz", "family": "gaussians", "metadata": {"sh_degree": 0, "initial_opacity": 0.1, "initial_scale": 0.7},
    "learning_rates": {"means": 3.2e-4, "log_scales": 1e-2, "quaternions": 2e-3, "sh_dc": 5e-3},
}  # fmt: skip
BYTES_PER_GAUSSIAN = 56
VARIANTS = {"mesh": 1.0, "gaussians": 0.0, "both": 0.5}
"""Share of the bytes that the mesh has."""


def layers_of(share: float, total: int) -> list[dict[str, Any]]:
    """The layers of a variant whose mesh has this share of `total` bytes."""
    layers: list[dict[str, Any]] = []
    if share > 0:
        layers.append({**MESH, "settings": {"faces": int(share * total / BYTES_PER_FACE)}})
    if share < 1:
        most = int((1 - share) * total / BYTES_PER_GAUSSIAN)
        layers.append({**FUZZ, "settings": {"count": most // 2}, "max_primitives": most})
    return layers


def train(name: str, total: int, seed: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run within `total` bytes; its held-out figures, bytes and times."""
    layers = layers_of(VARIANTS[name], total)
    file = folder / f"{name}-{total}-{seed}.yaml"
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
    stretch = arguments.steps / 4000
    data = {"data.path": str(DATA / "spot_bob_dynamic"), "data.time": 0.0, "data.downscale": arguments.downscale}
    options = {"run.stretch": stretch, "run.seed": seed, "density.pixels_per_primitive": 0}
    config = resolve(str(file), {**data, **options, "density.every": max(round(100 * stretch), 2)})
    trainer = Trainer(Run.planned(folder / file.stem, config))
    begin = time.process_time()
    for _ in range(config.run.steps):
        trainer.step()
    seconds = time.process_time() - begin
    protocol = protocol_for(config.data, trainer.dataset)
    figures = evaluate(trainer.scene, trainer.cache, trainer.test_rows, protocol).mean
    held = sum(layer.family.bytes for layer in trainer.scene)
    return {
        "variant": name, "budget": total, "seed": seed, "steps": config.run.steps, "bytes": held,
        "layers": trainer.scene.counts(),
        **figures, "cpu_seconds": round(seconds, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--bytes", type=int, nargs="*", default=[150_000, 600_000])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--downscale", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for total, name, seed in product(arguments.bytes, arguments.variants, arguments.seeds):
            rows.append(train(name, total, seed, arguments, Path(folder)))
            if not arguments.json:
                print(json.dumps(rows[-1]), flush=True)
    mean = {
        f"{name} at {total}": statistics.fmean(
            row["psnr"] for row in rows if (row["variant"], row["budget"]) == (name, total)
        )
        for total, name in product(arguments.bytes, arguments.variants)
    }
    print(json.dumps({"runs": rows, "psnr": mean}))


if __name__ == "__main__":
    main()

"""Renders the built-in demo scene (smalti/datasets/demo) with Mitsuba 3 from two CC0 models by Keenan Crane.

Needs `pip install mitsuba` (and LLVM for the default variant; `--variant scalar_rgb` needs none) and a folder with
`spot/spot.obj`, `spot/spot_texture.png`, `bob/bob_tri.obj` and `bob/bob_diffuse.png`:

    python bench/make_demo.py MODELS smalti/datasets/demo

World axes: z up, the unit is about the length of the cow. Pictures: RGBA PNG, straight alpha, sRGB, one box filter per
pixel. Cameras: a Fibonacci spiral on the sphere, looking at the middle of the scene; every 6th view is held out.
"""

from __future__ import annotations

import argparse
import json
from math import cos, pi, sin, sqrt, tan
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 224
VIEWS = 51
TEST_EVERY = 6
FIELD_OF_VIEW = 0.60
DISTANCE = 3.5
TARGET = (0.0, 0.0, 0.0)
LOWEST, HIGHEST = -0.30, 0.94  # sine of the cameras' elevation


def spiral_position(index: int, count: int) -> np.ndarray:
    """Point `index` of `count` of a Fibonacci spiral between the two elevations, on a sphere of radius DISTANCE."""
    height = LOWEST + (HIGHEST - LOWEST) * (index + 0.5) / count
    angle = index * pi * (3.0 - sqrt(5.0))
    ring = sqrt(1.0 - height * height)
    return DISTANCE * np.array([ring * cos(angle), ring * sin(angle), height])


def opengl_world_from_camera(position: np.ndarray) -> np.ndarray:
    """Camera-to-world with OpenGL axes (x right, y up, looking along -z), as transforms.json wants it."""
    backward = position - np.array(TARGET)
    backward /= np.linalg.norm(backward)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = right, np.cross(backward, right), backward, position
    return matrix


def scene(mi: Any, models: Path) -> Any:
    """The cow in her duck-shaped swimming ring, under a soft sky and one large lamp."""

    def model(mesh: Path, texture: Path, to_world: Any) -> dict[str, Any]:
        bitmap = {"type": "bitmap", "filename": str(texture), "filter_type": "bilinear"}
        return {
            "type": "obj",
            "filename": str(mesh),
            "to_world": to_world,
            "bsdf": {"type": "twosided", "inner": {"type": "diffuse", "reflectance": bitmap}},
        }

    transform = mi.ScalarTransform4f
    z_up = transform().rotate([1, 0, 0], 90)
    sitting = transform().rotate([1, 0, 0], 36)
    spot = transform().translate([0.0, 0.12, 0.25]) @ transform().scale(0.64) @ sitting @ z_up
    bob = transform().translate([0.0, 0.0, -0.12]) @ transform().rotate([0, 0, 1], -90) @ z_up
    lamp = transform().look_at(origin=[1.8, -2.4, 4.2], target=[0, 0, 0], up=[0, 0, 1]) @ transform().scale(1.3)
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 5, "hide_emitters": True},
            "sky": {"type": "constant", "radiance": {"type": "rgb", "value": [0.66, 0.70, 0.76]}},
            "lamp": {
                "type": "rectangle",
                "to_world": lamp,
                "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [6.2, 5.8, 5.2]}},
            },
            "spot": model(models / "spot/spot.obj", models / "spot/spot_texture.png", spot),
            "bob": model(models / "bob/bob_tri.obj", models / "bob/bob_diffuse.png", bob),
        }
    )


def picture(mi: Any, loaded: Any, matrix: np.ndarray, samples: int, seed: int) -> Image.Image:
    """One view: straight alpha, sRGB. Mitsuba's camera looks along +z with x to the left."""
    flipped = mi.ScalarTransform4f((matrix @ np.diag([-1.0, 1.0, -1.0, 1.0])).tolist())
    sensor = mi.load_dict(
        {
            "type": "perspective",
            "fov": FIELD_OF_VIEW * 180.0 / pi,
            "fov_axis": "x",
            "to_world": flipped,
            "film": {
                "type": "hdrfilm",
                "width": SIZE,
                "height": SIZE,
                "pixel_format": "rgba",
                "component_format": "float32",
                "rfilter": {"type": "box"},
            },
            "sampler": {"type": "multijitter", "sample_count": samples},
        }
    )
    premultiplied = np.array(mi.render(loaded, sensor=sensor, spp=samples, seed=seed), dtype=np.float64)
    alpha = premultiplied[..., 3:].clip(0.0, 1.0)
    linear = (premultiplied[..., :3] / alpha.clip(1e-6)).clip(0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels = np.round(255.0 * np.concatenate([encoded, alpha], axis=-1)).astype(np.uint8)
    pixels[pixels[..., 3] == 0] = 0  # nothing to see: let it compress
    return Image.fromarray(pixels, "RGBA")


def main() -> None:
    """Render every view and write the two transforms files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with spot/ and bob/")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--variant", default="llvm_ad_rgb")
    parser.add_argument("--samples", type=int, default=784)
    parser.add_argument("--only", type=int, nargs="*", help="render these views only, write no transforms")
    arguments = parser.parse_args()

    import mitsuba as mi

    mi.set_variant(arguments.variant)
    loaded = scene(mi, arguments.models)
    frames: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for index in range(VIEWS):
        split = "test" if index % TEST_EVERY == TEST_EVERY // 2 else "train"
        matrix = opengl_world_from_camera(spiral_position(index, VIEWS))
        name = f"{split}/{len(frames[split]):03d}"
        frames[split].append({"file_path": f"./{name}", "transform_matrix": matrix.round(9).tolist()})
        if arguments.only is not None and index not in arguments.only:
            continue
        target = arguments.out / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(mi, loaded, matrix, arguments.samples, index).save(target, optimize=True)
        print(target, target.stat().st_size, flush=True)
    if arguments.only is None:
        for split, entries in frames.items():
            content = {"camera_angle_x": FIELD_OF_VIEW, "frames": entries}
            (arguments.out / f"transforms_{split}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{SIZE} px, focal length {0.5 * SIZE / tan(0.5 * FIELD_OF_VIEW):.3f} px")


if __name__ == "__main__":
    main()

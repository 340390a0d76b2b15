"""The scene of `bench/mixed.py`, drawn by Mitsuba 3: nothing of ours takes part but the file format.

A textured mesh (a lobed gourd, 9,216 triangles, one bitmap), two textured superquadrics (a block and a pillow), a
fuzzy ball (a heterogeneous medium, clumpy, opacity below one half in its middle) and a thin structure (three wires of
about 1.4 pixels that arch over the rest). Everything is diffuse and stands in light that is the same from all
directions, so colours do not depend on the view. Unit: the whole is about two wide; z is up.

Pictures: RGBA, straight alpha, sRGB, one box filter per pixel, as `bench/make_demo.py`. Cameras: a Fibonacci spiral on
a sphere around the origin; every fourth view is held out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import cos, pi, sin, sqrt, tan
from pathlib import Path
from typing import Any

import numpy as np

FIELD_OF_VIEW = 0.60
DISTANCE = 3.5
LOWEST, HIGHEST = -0.25, 0.92  # sine of the cameras' elevation
TEST_EVERY = 4
VALIDATION_EVERY = 6  # of the training views, where settings are chosen
BALL_CENTRE, BALL_RADIUS, BALL_SIGMA = (0.10, 0.10, 0.52), 0.42, 0.15
BALL_DENSITY = 1.5
"""Peak per unit of length: an optical depth of about 0.55 through the middle, an opacity of 0.43."""
WIRE_RADIUS = 0.016
REGIONS = ("mesh", "superquadrics", "ball", "wires", "empty")


@dataclass(frozen=True)
class Size:
    """How large the experiment's data are."""

    pixels: int = 96
    views: int = 32
    samples: int = 512


def camera_position(index: int, count: int) -> np.ndarray:
    """Point `index` of `count` of the spiral."""
    height = LOWEST + (HIGHEST - LOWEST) * (index + 0.5) / count
    angle = index * pi * (3.0 - sqrt(5.0))
    ring = sqrt(1.0 - height * height)
    return DISTANCE * np.array([ring * cos(angle), ring * sin(angle), height])


def opengl_world_from_camera(position: np.ndarray) -> np.ndarray:
    """Camera-to-world with OpenGL axes (x right, y up, looking along -z), as transforms.json wants it."""
    backward = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = right, np.cross(backward, right), backward, position
    return matrix


def _turn(degrees: float, axis: int) -> np.ndarray:
    c, s = cos(degrees * pi / 180), sin(degrees * pi / 180)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


# -- shapes: grids of (v, u) samples, closed by a seam that is there twice --------------------------------------------
def _angles(down: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    latitude = np.linspace(-pi / 2, pi / 2, down + 1)[:, None]
    longitude = np.linspace(-pi, pi, across + 1)[None, :]
    return np.broadcast_arrays(latitude, longitude)  # type: ignore[return-value]


def gourd() -> np.ndarray:
    """Positions [49, 97, 3]: a ball with five lobes, a waist and a lean; not convex."""
    latitude, longitude = _angles(48, 96)
    lobes, waist = np.cos(5 * longitude) * np.cos(latitude) ** 2, np.exp(-12 * (latitude - 0.35) ** 2)
    radius = 0.40 * (1 + 0.16 * lobes - 0.22 * waist)
    ring = radius * np.cos(latitude)
    z = 1.15 * radius * np.sin(latitude)
    local = np.stack([ring * np.cos(longitude) + 0.15 * z, ring * np.sin(longitude), z], axis=-1)
    return local @ _turn(12, 1).T + (-0.48, -0.22, -0.12)


def superquadric(half: tuple[float, float, float], exponents: tuple[float, float]) -> np.ndarray:
    """Positions [49, 97, 3] of (Barr 1981), around the origin."""
    latitude, longitude = _angles(48, 96)

    def power(x: np.ndarray, e: float) -> np.ndarray:
        return np.sign(x) * np.abs(x) ** e

    ring = power(np.cos(latitude), exponents[0])
    return np.array(half) * np.stack(
        [ring * power(np.cos(longitude), exponents[1]), ring * power(np.sin(longitude), exponents[1]),
         power(np.sin(latitude), exponents[0])], axis=-1,
    )  # fmt: skip


def wires() -> list[np.ndarray]:
    """Positions [81, 9, 3] of each of three tubes along arcs that cross the whole scene."""
    tubes = []
    for turn, width, height, sway in ((10.0, 0.86, 0.70, 0.10), (75.0, 0.78, 0.86, -0.12), (140.0, 0.82, 0.60, 0.16)):
        t = np.linspace(0.0, pi, 81)
        arc = np.stack([width * np.cos(t), sway * np.sin(3 * t), height * np.sin(t) - 0.35], axis=-1) @ _turn(turn, 2).T
        along = np.gradient(arc, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        side = np.cross(along, [0.3, 0.5, 0.1])
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        around = np.linspace(0, 2 * pi, 9)[None, :, None]
        tubes.append(
            arc[:, None]
            + WIRE_RADIUS * (np.cos(around) * side[:, None] + np.sin(around) * np.cross(along, side)[:, None])
        )
    return tubes


def painting(seed: int, colors: list[tuple[float, float, float]], cells: tuple[int, int]) -> np.ndarray:
    """A texture [128, 256, 3] of 0..255: a check of `cells` in colours drawn at random, stripes, and a little noise."""
    generator = np.random.default_rng(seed)
    v, u = np.mgrid[0:128, 0:256]
    pick = generator.integers(0, len(colors), cells)[v * cells[0] // 128, u * cells[1] // 256]
    picture = np.array(colors)[pick] * (0.85 + 0.15 * np.sign(np.sin(2 * pi * (u / 256 * 11 + v / 128 * 7))))[..., None]
    picture = picture + 0.04 * generator.standard_normal((128, 256, 1))
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def _write_obj(path: Path, positions: np.ndarray) -> None:
    """The grid as triangles with texture coordinates (u across, v up)."""
    down, across = positions.shape[0] - 1, positions.shape[1] - 1
    lines = ["v {:.6f} {:.6f} {:.6f}".format(*point) for point in positions.reshape(-1, 3)]
    lines += [f"vt {j / across:.6f} {i / down:.6f}" for i in range(down + 1) for j in range(across + 1)]
    for i in range(down):
        for j in range(across):
            a = i * (across + 1) + j + 1
            b, c, d = a + 1, a + across + 2, a + across + 1
            lines += [f"f {a}/{a} {b}/{b} {c}/{c}", f"f {a}/{a} {c}/{c} {d}/{d}"]
    path.write_text("\n".join(lines) + "\n")


def _ball_grid() -> np.ndarray:
    """Density [24, 24, 24, 1], 0..1.3: a Gaussian with clumps, nothing at the border."""
    x, y, z = (np.linspace(-BALL_RADIUS, BALL_RADIUS, 24)[index] for index in np.mgrid[0:24, 0:24, 0:24])
    clumps = 1 + 0.35 * np.sin(17 * x + 1) * np.sin(15 * y + 2) * np.sin(19 * z)
    radius = np.sqrt(x * x + y * y + z * z)
    return (np.exp(-0.5 * (radius / BALL_SIGMA) ** 2) * clumps * (radius < BALL_RADIUS))[..., None].astype(np.float32)


def shapes(folder: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Name -> (OBJ file, texture); writes the files."""
    block = superquadric((0.24, 0.20, 0.34), (0.25, 0.25)) @ (_turn(25, 2) @ _turn(14, 0)).T + (0.52, -0.34, -0.10)
    pillow = superquadric((0.32, 0.26, 0.20), (0.45, 1.1)) @ (_turn(-20, 1) @ _turn(40, 2)).T + (0.16, 0.56, -0.22)
    warm = [(0.75, 0.22, 0.12), (0.92, 0.72, 0.25), (0.35, 0.10, 0.08), (0.95, 0.90, 0.80)]
    cold = [(0.10, 0.25, 0.60), (0.20, 0.62, 0.60), (0.90, 0.92, 0.95), (0.06, 0.10, 0.22)]
    green = [(0.15, 0.45, 0.15), (0.80, 0.85, 0.30), (0.90, 0.50, 0.60), (0.08, 0.20, 0.10)]
    things: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "mesh": (gourd(), painting(1, warm, (12, 26))),
        "superquadric-block": (block, painting(2, cold, (10, 20))),
        "superquadric-pillow": (pillow, painting(3, green, (8, 20))),
    }
    metal = np.full((2, 2, 3), (60, 55, 75), np.uint8)
    things |= {f"wire-{number}": (tube, metal) for number, tube in enumerate(wires())}
    found = {}
    for name, (positions, texture) in things.items():
        path = folder / f"{name}.obj"
        _write_obj(path, positions)
        found[name] = (path, texture)
    return found


def _scene(mi: Any, folder: Path, integrator: dict[str, Any], only: str = "") -> Any:
    """All of it, or the shapes whose names begin with `only`."""
    made: dict[str, Any] = {
        "type": "scene",
        "integrator": integrator,
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": [1.0, 1.0, 1.0]}},
    }
    for name, (path, texture) in shapes(folder).items():
        if not name.startswith(only):
            continue
        bitmap = {"type": "bitmap", "bitmap": mi.Bitmap(texture), "filter_type": "bilinear"}
        diffuse = {"type": "twosided", "inner": {"type": "diffuse", "reflectance": bitmap}}
        made[name] = {"type": "obj", "id": name, "filename": str(path), "face_normals": True, "bsdf": diffuse}
    if not only:
        transform = mi.ScalarTransform4f
        low = [centre - BALL_RADIUS for centre in BALL_CENTRE]
        place = transform().translate(low) @ transform().scale(2 * BALL_RADIUS)
        made["ball"] = {
            "type": "sphere", "center": list(BALL_CENTRE), "radius": 0.995 * BALL_RADIUS, "bsdf": {"type": "null"},
            "interior": {
                "type": "heterogeneous", "scale": BALL_DENSITY,
                "albedo": {"type": "constvolume", "value": {"type": "rgb", "value": [0.45, 0.06, 0.30]}},
                "sigma_t": {"type": "gridvolume", "grid": mi.VolumeGrid(_ball_grid()), "to_world": place},
            },
        }  # fmt: skip
    return mi.load_dict(made, optimize=False)


def _sensor(mi: Any, matrix: np.ndarray, pixels: int) -> Any:
    """Mitsuba's camera looks along +z with x to the left."""
    flipped = mi.ScalarTransform4f((matrix @ np.diag([-1.0, 1.0, -1.0, 1.0])).tolist())
    film = {"type": "hdrfilm", "width": pixels, "height": pixels, "pixel_format": "rgba",
            "component_format": "float32", "rfilter": {"type": "box"}}  # fmt: skip
    return mi.load_dict({"type": "perspective", "fov": FIELD_OF_VIEW * 180 / pi, "fov_axis": "x", "to_world": flipped,
                         "film": film, "sampler": {"type": "independent"}})  # fmt: skip


def _straight(premultiplied: np.ndarray) -> np.ndarray:
    alpha = premultiplied[..., 3:].clip(0.0, 1.0)
    linear = (premultiplied[..., :3] / alpha.clip(1e-6)).clip(0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255.0 * np.concatenate([encoded, alpha], axis=-1)).astype(np.uint8)


def _regions(mi: Any, parts: list[Any], matrix: np.ndarray, pixels: int) -> np.ndarray:
    """Row of `REGIONS` per pixel, from the distances of `parts` (mesh, superquadrics, wires) at 16 samples: wires where
    any meets one, else what most samples meet; before everything but wires the ball, to twice its deviation where no
    surface hides it.
    """
    sensor = _sensor(mi, matrix, 4 * pixels)
    distances = []
    for part in parts:
        fine = np.array(mi.render(part, sensor=sensor, spp=1, seed=0))[..., -1]
        distances.append(fine.reshape(pixels, 4, pixels, 4).transpose(0, 2, 1, 3).reshape(pixels, pixels, 16))
    depth = np.where(np.stack(distances) > 0, np.stack(distances), np.inf)
    nearest = np.where(np.isinf(depth).all(0), 3, depth.argmin(0))
    counts = np.stack([(nearest == row).sum(-1) for row in range(4)], axis=-1)
    result = np.array([0, 1, 4])[counts[..., [0, 1, 3]].argmax(-1)]
    place = (np.arange(pixels) + 0.5 - 0.5 * pixels) / (0.5 * pixels) * tan(0.5 * FIELD_OF_VIEW)
    x, y = np.meshgrid(place, -place)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1) @ matrix[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    to_ball = np.array(BALL_CENTRE) - matrix[:3, 3]
    along = rays @ to_ball
    near = np.sqrt(np.maximum(to_ball @ to_ball - along**2, 0)) < 2 * BALL_SIGMA
    in_front = (result == 4) | (depth.min((0, -1)) > along)
    result = np.where(near & in_front, 2, result)
    return np.where(counts[..., 2] > 0, 3, result).astype(np.uint8)


def write_dataset(folder: Path, size: Size, variant: str = "") -> None:
    """Pictures, `transforms_train.json`, `transforms_test.json` and `regions.npz` (split -> view -> rows of `REGIONS`).

    Does nothing where a file `done.json` says that the same was made before. Raises ImportError without Mitsuba.
    """
    from PIL import Image

    stamp = {"pixels": size.pixels, "views": size.views, "samples": size.samples, "version": 2}
    mark = folder / "done.json"
    if mark.is_file() and json.loads(mark.read_text()) == stamp:
        return
    import mitsuba as mi

    mi.set_variant(variant or usable_variant(mi))
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "test").mkdir(exist_ok=True)
    volume = _scene(mi, folder, {"type": "volpath", "max_depth": 4, "hide_emitters": True})
    distance = {"type": "aov", "aovs": "distance:depth"}
    parts = [_scene(mi, folder, distance, only) for only in ("mesh", "superquadric", "wire")]
    frames: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    regions: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for index in range(size.views):
        split = "test" if index % TEST_EVERY == TEST_EVERY // 2 else "train"
        matrix = opengl_world_from_camera(camera_position(index, size.views))
        name = f"{split}/{len(frames[split]):03d}"
        frames[split].append({"file_path": f"./{name}", "transform_matrix": matrix.round(9).tolist()})
        drawn = mi.render(volume, sensor=_sensor(mi, matrix, size.pixels), spp=size.samples, seed=index)
        Image.fromarray(_straight(np.array(drawn, dtype=np.float64)), "RGBA").save(folder / f"{name}.png")
        regions[split].append(_regions(mi, parts, matrix, size.pixels))
    np.savez_compressed(folder / "regions.npz", train=np.stack(regions["train"]), test=np.stack(regions["test"]))
    _write_transforms(folder, frames)
    mark.write_text(json.dumps(stamp))


def _write_transforms(folder: Path, frames: dict[str, list[dict[str, Any]]]) -> None:
    for split, entries in frames.items():
        content = {"camera_angle_x": FIELD_OF_VIEW, "frames": entries}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content, indent=1) + "\n")


def write_validation(source: Path, target: Path) -> None:
    """A dataset of the training views of `source` alone: every sixth is held out, for choosing settings by."""
    (target / "train").mkdir(parents=True, exist_ok=True)
    entries = json.loads((source / "transforms_train.json").read_text())["frames"]
    for entry in entries:
        name = f"{entry['file_path']}.png"
        (target / name).write_bytes((source / name).read_bytes())
    held = set(range(VALIDATION_EVERY // 2, len(entries), VALIDATION_EVERY))
    rows = {"train": [row for row in range(len(entries)) if row not in held], "test": sorted(held)}
    _write_transforms(target, {split: [entries[row] for row in chosen] for split, chosen in rows.items()})
    with np.load(source / "regions.npz") as regions:
        known = regions["train"]
    np.savez_compressed(target / "regions.npz", train=known[rows["train"]], test=known[rows["test"]])


def usable_variant(mi: Any) -> str:
    """The vectorised variant where LLVM is there, else the one that needs nothing."""
    try:
        mi.set_variant("llvm_ad_rgb")
        import drjit

        float(drjit.sum(drjit.llvm.Float([1.0, 2.0]))[0])
    except Exception:
        return "scalar_rgb"
    return "llvm_ad_rgb"

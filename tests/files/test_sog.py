"""SOG: another tool's files against its PLY, the old form, round trips within what is rounded, hostile archives."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from splat_cases import nearest_rows, opacities, random_similarity, random_splats, unit_rows

from smalti.files import read_scene_file, write_scene_file
from smalti.files.ply import read_ply
from smalti.files.sog import morton_order, read_sog, write_sog
from smalti.files.splats import FileFormatError, SplatMetadata, Splats, similarity_transform


def webp(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True, exact=True)
    return stream.getvalue()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def bundle(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["playbot8k", "guitar20k"])
def test_another_tools_file_is_its_ply_within_rounding(name: str, shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "converted"
    got, expected = read_sog(folder / f"{name}.sog"), read_ply(folder / f"{name}.ply")
    rows, safe = nearest_rows(got, expected)
    assert safe.mean() > 0.99  # the others have a neighbour nearer than the rounding
    span = np.log1p(np.abs(expected.means)).max() * 2
    step = span / 65535 * (1 + np.abs(expected.means[safe]))
    assert (np.abs(got.means[rows] - expected.means)[safe] <= 1.01 * step + 1e-6).all()
    assert np.abs(opacities(got)[rows] - opacities(expected))[safe].max() <= 1.01 / 255
    turned = np.abs((unit_rows(got)[rows] * unit_rows(expected)).sum(axis=1))[safe]
    assert turned.min() > 0.9997
    # that tool's codebooks give up a few values far out
    assert np.quantile(np.abs(got.log_scales[rows] - expected.log_scales)[safe], 0.99) < 0.03
    assert np.quantile(np.abs(got.sh_dc[rows] - expected.sh_dc)[safe], 0.99) < 0.03
    if name == "playbot8k":
        assert got.sh_rest.shape == (8000, 8, 3)
        assert np.sqrt(np.square(got.sh_rest[rows] - expected.sh_rest)[safe].mean()) < 0.02
    assert got.notices == ()
    assert got.metadata == SplatMetadata()


def test_folder_meta_json_and_bundle_are_the_same(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "splat_samples" / "original" / "playbot_6_0_sog"
    parts = {path.name: path.read_bytes() for path in folder.iterdir()}
    bundled = bundle(tmp_path / "a.sog", parts, zipfile.ZIP_DEFLATED)
    first = read_sog(folder)
    assert len(first) == 1873
    assert first.held_degree == 2
    assert first.means.max() == pytest.approx(np.expm1(0.7074409650080138), abs=1e-4)
    for other in (read_scene_file(folder / "meta.json"), read_scene_file(bundled)):
        for name in ("means", "log_scales", "quaternions", "logit_opacities", "sh_dc", "sh_rest"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_the_old_form_of_another_tool(shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "original" / "playcanvas-logo_sog"
    meta = json.loads((folder / "meta.json").read_text())
    splats = read_sog(folder)
    assert len(splats) == 307128
    # the ranges in meta.json are reached: they are the extremes of the columns
    for column, key in ((splats.log_scales, "scales"), (splats.sh_dc, "sh0")):
        np.testing.assert_allclose(column.min(axis=0), meta[key]["mins"][:3], rtol=1e-5)
        np.testing.assert_allclose(column.max(axis=0), meta[key]["maxs"][:3], rtol=1e-5)
    assert splats.logit_opacities.max() == pytest.approx(meta["sh0"]["maxs"][3])  # a logit, not an opacity
    np.testing.assert_allclose(splats.means.max(axis=0), np.expm1(meta["means"]["maxs"]), atol=5e-5)


def test_the_old_form_with_spherical_harmonics(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)  # noqa: E731
    images = {"means_l": draw(4, 4, 3), "means_u": draw(4, 4, 3), "scales": draw(4, 4, 3), "sh0": draw(4, 4, 4)}
    quats = draw(4, 4, 4)
    quats[..., :3] = 128 + quats[..., :3] // 8
    quats[..., 3] = 252 + quats[..., 3] % 4
    images |= {"quats": quats, "shN_centroids": draw(2, 64 * 3, 3), "shN_labels": draw(4, 4, 3)}
    images["shN_labels"][..., 0] %= 128
    images["shN_labels"][..., 1] = 0
    part = lambda shape, low, high, *names: {  # noqa: E731
        "shape": shape,
        "mins": low,
        "maxs": high,
        "files": [f"{name}.webp" for name in names],
    }
    meta = {
        "means": part([13, 3], [-1, -2, 0], [1, 2, 0.5], "means_l", "means_u"),
        "scales": part([13, 3], [-9, -8, -7], [-1, -2, -3], "scales"),
        "quats": {"shape": [13, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": part([13, 1, 4], [-1, -2, -3, -4], [1, 2, 3, 4], "sh0"),
        "shN": part([13, 3], -0.5, 1.5, "shN_centroids", "shN_labels"),
    }
    parts = {f"{name}.webp": webp(pixels) for name, pixels in images.items()} | {"meta.json": json.dumps(meta).encode()}
    splats = read_sog(bundle(tmp_path / "a.sog", parts))
    assert splats.sh_rest.shape == (13, 3, 3)
    flat = {name: pixels.reshape(-1, pixels.shape[-1]).astype(float) for name, pixels in images.items()}
    row = 7
    label = int(flat["shN_labels"][row, 0])
    cell = images["shN_centroids"][label // 64, 3 * (label % 64) : 3 * (label % 64) + 3].astype(float)
    np.testing.assert_allclose(splats.sh_rest[row], -0.5 + 2 * cell / 255, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(splats.logit_opacities[row], -4 + 8 * flat["sh0"][row, 3] / 255, rtol=1e-6)
    np.testing.assert_allclose(splats.log_scales[row, 1], -8 + 6 * flat["scales"][row, 1] / 255, rtol=1e-6)
    log = -2 + 4 * (flat["means_l"][row, 1] + 256 * flat["means_u"][row, 1]) / 65535
    np.testing.assert_allclose(splats.means[row, 1], np.sign(log) * np.expm1(abs(log)), rtol=1e-5)
    place = int(flat["quats"][row, 3]) - 252
    others = np.delete(splats.quaternions[row], place)
    np.testing.assert_allclose(others, (flat["quats"][row, :3] / 127.5 - 1) / 2**0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(splats.quaternions, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("rest", "count"), [(0, 1), (3, 700), (8, 1500), (15, 3000)])
def test_written_and_read_back_within_rounding(tmp_path: Path, rest: int, count: int) -> None:
    splats = random_splats(count, rest, filter_variance=0.1, compensated=True, sh_degree=0, order="ray", frame="scene")
    notices = write_scene_file(tmp_path / "a.sog", splats)
    assert len(notices) == (rest > 0)
    back, expected = read_scene_file(tmp_path / "a.sog"), reordered(splats, morton_order(splats.means))
    assert back.metadata == splats.metadata
    logs = np.sign(expected.means) * np.log1p(np.abs(expected.means))
    half = 0.5 / 65535 * (logs.max(axis=0) - logs.min(axis=0)) * (1 + np.abs(expected.means))
    assert (np.abs(back.means - expected.means) <= 1.02 * half + 1e-6).all()
    assert np.abs(opacities(back) - opacities(expected)).max() <= 1 / 510 + 1e-6
    turned = unit_rows(back) * np.sign((unit_rows(back) * unit_rows(expected)).sum(axis=1, keepdims=True))
    kept = np.sort(np.abs(turned - unit_rows(expected)), axis=1)
    assert kept[:, :3].max() <= 1.01 / (255 * 2**0.5)
    for got, wanted in ((back.log_scales, expected.log_scales), (back.sh_dc, expected.sh_dc)):
        assert np.sqrt(np.square(got - wanted).mean()) < 0.015  # deviation 1, 256 numbers
    if rest:  # at most 1024 rows have a palette row of their own; beyond, the palette is not finer than the scene
        error = np.sqrt(np.square(back.sh_rest - expected.sh_rest).mean())
        assert error < (0.02 if count <= 1024 else 0.7)
        assert f"error {error:.2g}" in notices[0]
    write_sog(tmp_path / "b.sog", splats)
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sog", "b.sog"]


def reordered(splats: Splats, order: np.ndarray) -> Splats:
    names = ("means", "log_scales", "quaternions", "logit_opacities", "sh_dc", "sh_rest")
    return Splats(*(getattr(splats, name)[order] for name in names), splats.metadata)


def test_no_gaussians_at_all(tmp_path: Path) -> None:
    write_sog(tmp_path / "a.sog", random_splats(0, 3))
    assert len(read_sog(tmp_path / "a.sog")) == 0


def test_better_than_another_tools_palette(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "splat_samples" / "converted"
    splats = read_ply(folder / "playbot8k.ply")
    write_sog(tmp_path / "a.sog", splats)
    back = read_sog(tmp_path / "a.sog")
    error = np.sqrt(np.square(back.sh_rest - splats.sh_rest[morton_order(splats.means)]).mean())
    theirs = read_sog(folder / "playbot8k.sog")
    rows, _ = nearest_rows(theirs, splats)
    assert error < np.sqrt(np.square(theirs.sh_rest[rows] - splats.sh_rest).mean())
    assert (tmp_path / "a.sog").stat().st_size < (folder / "playbot8k.sog").stat().st_size


def test_the_transform_is_applied(tmp_path: Path) -> None:
    splats, transform = random_splats(400, 8), similarity_transform(random_similarity())
    write_sog(tmp_path / "a.sog", splats, transform)
    write_sog(tmp_path / "b.sog", transform(splats))
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    splats = random_splats(10, 0)
    splats.sh_dc[3, 1] = np.nan
    (tmp_path / "a.sog").write_bytes(b"old")
    with pytest.raises(FileFormatError, match=r"sh_dc.*3"):
        write_sog(tmp_path / "a.sog", splats)
    assert (tmp_path / "a.sog").read_bytes() == b"old"


def edited(parts: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """With dotted keys of meta.json (`__` for a dot) replaced."""
    meta = json.loads(parts["meta.json"])
    for key, value in changes.items():
        *path, last = key.split("__")
        target = meta
        for step in path:
            target = target[step]
        target[last] = value
    return parts | {"meta.json": json.dumps(meta).encode()}


def repainted(parts: dict[str, bytes], name: str, channel: int, value: int) -> dict[str, bytes]:
    pixels = np.asarray(Image.open(io.BytesIO(parts[name]))).copy()
    pixels[0, 0, channel] = value
    return parts | {name: webp(pixels)}


HOSTILE: dict[str, tuple[str, Callable[[dict[str, bytes]], dict[str, bytes]]]] = {
    "traversal": ("leads out", lambda parts: parts | {"../../etc/passwd": b"x"}),
    "absolute": ("leads out", lambda parts: parts | {"/tmp/x": b"x"}),
    "name in meta": ("not one beside it", lambda parts: edited(parts, scales__files=["../scales.webp"])),
    "name is a number": ("not one beside it", lambda parts: edited(parts, scales__files=[7])),
    "many entries": ("entries", lambda parts: parts | {f"{i}": b"" for i in range(300)}),
    "no meta": ("no `meta.json`", lambda parts: {name: data for name, data in parts.items() if name != "meta.json"}),
    "no image": ("no `quats.webp`", lambda parts: {name: data for name, data in parts.items() if name != "quats.webp"}),
    "version 3": ("version", lambda parts: edited(parts, version=3)),
    "count": ("more than any scene", lambda parts: edited(parts, count=2**31)),
    "count a little": ("pixels, expected", lambda parts: edited(parts, count=70_000)),
    "negative count": ("announces -1", lambda parts: edited(parts, count=-1)),
    "count as text": ("expected an integer", lambda parts: edited(parts, count="60")),
    "NaN": ("not valid JSON", lambda parts: edited(parts, means__mins=[float("nan"), 0, 0])),
    "huge number": ("finite numbers", lambda parts: edited(parts, means__mins=[10**400, 0, 0])),
    "far away": ("reach beyond", lambda parts: edited(parts, means__maxs=[1000, 0, 0])),
    "nested": ("not valid JSON", lambda parts: parts | {"meta.json": b'{"version":' + b"[" * 100_000}),
    "long meta": ("expected at most", lambda parts: parts | {"meta.json": b" " * 30_000_000}),
    "no list": ("expected a list", lambda parts: edited(parts, scales__codebook=3)),
    "long codebook": ("257 numbers", lambda parts: edited(parts, scales__codebook=[0] * 257)),
    "not an image": ("cannot be decoded", lambda parts: parts | {"scales.webp": b"GIF89a" + bytes(50)}),
    "cut image": ("cannot be decoded", lambda parts: parts | {"scales.webp": parts["scales.webp"][:-40]}),
    "large image": ("pixels, expected", lambda parts: parts | {"sh0.webp": webp(np.zeros((2000, 2000, 4), np.uint8))}),
    "mode": ("unknown mode", lambda parts: repainted(parts, "quats.webp", 3, 7)),
    "label": ("palette of", lambda parts: repainted(parts, "shN_labels.webp", 1, 255)),
    "palette size": ("rows", lambda parts: edited(parts, shN__count=70_000)),
    "bands": ("bands", lambda parts: edited(parts, shN__bands=4)),
    "palette short": ("192 x 1 pixels, expected 480", lambda parts: edited(parts, shN__bands=2)),
    "palette width": ("expected a width", lambda parts: edited(parts, shN__bands=2, shN__count=24)),
    "metadata": ("no meaning", lambda parts: edited(parts, smalti={"order": "random"})),
    "degree in use": ("no meaning", lambda parts: edited(parts, smalti={"sh_degree": 3})),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sog") / "sample.sog"
    write_sog(path, random_splats(60, 3))
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(case: str, sample: Path, tmp_path: Path) -> None:
    expected, change = HOSTILE[case]
    path = bundle(tmp_path / "a.sog", change(members(sample)), zipfile.ZIP_DEFLATED)
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=expected):
        read_sog(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
    assert time.perf_counter() - start < 3


def test_the_same_entry_twice(sample: Path, tmp_path: Path) -> None:
    path = bundle(tmp_path / "a.sog", members(sample))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("meta.json", b"{}")
    with pytest.raises(FileFormatError, match="twice"):
        read_sog(path)


def test_an_image_that_announces_more_than_its_entry_says(sample: Path, tmp_path: Path) -> None:
    """A zip header that lies about the unpacked size does not make us read on."""
    parts = members(sample) | {"meta.json": b" " * 30_000_000}
    path = bundle(tmp_path / "a.sog", parts, zipfile.ZIP_DEFLATED)
    raw = path.read_bytes().replace(struct.pack("<I", 30_000_000), struct.pack("<I", 1000))
    path.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(FileFormatError):
        read_sog(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_truncated_and_damaged_bundles_never_raise_anything_else(sample: Path, tmp_path: Path) -> None:
    raw, path = sample.read_bytes(), tmp_path / "a.sog"
    for end in range(0, len(raw) - 1, len(raw) // 40):
        path.write_bytes(raw[:end])
        with pytest.raises(FileFormatError):
            read_sog(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw), 6):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_sog(path)
        except FileFormatError:
            refused += 1
    assert refused > 50


def test_a_first_null_of_a_codebook_is_extrapolated(sample: Path, tmp_path: Path) -> None:
    parts = members(sample)
    book = json.loads(parts["meta.json"])["scales"]["codebook"]
    book[0] = None
    splats = read_sog(bundle(tmp_path / "a.sog", edited(parts, scales__codebook=book)))
    assert "extrapolated" in splats.notices[0]
    assert splats.log_scales.min() == pytest.approx(min(book[1], book[1] + (book[1] - book[-1]) / 255), rel=1e-5)

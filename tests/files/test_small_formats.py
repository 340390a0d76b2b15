"""Compressed PLY, SPZ, .splat, .ksplat: another tool's files, round trips within the steps, axes, memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ksplat_maker import RANGE, ksplat
from scipy.spatial import cKDTree
from test_ply import random_similarity, random_splats

from smalti.files import FORMATS, extension_of, read_scene_file, write_scene_file
from smalti.files.checked import CHUNK_ROWS
from smalti.files.ply import write_ply
from smalti.files.ply_compressed import write_compressed_ply
from smalti.files.splats import PARAMETERS, FileFormatError, SplatMetadata, Splats, similarity_transform
from smalti.files.spz import _FLIP, _FLIP_REST
from smalti.primitives.spherical_harmonics import basis, rotate_rest

SMALL = (".compressed.ply", ".spz", ".splat")


def moderate(count: int, rest: int = 15, seed: int = 0, **metadata: object) -> Splats:
    """Random splats inside every format's ranges."""
    splats = random_splats(count, rest, seed, **metadata)
    return replace(
        splats,
        log_scales=splats.log_scales.clip(-9, 2),
        sh_dc=splats.sh_dc.clip(-1.7, 1.7),
        sh_rest=(0.2 * splats.sh_rest).clip(-0.9, 0.9),
    )


def matched(splats: Splats, other: Splats) -> Splats:
    """The rows of `other` in the order of `splats`: a compressed PLY is sorted along a curve."""
    look = [np.c_[s.means, 0.05 * s.sh_dc, 0.01 * s.log_scales, 0.01 * s.sh_rest[:, :8, 0]] for s in (splats, other)]
    index = cKDTree(look[1]).query(look[0])[1]
    assert len(np.unique(index)) > 0.999 * len(splats)
    return replace(other, **{name: getattr(other, name)[index] for name in PARAMETERS})


def differences(splats: Splats, other: Splats) -> dict[str, float]:
    """Greatest difference by column; quaternions as lines, opacities as they are seen."""
    units = [s.quaternions / np.linalg.norm(s.quaternions, axis=1, keepdims=True) for s in (splats, other)]
    sign = np.where((units[0] * units[1]).sum(axis=1, keepdims=True) < 0, -1, 1)
    alphas = [1 / (1 + np.exp(-s.logit_opacities.astype(np.float64))) for s in (splats, other)]
    kept = other.sh_rest.shape[1]
    pairs = {
        "means": (splats.means, other.means),
        "log_scales": (splats.log_scales, other.log_scales),
        "quaternions": (units[0], sign * units[1]),
        "opacities": tuple(alphas),
        "sh_dc": (splats.sh_dc, other.sh_dc),
        "sh_1": (splats.sh_rest[:, : min(3, kept)], other.sh_rest[:, :3]),
        "sh_rest": (splats.sh_rest[:, 3:kept], other.sh_rest[:, 3:]),
    }
    return {name: float(np.abs(a - b).max()) if a.size else 0.0 for name, (a, b) in pairs.items()}


def assert_within(found: dict[str, float], **steps: float) -> None:
    """`steps` of every column; half of one, and a little for float32, may be lost."""
    assert set(found) == set(steps)
    for name, step in steps.items():
        assert found[name] <= 0.5 * step * 1.001 + 2e-6, (name, found[name], step)


def cut(splats: Splats) -> Splats:
    """What is left of the colours in the ranges of SPZ."""
    end = 0.5 / 0.15
    return replace(splats, sh_dc=splats.sh_dc.clip(-end, end), sh_rest=splats.sh_rest.clip(-1, 127 / 128))


SPZ_STEPS = {
    "log_scales": 1 / 16, "quaternions": 0.0040, "opacities": 2 / 255, "sh_dc": 1 / 255 / 0.15,
    "sh_1": 1 / 16 + 1 / 128, "sh_rest": 1 / 8 + 1 / 64,
}  # fmt: skip
"""Opacities and harmonics: at the ends of their ranges up to a whole step is lost."""


@pytest.mark.parametrize("name", ["playbot8k.spz", "playbot8k_v3.spz"])
def test_spz_of_another_tool_is_the_ply(name: str, shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "converted"
    expected, got = (read_scene_file(folder / file) for file in ("playbot8k.ply", name))
    assert got.sh_degree == 2
    assert_within(differences(cut(expected), got), means=1 / 4096, **SPZ_STEPS)
    for sign, axis in ((-1, 1), (-1, 2)):  # both signs occur, so that a flip would show
        assert np.corrcoef(expected.means[:, axis], sign * got.means[:, axis])[0, 1] < -0.999
    for k in range(8):
        assert np.corrcoef(expected.sh_rest[:, k, 0], got.sh_rest[:, k, 0])[0, 1] > 0.6


def test_compressed_ply_of_another_tool_is_the_ply(shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "converted"
    expected, got = (read_scene_file(folder / file) for file in ("playbot8k.ply", "playbot8k.compressed.ply"))
    inside = replace(expected, sh_rest=expected.sh_rest.clip(-4, 4))
    steps = {"means": 0.0011, "log_scales": 0.006, "quaternions": 0.0040, "opacities": 2 / 255}
    assert_within(differences(inside, matched(expected, got)), **steps, sh_dc=0.028, sh_1=1 / 32, sh_rest=1 / 32)


def test_one_model_in_two_forms(shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "original"
    packed, spz = read_scene_file(folder / "biker.compressed.ply"), read_scene_file(folder / "biker.spz")
    assert len(packed) == len(spz) == 152746
    found = differences(cut(packed), spz)
    assert found["means"] <= 0.5 / 4096 + 1e-6
    assert found["opacities"] <= 1 / 255
    assert found["quaternions"] <= 0.004
    inside = (packed.log_scales > -10) & (packed.log_scales < 5.9)
    assert np.abs(packed.log_scales - spz.log_scales)[inside].max() <= 1 / 32 + 1e-6


def test_four_splats_in_five_files(shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "original" / "minimal"
    expected = {(x, 0.0, z) for x in (-1.0, 0.0) for z in (-1.0, 0.0)}
    for name in ("minimal.splat", "minimal.ksplat", "minimal-v3.spz", "minimal-v4.spz"):
        splats = read_scene_file(folder / name)
        assert {tuple(row) for row in splats.means.tolist()} == expected, name
        np.testing.assert_allclose(splats.logit_opacities, np.log(230 / 25), rtol=1e-5)
        np.testing.assert_allclose(np.exp(splats.log_scales), 0.1, atol=0.002)
        np.testing.assert_allclose(splats.sh_dc[0], [-0.59, -0.59, 0.007], atol=0.01)
    second = read_scene_file(folder / "minimal-v2.spz")  # made in other axes than its sisters
    assert {tuple(row) for row in second.means.tolist()} == {(x, y, -z) for x, y, z in expected}
    np.testing.assert_allclose(np.abs(second.quaternions), [[1, 0, 0, 0]] * 4, atol=0.004)
    with pytest.raises(FileFormatError, match="version 2 of SPZ, but not packed by gzip"):
        read_scene_file(folder / "minimal-raw.spz")


@pytest.mark.parametrize("rest", [0, 3, 8, 15])
@pytest.mark.parametrize("extension", SMALL)
def test_written_and_read_back_within_the_steps(tmp_path: Path, extension: str, rest: int) -> None:
    splats = moderate(CHUNK_ROWS + 300, rest)
    path = tmp_path / f"a{extension}"
    said = write_scene_file(path, splats)
    back = read_scene_file(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert back.sh_rest.shape[1] == (0 if extension == ".splat" else rest)
    assert back.notices == ()
    if extension == ".splat":
        assert said == ((f"the spherical harmonics of {len(splats):,} splats were left out: "
                         ".splat holds one colour each",) if rest else ())  # fmt: skip
        colour = 1 / 255 / 0.28209479
        found, exact = differences(splats, back), {"means": 0, "log_scales": 0, "sh_1": 0, "sh_rest": 0}
        assert_within(found, **exact, quaternions=0.018, opacities=1.1 / 255, sh_dc=colour)
        return
    assert said == ()
    if extension == ".spz":
        assert_within(differences(splats, back), means=1 / 4096, **SPZ_STEPS)
        return
    steps = {"log_scales": 0.011, "quaternions": 0.004, "opacities": 1.1 / 255, "sh_dc": 0.014}
    assert_within(differences(splats, matched(splats, back)), means=0.008, **steps, sh_1=1 / 32, sh_rest=1 / 32)


@pytest.mark.parametrize("extension", [".spz", ".splat"])
def test_what_was_read_is_written_again(tmp_path: Path, extension: str, shared_data: Path) -> None:
    """A second pass loses nothing more (in a compressed PLY other rows may share a chunk's ranges then)."""
    splats = read_scene_file(shared_data / "splat_samples" / "converted" / "playbot8k.ply")
    write_scene_file(tmp_path / f"a{extension}", splats)
    once = read_scene_file(tmp_path / f"a{extension}")
    assert write_scene_file(tmp_path / f"b{extension}", once) == ()
    again = read_scene_file(tmp_path / f"b{extension}")
    assert max(value for name, value in differences(once, again).items() if name != "quaternions") < 1e-5
    assert differences(once, again)["quaternions"] < 0.006
    np.testing.assert_array_equal(once.logit_opacities, again.logit_opacities)


@pytest.mark.parametrize("extension", SMALL)
def test_a_transform_runs_chunk_by_chunk(tmp_path: Path, extension: str) -> None:
    splats, move = moderate(CHUNK_ROWS + 5, 3), similarity_transform(random_similarity())
    sizes: list[int] = []

    def watched(part: Splats) -> Splats:
        sizes.append(len(part))
        return move(part)

    write_scene_file(tmp_path / f"a{extension}", splats, watched)
    assert max(sizes) <= CHUNK_ROWS
    expected, got = move(splats), read_scene_file(tmp_path / f"a{extension}")
    got = matched(expected, got) if extension == ".compressed.ply" else got
    assert np.abs(got.means - expected.means).max() < 0.003


def test_the_axes_of_spz_are_half_a_turn_about_x() -> None:
    turn = torch.diag(torch.from_numpy(_FLIP.astype(np.float64)))
    rest = torch.randn(20, 15, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turned = rotate_rest(rest, turn).numpy()
    np.testing.assert_allclose(turned, rest.numpy() * _FLIP_REST[:, None], atol=1e-12)


def test_the_bytes_of_spz(tmp_path: Path) -> None:
    splats = moderate(3, 3, compensated=True)
    write_scene_file(tmp_path / "a.spz", splats)
    raw = (tmp_path / "a.spz").read_bytes()
    magic, version, rows, degree, bits, flags, streams, table = struct.unpack_from("<4sIIBBBBI", raw)
    assert (magic, version, rows, degree, flags, streams, table) == (b"NGSP", 4, 3, 1, 1, 6, 32)
    assert bits >= 12
    entries = struct.unpack_from("<12Q", raw, 32)
    assert entries[1::2] == (27, 3, 9, 9, 12, 27)
    assert 32 + 96 + sum(entries[::2]) == len(raw)
    assert read_scene_file(tmp_path / "a.spz").metadata.compensated


@pytest.mark.parametrize(("extent", "bits"), [(1e-4, 24), (1.0, 15), (1000.0, 12), (3000.0, 11), (8e6, 0)])
def test_spz_chooses_its_fractional_bits(tmp_path: Path, extent: float, bits: int) -> None:
    splats = moderate(40, 0)
    scale = np.float32(extent / np.abs(splats.means).max())
    splats = replace(splats, means=splats.means * scale)
    write_scene_file(tmp_path / "a.spz", splats)
    assert (tmp_path / "a.spz").read_bytes()[13] == bits
    back = read_scene_file(tmp_path / "a.spz")
    np.testing.assert_allclose(back.means, splats.means, atol=0.5 / 2**bits + 1e-7 * extent)
    with pytest.raises(FileFormatError, match="SPZ ends at 8388607"):
        write_scene_file(tmp_path / "b.spz", replace(splats, means=splats.means * np.float32(1e7 / extent)))


def test_coefficients_of_degree_4_are_left_out_aloud(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 5
    body = rng.integers(0, 256, n * 20, np.uint8).tobytes() + rng.integers(0, 256, n * 72, np.uint8).tobytes()
    header = struct.pack("<4sIIBBBB", b"NGSP", 3, n, 4, 12, 2, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(header + body + struct.pack("<II", 77, 6) + b"vendor"))
    splats = read_scene_file(tmp_path / "a.spz")
    assert splats.sh_rest.shape == (n, 15, 3)
    assert splats.notices == ("coefficients of degree 4 were left out", "records of a vendor were left out")
    rest = np.frombuffer(body[-n * 72 :], np.uint8).reshape(n, 24, 3)
    np.testing.assert_allclose(splats.sh_rest[:, 0] * -1, (rest[:, 0] - 128.0) / 128)


@pytest.mark.parametrize("axes", range(1, 9))
@pytest.mark.parametrize("version", [3, 4])
def test_stated_axes_are_heeded(tmp_path: Path, axes: int, version: int) -> None:
    """The numbers count left right, down up, back forward; mirrored axes included."""
    if version == 4:
        write_scene_file(tmp_path / "a.spz", moderate(50))
        raw = (tmp_path / "a.spz").read_bytes()
        record = struct.pack("<III", 0xADBE0003, 4, axes)
        table = struct.pack("<I", 32 + len(record))
        stated = raw[:14] + bytes([raw[14] | 2]) + raw[15:16] + table + raw[20:32] + record + raw[32:]
    else:
        body = np.random.default_rng(0).integers(0, 256, 50 * 65, np.uint8).tobytes()
        head = struct.pack("<4sIIBBBB", b"NGSP", 3, 50, 3, 12, 0, 0)
        (tmp_path / "a.spz").write_bytes(gzip.compress(head + body))
        stated = gzip.compress(head[:14] + b"\2" + head[15:] + body + struct.pack("<III", 0xADBE0003, 4, axes))
    (tmp_path / "b.spz").write_bytes(stated)
    plain, got = read_scene_file(tmp_path / "a.spz"), read_scene_file(tmp_path / "b.spz")
    assert got.notices == ()
    name = ("LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF")[axes - 1]
    signs = np.array([1 if a == b else -1 for a, b in zip(name, "RUB", strict=True)])
    np.testing.assert_array_equal(got.means, plain.means * signs)
    flip = np.diag(signs.astype(np.float64))
    for q, p in zip(got.quaternions[:10].astype(np.float64), plain.quaternions[:10].astype(np.float64), strict=True):
        np.testing.assert_allclose(matrix(q), flip @ matrix(p) @ flip, atol=1e-6)
    directions = torch.nn.functional.normalize(torch.randn(40, 3, dtype=torch.float64), dim=1)
    there, here = basis(directions @ torch.from_numpy(flip), 3)[:, 1:], basis(directions, 3)[:, 1:]
    for row in range(5):
        np.testing.assert_allclose(there.numpy() @ got.sh_rest[row], here.numpy() @ plain.sh_rest[row], atol=1e-5)


def matrix(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (struct.pack("<III", 0xADBE0003, 4, 17), "states axes of number 17"),
        (struct.pack("<IIH", 0xADBE0003, 2, 1), "about axes has 2 bytes"),
        (struct.pack("<III", 0xADBE0003, 5, 1), "record of 5 bytes does not fit"),
        (b"vendor", "record of 6 bytes does not fit"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, record: bytes, message: str) -> None:
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 1, 0, 12, 2, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(20) + record))
    with pytest.raises(FileFormatError, match=message):
        read_scene_file(tmp_path / "a.spz")


def test_metadata_travel_where_there_is_room(tmp_path: Path) -> None:
    splats = moderate(300, 3, filter_variance=0.1, compensated=True, sh_degree=0, order="ray")
    assert write_scene_file(tmp_path / "a.compressed.ply", splats) == ()
    assert read_scene_file(tmp_path / "a.compressed.ply").metadata == splats.metadata
    said = write_scene_file(tmp_path / "a.spz", splats)
    assert said == ("this format cannot say: filter_variance 0.1, order ray",)
    said = write_scene_file(tmp_path / "a.splat", replace(splats, sh_rest=splats.sh_rest[:, :0]))
    assert said == ("this format cannot say: filter_variance 0.1, compensated True, order ray",)
    assert read_scene_file(tmp_path / "a.splat").metadata == SplatMetadata()


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    splats = moderate(30, 3)
    splats.sh_rest[:5, 0, 0] = 7
    splats.sh_dc[:2, 0] = -9
    assert write_scene_file(tmp_path / "a.compressed.ply", splats) == (
        "5 value(s) of spherical harmonics beyond +-4 were cut to the format's range",
    )
    assert write_scene_file(tmp_path / "a.spz", splats) == (
        "2 value(s) of colours (dc beyond +-3.33) were cut to the format's range",
        "5 value(s) of spherical harmonics beyond +-1 were cut to the format's range",
    )
    assert write_scene_file(tmp_path / "a.splat", splats)[0].startswith("2 value(s) of colours beyond 0..1")


def test_the_header_not_the_name_says_that_a_ply_is_compressed(tmp_path: Path) -> None:
    splats = moderate(700)
    write_compressed_ply(tmp_path / "a.ply", splats)
    write_ply(tmp_path / "b.compressed.ply", splats)
    assert len(read_scene_file(tmp_path / "a.ply")) == 700
    np.testing.assert_array_equal(read_scene_file(tmp_path / "b.compressed.ply").means, splats.means)


def test_chunks_without_ranges_of_colours_are_read(tmp_path: Path) -> None:
    """As tools wrote them before 2025: colours over 0..1."""
    splats = moderate(600, 3)
    write_compressed_ply(tmp_path / "a.ply", splats)
    head, mark, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    lines = [
        line
        for line in head.split(b"\n")
        if not line.endswith((b"min_r", b"min_g", b"min_b", b"max_r", b"max_g", b"max_b"))
    ]
    ranges = np.frombuffer(body[: 3 * 72], "<f4").reshape(3, 18)[:, :12]
    (tmp_path / "b.ply").write_bytes(b"\n".join(lines) + mark + ranges.tobytes() + body[3 * 72 :])
    new, old = read_scene_file(tmp_path / "a.ply"), read_scene_file(tmp_path / "b.ply")
    np.testing.assert_array_equal(old.means, new.means)
    np.testing.assert_array_equal(old.sh_rest, new.sh_rest)
    packed = np.frombuffer(body[3 * 72 : 3 * 72 + 600 * 16], "<u4").reshape(600, 4)[:, 3]
    np.testing.assert_allclose(0.5 + 0.28209479 * old.sh_dc[:, 0], (packed >> 24) / 255, atol=1e-6)


@pytest.mark.parametrize("extension", [".compressed.ply", ".spz"])
def test_no_splats_at_all(tmp_path: Path, extension: str) -> None:
    write_scene_file(tmp_path / f"a{extension}", moderate(0, 3))
    assert len(read_scene_file(tmp_path / f"a{extension}")) == 0


def test_the_longest_extension_counts() -> None:
    assert extension_of("a/B.Compressed.PLY") == ".compressed.ply"
    assert extension_of("a.b.ply") == ".ply"
    assert extension_of("compressed.ply") == ".ply"
    assert extension_of(".ply") is None
    assert extension_of("a.plyx") is None
    assert set(SMALL) < set(FORMATS)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("rest", [0, 3, 8, 15])
def test_ksplat_at_every_level(tmp_path: Path, level: int, rest: int) -> None:
    first, second = moderate(37, rest), moderate(21, 0, seed=3)
    first, second = (replace(s, means=s.means.clip(-1.2, 1.2)) for s in (first, second))
    (tmp_path / "a.ksplat").write_bytes(ksplat(level, first, second))
    got = read_scene_file(tmp_path / "a.ksplat")
    assert got.notices == ()
    assert len(got) == 58
    assert got.sh_rest.shape[1] == rest
    colour = 1 / 255 / 0.28209479
    high = {"means": 0.0, "log_scales": 0.0, "quaternions": 0.0, "sh_1": 0.0, "sh_rest": 0.0}
    coded = {"means": 2.5 / 32767, "log_scales": 1 / 1024, "quaternions": 1 / 1024}
    harmonics = {1: 1 / 1024, 2: (RANGE[1] - RANGE[0]) / 255}
    steps = coded | dict.fromkeys(("sh_1", "sh_rest"), harmonics[level]) if level else high
    shared = {"opacities": 1.1 / 255, "sh_dc": colour}
    assert_within(differences(first, got.rows(0, 37)), **steps, **shared)
    padded = replace(second, sh_rest=np.zeros((21, rest, 3), np.float32))
    assert_within(differences(padded, got.rows(37, 58)), **steps, **shared)
    with pytest.raises(FileFormatError, match=r"no writer for the extension `\.ksplat`"):
        write_scene_file(tmp_path / "b.ksplat", got)


@pytest.mark.parametrize("extension", SMALL)
def test_extra_memory_is_a_few_chunks(tmp_path: Path, extension: str) -> None:
    peaks = []
    for chunks in (2, 8):
        splats = moderate(chunks * CHUNK_ROWS)
        tracemalloc.start()
        write_scene_file(tmp_path / f"a{extension}", splats)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        back = read_scene_file(tmp_path / f"a{extension}")
        held = sum(getattr(back, name).nbytes for name in PARAMETERS)
        peaks.append((written, tracemalloc.get_traced_memory()[1] - before - held))
        tracemalloc.stop()
    order = 40 * 6 * CHUNK_ROWS if extension == ".compressed.ply" else 0  # the curve, and what sorting it takes
    assert peaks[1][0] < 1.2 * peaks[0][0] + order
    assert peaks[1][1] < 1.3 * peaks[0][1] + 72 * 4 * 6 * CHUNK_ROWS // 256
    assert peaks[1][0] < 40 * CHUNK_ROWS * 248

"""Damaged and hostile scene files: always a FileFormatError, soon, and without memory for what is not there."""

from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from ksplat_maker import ksplat
from test_small_formats import moderate

from smalti.files import read_scene_file, write_scene_file
from smalti.files.splats import PARAMETERS, FileFormatError, Splats

EXTENSIONS = (".compressed.ply", ".spz", ".old.spz", ".splat", ".ksplat")
HEADERS = {".compressed.ply": 1500, ".spz": 128, ".old.spz": 40, ".splat": 32, ".ksplat": 4096 + 64}
"""Bytes at the beginning of every format that decide about the rest."""


def spz_stream(count: int, body: bytes, **fields: int) -> bytes:
    """An unpacked SPZ of version 2 or 3."""
    head = {"version": 3, "degree": 0, "bits": 12, "flags": 0} | fields
    return (
        struct.pack("<4sIIBBBB", b"NGSP", head["version"], count, head["degree"], head["bits"], head["flags"], 0) + body
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good file of every format, 300 rows of degree 1."""
    folder, splats, found = tmp_path_factory.mktemp("good"), moderate(300, 3), {}
    for extension in EXTENSIONS:
        path = folder / f"a{extension}"
        if extension == ".ksplat":
            path.write_bytes(ksplat(1, splats.rows(0, 200), splats.rows(200, 300)))
        elif extension == ".old.spz":
            body = np.random.default_rng(0).integers(0, 256, 300 * 29, np.uint8).tobytes()
            path.write_bytes(gzip.compress(spz_stream(300, body, degree=1)))
        else:
            write_scene_file(path, splats)
        assert len(read_scene_file(path)) == 300
        found[extension] = path.read_bytes()
    return found


def attempt(path: Path, raw: bytes, allowed: int = 1 << 26) -> Splats | FileFormatError:
    """Read `raw`; whatever comes is splats with finite numbers or the one error, in two seconds and bounded memory."""
    path.write_bytes(raw)
    start = time.monotonic()
    tracemalloc.start()
    try:
        result = read_scene_file(path)
        assert all(np.isfinite(getattr(result, name)).all() for name in PARAMETERS)
    except FileFormatError as error:
        result = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(result, Splats) or str(path) in str(result)
    assert time.monotonic() - start < 2
    assert peak < allowed
    return result


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_truncated_anywhere(tmp_path: Path, extension: str, files: dict[str, bytes]) -> None:
    raw, path = files[extension], tmp_path / f"a{extension}"
    header = min(HEADERS[extension], len(raw))
    rng = np.random.default_rng(0)
    lengths = {*range(0, header, 1 if header < 200 else 17), *rng.integers(header, len(raw), 40).tolist(), len(raw) - 1}
    for length in sorted(lengths):
        result = attempt(path, raw[:length])
        if extension == ".splat" and length and length % 32 == 0:
            assert isinstance(result, Splats)  # has no header: a shorter file is a smaller scene
        else:
            assert isinstance(result, FileFormatError), (length, result)


@pytest.mark.parametrize("extension", EXTENSIONS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_changed_bytes(
    extension: str, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(files[extension])
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([min(HEADERS[extension], len(raw)), len(raw)]))
        place = data.draw(st.integers(0, end - 4))
        value = data.draw(st.sampled_from([0, 1, 255, 0x7FC00000, 0x7F800000, 1 << 31, (1 << 32) - 1, 65535, 2 << 24]))
        width = data.draw(st.sampled_from([1, 2, 4]))
        raw[place : place + width] = struct.pack("<I", value)[:width]
    attempt(tmp_path_factory.getbasetemp() / f"changed{extension}", bytes(raw), 1 << 28)


@pytest.mark.parametrize("extension", EXTENSIONS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(raw=st.binary(max_size=200))
def test_noise(extension: str, raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = attempt(tmp_path_factory.getbasetemp() / f"noise{extension}", raw)
    assert isinstance(result, FileFormatError) or extension == ".splat"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_wrong_beginning(tmp_path: Path, extension: str, files: dict[str, bytes]) -> None:
    for other, raw in files.items():
        if other.endswith(extension) or extension.endswith(other):
            continue
        result = attempt(tmp_path / f"a{extension}", raw)
        assert isinstance(result, FileFormatError), (extension, other)


@pytest.mark.parametrize("count", [301, 1 << 16, 1 << 31, (1 << 32) - 1])
def test_oversized_counts(tmp_path: Path, files: dict[str, bytes], count: int) -> None:
    word = struct.pack("<I", count)
    spz = bytearray(files[".spz"])
    spz[8:12] = word
    assert isinstance(attempt(tmp_path / "a.spz", bytes(spz)), FileFormatError)
    body = gzip.decompress(files[".old.spz"])
    old = gzip.compress(body[:8] + word + body[12:])
    assert isinstance(attempt(tmp_path / "a.spz", old), FileFormatError)
    text = files[".compressed.ply"].replace(b"element vertex 300", b"element vertex %d" % count)
    assert isinstance(attempt(tmp_path / "a.ply", text), FileFormatError)
    text = text.replace(b"element chunk 2", b"element chunk %d" % -(-count // 256))
    text = text.replace(b"element sh 300", b"element sh %d" % count)
    assert "is truncated" in str(attempt(tmp_path / "a.ply", text))
    for place in (4, 16, 4096, 4096 + 4, 4096 + 12, 4096 + 32, 4096 + 36):
        ksplat_file = bytearray(files[".ksplat"])
        ksplat_file[place : place + 4] = word
        result = attempt(tmp_path / "a.ksplat", bytes(ksplat_file))
        assert isinstance(result, FileFormatError), place


def test_a_gzip_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path) -> None:
    bomb = gzip.compress(spz_stream(10, bytes(1 << 28)), compresslevel=6)
    assert len(bomb) < 1 << 19
    result = attempt(tmp_path / "a.spz", bomb, 1 << 22)
    assert "goes on after its last attribute" in str(result)
    announced = gzip.compress(spz_stream((1 << 28) // 20, bytes(1 << 20)))
    assert "more than any scene packs to" in str(attempt(tmp_path / "a.spz", announced, 1 << 22))
    vendors = gzip.compress(spz_stream(10, bytes(1 << 28), flags=2))
    assert "goes on after its last attribute" in str(attempt(tmp_path / "a.spz", vendors, 1 << 23))


def test_a_zstandard_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path) -> None:
    def framed(count: int, sizes: list[int], announced: list[int]) -> bytes:
        frames = [zstandard.ZstdCompressor().compress(bytes(size)) for size in sizes]
        head = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, 0, 12, 0, len(frames), 32)
        table = b"".join(struct.pack("<QQ", len(f), size) for f, size in zip(frames, announced, strict=True))
        return head + table + b"".join(frames)

    widths = [9, 1, 3, 3, 4]
    honest = [10 * width for width in widths]
    assert len(attempt(tmp_path / "a.spz", framed(10, honest, honest))) == 10  # pyright: ignore[reportArgumentType]
    longer = [honest[0], 1 << 28, *honest[2:]]
    assert "longer than the header says" in str(attempt(tmp_path / "a.spz", framed(10, longer, honest), 1 << 22))
    assert "unpack to" in str(attempt(tmp_path / "a.spz", framed(10, longer, longer), 1 << 22))
    huge = [(1 << 30) // 20 * width for width in widths]
    result = attempt(tmp_path / "a.spz", framed((1 << 30) // 20, honest, huge), 1 << 22)
    assert "more than any scene packs to" in str(result)
    shorter = [honest[0] - 1, *honest[1:]]
    assert "ends inside its positions" in str(attempt(tmp_path / "a.spz", framed(10, shorter, honest)))


def test_a_damaged_checksum_is_an_error(tmp_path: Path, files: dict[str, bytes]) -> None:
    raw = bytearray(files[".old.spz"])
    raw[-6] ^= 1
    assert "cannot be unpacked" in str(attempt(tmp_path / "a.spz", bytes(raw)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path: Path, files: dict[str, bytes], value: float) -> None:
    word = np.float32(value).tobytes()
    splat = bytearray(files[".splat"])
    splat[32 * 7 + 4 : 32 * 7 + 8] = word
    assert "means in 1 row(s): 7 " in str(attempt(tmp_path / "a.splat", bytes(splat)))
    splat = bytearray(files[".splat"])
    splat[32 * 9 + 12 : 32 * 9 + 16] = word
    expected = "negative size" if value < 0 else "log_scales in 1 row(s): 9 "
    assert expected in str(attempt(tmp_path / "a.splat", bytes(splat)))
    packed = bytearray(files[".compressed.ply"])
    start = packed.index(b"end_header\n") + 11
    packed[start + 4 : start + 8] = word  # min_y of the first chunk
    assert "means in 256 row(s): 0, 1, 2, 3, 4, ..." in str(attempt(tmp_path / "a.ply", bytes(packed)))
    buckets = bytearray(files[".ksplat"])
    place = 4096 + 2048 + 4 * struct.unpack_from("<I", buckets, 4096 + 36)[0]
    buckets[place : place + 4] = word  # the first middle
    assert "means in 8 row(s)" in str(attempt(tmp_path / "a.ksplat", bytes(buckets)))


def test_zeros_are_replaced_aloud(tmp_path: Path, files: dict[str, bytes]) -> None:
    splat = bytearray(files[".splat"])
    splat[12:16] = bytes(4)
    splat[28:32] = b"\x80" * 4
    result = attempt(tmp_path / "a.splat", bytes(splat))
    assert isinstance(result, Splats)
    assert result.notices == (
        "1 splats had a size of 0, which became 1e-10",
        "1 splats had a quaternion of length 0, which became the identity",
    )
    np.testing.assert_array_equal(result.quaternions[0], [1, 0, 0, 0])


@pytest.mark.parametrize("extension", [".compressed.ply", ".spz", ".splat"])
def test_writing_nan_is_refused_and_the_old_file_stays(tmp_path: Path, extension: str) -> None:
    path, splats = tmp_path / f"a{extension}", moderate(50, 3)
    path.write_bytes(b"precious")
    for name in PARAMETERS:
        broken = moderate(50, 3)
        getattr(broken, name)[4] = np.nan
        with pytest.raises(FileFormatError, match=rf"NaN or Inf in {name} in 1 row\(s\)"):
            write_scene_file(path, broken)
    assert path.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1
    write_scene_file(path, splats)
    assert len(read_scene_file(path)) == 50

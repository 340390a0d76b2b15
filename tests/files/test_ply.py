"""The 3DGS PLY: round trips, a foreign file against another tool's statistics, memory, and broken files."""

from __future__ import annotations

import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from smalti.cameras.similarity import Similarity
from smalti.files import read_scene_file, write_scene_file
from smalti.files.ply import CHUNK_ROWS, PlyError, column_names, read_ply, write_ply
from smalti.files.splats import FileFormatError, SplatMetadata, Splats, quaternion_of, similarity_transform


def random_splats(count: int, rest: int = 15, seed: int = 0, **metadata: object) -> Splats:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Splats(
        draw(count, 3),
        draw(count, 3) - 3,
        draw(count, 4),
        draw(count),
        draw(count, 3),
        draw(count, rest, 3),
        SplatMetadata(**metadata),  # pyright: ignore[reportArgumentType]
    )


def random_similarity(seed: int = 0) -> Similarity:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.linalg.det(q))
    return Similarity(0.37, q, torch.randn(3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("rest", [0, 3, 8, 15])
def test_written_and_read_back_bit_for_bit(tmp_path: Path, rest: int) -> None:
    splats = random_splats(
        CHUNK_ROWS + 3, rest, filter_variance=0.1, compensated=True, sh_degree=0, order="ray", frame="scene"
    )
    write_ply(tmp_path / "a.ply", splats)
    back = read_ply(tmp_path / "a.ply")
    for name in ("means", "log_scales", "quaternions", "logit_opacities", "sh_dc", "sh_rest"):
        np.testing.assert_array_equal(getattr(back, name), getattr(splats, name))
    assert back.metadata == splats.metadata
    assert back.notices == ()
    write_ply(tmp_path / "b.ply", back)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ply", "b.ply"]  # no scratch file stays


def test_layout_is_that_of_3dgs(tmp_path: Path) -> None:
    splats = random_splats(2, 8)
    write_ply(tmp_path / "a.ply", splats)
    raw = (tmp_path / "a.ply").read_bytes()
    header, _, body = raw.partition(b"end_header\n")
    names = re.findall(r"property float (\w+)", header.decode())
    assert names == column_names(8)
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-8:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    row = dict(zip(names, np.frombuffer(body, "<f4").reshape(2, -1)[1], strict=True))
    assert row["f_rest_8"] == splats.sh_rest[1, 0, 1]  # channel-major: green begins after the 8 of red
    assert row["f_rest_7"] == splats.sh_rest[1, 7, 0]
    assert row["ny"] == 0
    assert row["opacity"] == splats.logit_opacities[1]
    assert row["rot_0"] == splats.quaternions[1, 0]


def test_a_file_without_our_comments_means_the_3dgs_defaults(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_splats(3, 3, filter_variance=0.1, compensated=True))
    raw = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "b.ply").write_bytes(re.sub(rb"comment [^\n]*\n", b"", raw))
    back = read_ply(tmp_path / "b.ply")
    assert back.metadata == SplatMetadata()
    assert back.sh_degree == 1


@pytest.mark.parametrize("name", ["playbot8k", "guitar20k"])
def test_statistics_agree_with_another_tool(name: str, shared_data: Path) -> None:
    path = shared_data / "splat_samples" / "converted" / f"{name}.ply"
    splats = read_ply(path)
    table = {}
    for line in (path.parent / f"{name}.summary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 9 and cells[0] not in ("Column", "") and not cells[0].startswith("-"):
            table[cells[0]] = [float(cell) for cell in cells[1:5]]
    rest = splats.sh_rest.shape[1]
    columns = {f"f_rest_{c * rest + k}": splats.sh_rest[:, k, c] for c in range(3) for k in range(rest)}
    for c, axis in enumerate("xyz"):
        columns[axis], columns[f"f_dc_{c}"], columns[f"scale_{c}"] = (
            splats.means[:, c],
            splats.sh_dc[:, c],
            splats.log_scales[:, c],
        )
    columns |= {f"rot_{c}": splats.quaternions[:, c] for c in range(4)}
    columns["opacity"] = splats.logit_opacities
    assert set(table) == set(columns)
    infinite = bool(splats.notices)
    assert infinite == (name == "guitar20k")  # ten of its opacities are exactly 1
    assert not infinite or splats.notices[0].startswith("10 opacities")
    for column, expected in table.items():
        values = columns[column].astype(np.float64)
        got = np.array([values.min(), values.max(), np.median(values), values.mean()])
        if column == "opacity" and infinite:
            finite = values[values < 20]
            got[2:] = np.median(finite), finite.mean()  # the tool leaves infinite values out of these two
        if column.startswith(
            "scale"
        ):  # that tool prints sizes, opacities and colours, statistics taken on the raw values
            got = np.exp(got)
        elif column == "opacity":
            got = 1 / (1 + np.exp(-got))
        elif column.startswith("f_dc"):
            got = 0.5 + 0.28209479177387814 * got
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6, err_msg=column)


def test_a_foreign_column_order_survives(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "splat_samples" / "converted" / "playbot8k.ply"
    splats = read_ply(path)
    assert splats.sh_degree == 2
    write_ply(tmp_path / "a.ply", splats)
    back = read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(back.sh_rest, splats.sh_rest)
    np.testing.assert_array_equal(back.quaternions, splats.quaternions)


def test_extra_memory_is_one_chunk(tmp_path: Path) -> None:
    small, large = 2 * CHUNK_ROWS, 8 * CHUNK_ROWS
    write_peaks, read_peaks = [], []
    transform = similarity_transform(random_similarity())
    for count in (small, large):
        splats = random_splats(count)
        size = sum(
            getattr(splats, name).nbytes
            for name in ("means", "log_scales", "quaternions", "logit_opacities", "sh_dc", "sh_rest")
        )
        tracemalloc.start()
        write_ply(tmp_path / "a.ply", splats, transform)
        write_peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        read_ply(tmp_path / "a.ply")
        read_peaks.append(tracemalloc.get_traced_memory()[1] - before - size)
        tracemalloc.stop()
    for peaks in (write_peaks, read_peaks):
        assert peaks[1] < 1.2 * peaks[0]
        assert peaks[1] < 12 * CHUNK_ROWS * 248  # a few copies of one chunk


def broken(tmp_path: Path, change: object, rest: int = 3) -> Path:
    path = tmp_path / "broken.ply"
    write_ply(path, random_splats(10, rest))
    path.write_bytes(change(path.read_bytes()))  # pyright: ignore[reportCallIssue]
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: b"", "is empty"),
        (lambda raw: raw[:100], "end_header"),
        (lambda raw: raw[:-50], r"truncated: 10 rows announced, 990 of 1040 bytes follow \(9 whole rows\)"),
        (lambda raw: raw + b"x", "1 bytes after its last row"),
        (lambda raw: b"PK\x03\x04" + raw, "does not begin with `ply`"),
        (lambda raw: raw.replace(b"binary_little_endian", b"ascii"), "is `ascii`"),
        (lambda raw: raw.replace(b"little", b"big"), "is `binary_big_endian`"),
        (lambda raw: raw.replace(b"1.0", b"2.0", 1), "unknown format"),
        (lambda raw: raw.replace(b"float opacity", b"float opacitx"), "misses the vertex properties opacity"),
        (lambda raw: raw.replace(b"float f_rest_8", b"float f_rust_8"), "8 f_rest properties"),
        (lambda raw: raw.replace(b"float rot_3", b"float rot_2"), "`?rot_2`? twice"),
        (lambda raw: raw.replace(b"float scale_0", b"int scale_0"), "scale_0 has type int32"),
        (lambda raw: raw.replace(b"property float nx", b"property list uchar int nx"), "list property"),
        (lambda raw: raw.replace(b"property float nx", b"properti float nx"), "makes no sense"),
        (lambda raw: raw.replace(b"element vertex", b"element splats"), "expected `vertex` first"),
        (lambda raw: raw.replace(b"float f_dc_0", b"float red"), "misses|point cloud"),
        (lambda raw: raw.replace(b"float x\n", b"uint packed_position\n"), "compressed"),
        (lambda raw: raw.replace(b"variance 0.3", b"variance abc"), r"`comment smalti\.\*` line has no meaning"),
        (lambda raw: raw.replace(b"compensated 0", b"compensated 7"), r"`comment smalti\.\*` line has no meaning"),
        (lambda raw: raw.replace(b"sh_degree 1", b"sh_degree 3"), "sh_degree 3"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, change: object, message: str) -> None:
    path = broken(tmp_path, change)
    with pytest.raises(PlyError, match=message) as caught:
        read_ply(path)
    assert str(path) in str(caught.value)


def test_rows_with_nan_are_named(tmp_path: Path) -> None:
    splats = random_splats(CHUNK_ROWS + 20, 0)
    write_ply(tmp_path / "a.ply", splats)
    raw = bytearray((tmp_path / "a.ply").read_bytes())
    start, width = raw.index(b"end_header\n") + 11, 4 * len(column_names(0))
    for row, column in ((7, 0), (CHUNK_ROWS + 4, 10)):  # x and scale_0
        raw[start + row * width + 4 * column :][:4] = b""
        offset = start + row * width + 4 * column
        raw[offset : offset + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "a.ply").write_bytes(raw)
    with pytest.raises(PlyError, match=rf"means in 1 row\(s\): 7; log_scales in 1 row\(s\): {CHUNK_ROWS + 4} "):
        read_ply(tmp_path / "a.ply")


def test_writing_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.ply"
    target.write_bytes(b"precious")
    splats = random_splats(30, 0)
    splats.sh_dc[[3, 4, 5, 6, 7, 8], 1] = np.inf
    with pytest.raises(PlyError, match=r"sh_dc in 6 row\(s\): 3, 4, 5, 6, 7, \.\.\."):
        write_ply(target, splats)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    assert target.read_bytes() == b"precious"


def test_unread_columns_and_elements_are_said(tmp_path: Path) -> None:
    def change(raw: bytes) -> bytes:
        header, mark, body = raw.partition(b"end_header\n")
        header = header.replace(b"property float nx", b"property float semantic")
        return header + b"element camera 1\nproperty uchar id\n" + mark + body + b"\x01"

    splats = read_ply(broken(tmp_path, change))
    assert splats.notices == ("vertex properties not read: semantic", "elements not read: camera")


def test_similarity_carries_points_sizes_and_axes() -> None:
    splats, similarity = random_splats(50, 15), random_similarity(5)
    moved = similarity_transform(similarity)(splats)
    np.testing.assert_allclose(moved.means, similarity.apply(torch.from_numpy(splats.means)).numpy(), atol=1e-5)

    def covariance(value: Splats) -> np.ndarray:
        q = value.quaternions / np.linalg.norm(value.quaternions, axis=1, keepdims=True)
        w, x, y, z = q.T.astype(np.float64)
        r = np.stack(
            [
                1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
            ],
            axis=1,
        ).reshape(-1, 3, 3)  # fmt: skip
        v = r * np.exp(value.log_scales.astype(np.float64))[:, None, :]
        return v @ v.transpose(0, 2, 1)

    turn = similarity.rotation.numpy()
    np.testing.assert_allclose(
        covariance(moved), similarity.scale**2 * turn @ covariance(splats) @ turn.T, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_array_equal(moved.sh_dc, splats.sh_dc)
    back = similarity_transform(similarity.inverse)(moved)
    np.testing.assert_allclose(back.means, splats.means, atol=1e-5)
    np.testing.assert_allclose(back.sh_rest, splats.sh_rest, atol=1e-5)
    same = similarity_transform(Similarity())(splats)
    np.testing.assert_array_equal(same.means, splats.means)


def test_similarity_agrees_with_another_tool() -> None:
    """`data/turned.ply`: these splats after `splat-transform -s 1.7 -r 10,20,30 -t 0.3,-1,2` (2.7.1; degrees, x y z).

    That tool works in axes turned by half a turn about z against the file's.
    """

    def turn(axis: int, degrees: float) -> np.ndarray:
        a, b = (axis + 1) % 3, (axis + 2) % 3
        matrix, angle = np.eye(3), math.radians(degrees)
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[b, a] = math.sin(angle)
        matrix[a, b] = -math.sin(angle)
        return matrix

    half = np.diag([-1.0, -1.0, 1.0])
    rotation = torch.from_numpy(half @ turn(2, 30) @ turn(1, 20) @ turn(0, 10) @ half)
    move = Similarity(1.7, rotation, torch.tensor([-0.3, 1.0, 2.0], dtype=torch.float64))
    splats, expected = random_splats(24, 15, seed=4), read_ply(Path(__file__).parent / "data" / "turned.ply")
    moved = similarity_transform(move)(splats)
    np.testing.assert_allclose(moved.means, expected.means, atol=2e-6)
    np.testing.assert_allclose(moved.log_scales, expected.log_scales, atol=2e-6)
    np.testing.assert_allclose(moved.sh_rest, expected.sh_rest, atol=2e-6)
    np.testing.assert_array_equal(moved.sh_dc, expected.sh_dc)
    np.testing.assert_array_equal(moved.logit_opacities, expected.logit_opacities)
    unit = [q / np.linalg.norm(q, axis=1, keepdims=True) for q in (moved.quaternions, expected.quaternions)]
    np.testing.assert_allclose(np.abs((unit[0] * unit[1]).sum(axis=1)), 1.0, atol=1e-6)
    assert np.abs(expected.sh_rest - splats.sh_rest).max() > 0.5


def test_quaternion_of_half_turns() -> None:
    for axis in range(3):
        diagonal = -np.ones(3)
        diagonal[axis] = 1
        expected = np.zeros(4)
        expected[axis + 1] = 1
        np.testing.assert_allclose(np.abs(quaternion_of(np.diag(diagonal))), expected, atol=1e-12)
    angle = 1e-9
    c, s = math.cos(angle), math.sin(angle)
    np.testing.assert_allclose(
        quaternion_of(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])), [1, 0, 0, angle / 2], atol=1e-12
    )


def test_the_table_decides_by_extension(tmp_path: Path) -> None:
    splats = random_splats(4, 0)
    write_scene_file(tmp_path / "A.PLY", splats)
    np.testing.assert_array_equal(read_scene_file(tmp_path / "A.PLY").means, splats.means)
    with pytest.raises(FileFormatError, match=r"no reader for the extension `\.glbx`.*\.ply"):
        read_scene_file(tmp_path / "a.glbx")
    with pytest.raises(FileFormatError, match="no writer"):
        write_scene_file(tmp_path / "a", splats)

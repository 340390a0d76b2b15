"""A scene as one file, `chair.smalti`: safetensors whose header holds the scene's plain values as JSON.

Any program that reads safetensors reads the tensors, named `LAYER/PARAMETER`. Nothing in the file is executed or
believed: header, sizes and values are checked before memory is taken for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from smalti.files.checked import COPY_AGAIN, file_size, read_exactly, whole_file
from smalti.files.splats import FileFormatError
from smalti.files.strict_json import entry, strict_json
from smalti.scene.plain import SceneFileError, scene_from
from smalti.scene.scene import Scene

EXTENSION = ".smalti"
METADATA, KEY = "__metadata__", "smalti.scene"
CHUNK_BYTES = 4 << 20
"""Written at a time."""
MOST_HEADER = 16 << 20
"""Bytes of a header that is read: enough for ten thousand layers."""
DTYPES: dict[torch.dtype, str] = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint8: "U8", torch.bool: "BOOL"},
}
SIZES = {name: torch.empty(0, dtype=kind).element_size() for kind, name in DTYPES.items()}


def is_scene_file(path: Path | str) -> bool:
    """Whether a path is, by its name, a scene in one file.

    >>> from smalti.scene.single_file import is_scene_file
    >>> is_scene_file("chair.smalti"), is_scene_file("chair.ply")
    (True, False)
    """
    return Path(path).suffix.lower() == EXTENSION


def save_scene_file(scene: Scene, path: Path | str) -> int:
    """Write the scene; returns the number of bytes. The file appears whole or not at all, and what is written is never
    copied as a whole: a few megabytes are enough for any scene.

    >>> import tempfile
    >>> from smalti.scene import Scene, demo_scene
    >>> from smalti.scene.single_file import save_scene_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save_scene_file(demo_scene(), f"{folder}/demo.smalti")
    ...     Scene.load(f"{folder}/demo.smalti").counts()
    {'chair': 8, 'cloud': 12}
    """
    tensors, plain = scene.state()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tensors(path, tensors, {KEY: json.dumps(plain, sort_keys=True, allow_nan=False)})


def load_scene_file(path: Path | str) -> Scene:
    """The scene in a file, on the CPU. SceneFileError says what is wrong with one that cannot be read.

    >>> import tempfile
    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.single_file import load_scene_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = demo_scene().save(f"{folder}/demo.smalti")
    ...     load_scene_file(f"{folder}/demo.smalti").counts()
    {'chair': 8, 'cloud': 12}
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with path.open("rb") as stream:
            plain = _plain_values(path, stream)
        # Mapped, not read: a tensor takes memory when its family makes its own copy.
        with safe_open(path, framework="pt") as held:
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (it is no mapping)
    except SceneFileError:
        raise
    except FileFormatError as error:
        raise SceneFileError(error.file, error.problem, error.remedy) from error
    except SafetensorError as error:
        raise SceneFileError(path, f"the table of tensors is damaged ({error})", COPY_AGAIN) from error
    return scene_from(path, tensors, plain)


def _plain_values(path: Path, stream: BinaryIO) -> dict[str, Any]:
    """The scene's JSON, after the header was held against the size of the file."""
    size = file_size(stream)
    length = int.from_bytes(read_exactly(stream, 8, path, "its first eight bytes"), "little")
    if length > MOST_HEADER:
        problem = f"announces a header of {length:,} bytes, at most {MOST_HEADER:,} are read; it is no scene"
        raise SceneFileError(path, problem, COPY_AGAIN)
    header = strict_json(path, read_exactly(stream, length, path, "its header"), "the header")
    end = max((_end_of(path, name, row) for name, row in header.items() if name != METADATA), default=0)
    if 8 + length + end != size:
        problem = f"is truncated: {size:,} of {8 + length + end:,} bytes are there"
        if 8 + length + end < size:
            problem = f"has {size - 8 - length - end:,} bytes behind its end"
        raise SceneFileError(path, problem, COPY_AGAIN)
    held = header.get(METADATA)
    if not isinstance(held, dict) or KEY not in held:
        remedy = "Scene.save and `smalti export` write scenes; other safetensors files are none"
        raise SceneFileError(path, f"holds tensors but no scene (no `{KEY}` in its metadata)", remedy)
    text = entry(path, held, KEY, str)
    return strict_json(path, text.encode("utf-8", "surrogatepass"), f"`{KEY}`")


def _end_of(path: Path, name: str, row: object) -> int:
    """Where a tensor ends behind the header, by a row that makes sense."""
    shape, place = entry(path, row, "shape", list), entry(path, row, "data_offsets", list)
    kind = entry(path, row, "dtype", str)
    numbers = [*shape, *place]
    whole = all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 for value in numbers)
    if kind not in SIZES or len(place) != 2 or len(shape) > 8 or not whole:
        raise SceneFileError(path, f"the tensor {name[:60]!r} has no type, shape or place that is known", COPY_AGAIN)
    if place[1] - place[0] != math.prod(shape) * SIZES[kind]:
        problem = f"the tensor {name[:60]!r} should take {math.prod(shape) * SIZES[kind]:,} bytes by its shape"
        raise SceneFileError(path, f"{problem}, it has {place[1] - place[0]:,}", COPY_AGAIN)
    return place[1]


# -- writing ----------------------------------------------------------------------------------------------------------
def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> int:
    """A safetensors file with texts beside the tensors; returns its bytes. Written in chunks, atomically.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from safetensors.torch import load_file
    >>> from smalti.scene.single_file import write_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = write_tensors(Path(folder) / "a.safetensors", {"ones": torch.ones(2)})
    ...     load_file(f"{folder}/a.safetensors")
    {'ones': tensor([1., 1.])}
    """
    unknown = [f"{name} ({value.dtype})" for name, value in tensors.items() if value.dtype not in DTYPES]
    if unknown:
        raise SceneFileError(path, f"cannot hold {unknown[0]}", "Convert it to one of float64 to float16, or integers")
    # Wide numbers first: every tensor starts at a multiple of its own numbers' size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    place = 0
    for name in order:
        value = tensors[name]
        end = place + value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER:
        raise SceneFileError(path, f"would need a header of {len(text):,} bytes", "Merge layers, there are too many")
    with whole_file(path) as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for name in order:
            for part in _chunks(tensors[name]):
                stream.write(part)
    return 8 + len(text) + place


def _chunks(value: Tensor) -> Iterator[memoryview]:
    """A tensor's bytes, a part at a time; from another device part by part."""
    flat = value.detach().reshape(-1)
    for part in flat.split(CHUNK_BYTES // value.element_size()):
        if len(part):
            yield part.cpu().view(torch.uint8).numpy().data

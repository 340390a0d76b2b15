"""JSON inside splat files (SOG, GLB): strict, with errors that say what stands there; and our metadata in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float

from smalti.files.checked import COPY_AGAIN
from smalti.files.splats import FileFormatError, SplatMetadata, Splats

METADATA_KEY = "smalti"
"""Under this key a container's JSON holds our metadata; other tools ignore keys that they do not know."""


def strict_json(path: Path | str, data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object; raises FileFormatError for damaged text, NaN, Infinity, deep nesting or another top."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    try:
        plain = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"{what} is not valid JSON ({error})", COPY_AGAIN) from error
    if not isinstance(plain, dict):
        raise FileFormatError(path, f"{what} holds {type(plain).__name__}, expected an object", COPY_AGAIN)
    return plain


def entry(path: Path | str, plain: object, key: str, kind: type[Any]) -> Any:
    """`plain[key]`, which must be of a JSON type (`dict`, `list`, `str`, `int`). Raises FileFormatError."""
    value = plain.get(key) if isinstance(plain, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {dict: "an object", list: "a list", str: "a text", int: "an integer"}
        raise FileFormatError(
            path, f"`{key}` is {_short(value)}, expected {names.get(kind, kind.__name__)}", COPY_AGAIN
        )
    return value


def numbers(path: Path | str, values: object, what: str, count: int) -> Float[np.ndarray, "count"]:
    """A JSON list of exactly `count` finite numbers that float32 can hold. Raises FileFormatError."""
    if not isinstance(values, list) or len(values) != count:
        raise FileFormatError(path, f"`{what}` is {_short(values)}, expected {count} numbers", COPY_AGAIN)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -3e38 < value < 3e38:
            raise FileFormatError(path, f"`{what}` holds {_short(value)}, expected finite numbers", COPY_AGAIN)
    return np.array(values, np.float64)


def metadata_to_plain(splats: Splats) -> dict[str, Any]:
    """The metadata as JSON values; the degree in use is always named."""
    return {**asdict(splats.metadata), "sh_degree": splats.sh_degree}


def metadata_from_plain(path: Path | str, plain: object, default: SplatMetadata, rest_count: int) -> SplatMetadata:
    """The inverse of `metadata_to_plain`; keys that are absent keep the default's value. Raises FileFormatError."""
    if plain is None:
        return default
    try:
        if not isinstance(plain, Mapping):
            raise ValueError(f"expected an object, got {_short(plain)}")
        known = {key: plain[key] for key in asdict(default) if key in plain}
        for key, kind in {"filter_variance": (int, float), "compensated": (bool,), "sh_degree": (int,)}.items():
            if key in known and type(known[key]) not in kind:
                raise ValueError(f"{key}: got {_short(known[key])}")
        result = replace(default, **known)
        if result.sh_degree is not None and (result.sh_degree + 1) ** 2 - 1 > rest_count:
            raise ValueError(f"sh_degree {result.sh_degree}, but {rest_count} coefficients beyond degree 0")
    except (ValueError, TypeError) as error:
        raise FileFormatError(
            path, f"the metadata under `{METADATA_KEY}` have no meaning: {error}", COPY_AGAIN
        ) from error
    return result


def rest_count_of(degree: int) -> int:
    """Coefficients beyond degree 0."""
    return (degree + 1) ** 2 - 1


def degree_of(rest_count: int) -> int:
    """The inverse of `rest_count_of`."""
    return math.isqrt(rest_count + 1) - 1


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

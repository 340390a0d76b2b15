"""Reading JSON, TOML and plain text files with errors that name the line."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from smalti.datasets.dataset import DatasetError


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises `DatasetError`."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        record = f"byte {error.start}"
        raise DatasetError(path, record, "the text is not valid UTF-8", "Save the file as UTF-8") from error
    except OSError as error:
        raise DatasetError(
            path, "", f"cannot be read ({error.strerror})", "Check the path and its permissions"
        ) from error


def read_json(path: Path) -> Any:
    """The parsed JSON. Raises `DatasetError` with line and column."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        record = f"line {error.lineno}, column {error.colno}"
        raise DatasetError(
            path, record, f"this is not valid JSON ({error.msg})", "Repair or export the file again"
        ) from error
    except RecursionError as error:
        raise DatasetError(path, "", "the JSON is nested too deeply", "Export the file again") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed TOML. Raises `DatasetError` (the parser's message has line and column)."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(path, "", f"this is not valid TOML ({error})", "Repair or export the file again") from error


def numbers(value: Any, count: int, path: Path, record: str) -> list[float]:
    """`count` floats from a (nested) JSON list. Raises `DatasetError`."""
    flat: list[float] = []
    wanted = "a number" if count == 1 else f"{count} numbers"
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(reversed(item))
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            # Python's whole numbers have no end; longer ones than a float holds are as wrong as infinity.
            flat.append(float(item) if isinstance(item, float) or abs(item) < 1 << 1000 else math.inf)
        else:
            raise DatasetError(path, record, f"expected {wanted}, found {item!r}", "Export the file again")
    if len(flat) != count:
        raise DatasetError(path, record, f"expected {wanted}, found {len(flat)}", "Export the file again")
    return flat


def number_field(table: dict[str, Any], key: str, path: Path, record: str) -> float | None:
    """A float from a table, None where absent. Raises `DatasetError` if it is no number."""
    value = table.get(key)
    if value is None:
        return None
    return numbers(value, 1, path, f"{record}: {key}" if record else key)[0]

"""Values that options are made of: ranges of numbers, sizes in bytes, and the base of all sections."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]
Natural = Annotated[int, Field(ge=1)]


def parse_bytes(text: str) -> int:
    """`256MB`, `1.5 GB`, `4096`: a number of bytes (1 MB = 10^6, 1 MiB = 2^20). ValueError with the accepted forms."""
    units = {"": 1, "B": 1}
    for power, letter in enumerate("KMGT", start=1):
        units[f"{letter}B"], units[f"{letter}IB"] = 1000**power, 1024**power
    stripped = text.strip().upper()
    number = stripped.rstrip("KMGTIB ")
    unit = stripped[len(number) :].strip()
    try:
        value = float(number) * units[unit]
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is not a size; write for example 256MB, 1.5GiB or a number of bytes") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a positive size")
    return int(value)


def _readable_size(text: str) -> str:
    parse_bytes(text)
    return text


def _size_or_none(text: str) -> str:
    return _readable_size(text) if text else text


def _as_text(value: Any) -> Any:
    """A plain number is a number of bytes, on the command line and in files."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


ByteSize = Annotated[str, BeforeValidator(_as_text), AfterValidator(_readable_size)]
MaybeByteSize = Annotated[str, BeforeValidator(_as_text), AfterValidator(_size_or_none)]


class Section(BaseModel):
    """One group of options."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

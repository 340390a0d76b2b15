"""A family's metadata as users give it: plain values, checked by name, type and range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from smalti.primitives.registry import FamilyError

Ranges = Mapping[str, tuple[bool, str]]
"""Per name whether its value lies in its range, and the range in words ("is ...")."""


def checked_values(
    family: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    ranges: Callable[[Mapping[str, Any]], Ranges],
) -> dict[str, Any]:
    """`defaults` with `given` on top. FamilyError, which names the family, for names that are unknown, for values of
    another type than the default's, and for those out of their range.
    """
    values = dict(defaults)
    for name, value in given.items():
        if name not in values:
            near = get_close_matches(name, values, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(values))}"
            raise FamilyError(f"family {family}: unknown metadata {name!r}; {hint}")
        kind = type(values[name])
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        fits = isinstance(value, kind) if kind in (bool, str) else number and kind(value) == value
        if not fits:
            raise FamilyError(f"family {family}: metadata {name} is of type {kind.__name__}, got {value!r}")
        values[name] = kind(value)
    for name, (fits, words) in ranges(values).items():
        if not fits:
            raise FamilyError(f"family {family}: metadata {name} cannot be {values[name]!r}; it is {words}")
    return values

"""Which views are trained on and which are held out. Every rule is deterministic and orders the test views by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smalti.datasets.dataset import DatasetError, View
from smalti.datasets.text import read_text

RULES = '"auto", "files", "every:N", "none", "names:FILE" or "names:NAME,NAME"'


def split_views(views: Sequence[View], rule: str = "auto") -> tuple[list[int], list[int]]:
    """(train, test) rows of `views`; train in the data set's order, test by name.

    - `auto`: the files' own split if it holds out at least one view, else `every:8`.
    - `files`: the files' own split, even where it holds nothing out.
    - `every:N`: views sorted by name (then time), the 1st, N+1st, 2N+1st ... are held out (as Mip-NeRF 360 does).
    - `none`: everything is trained on, whatever the files say.
    - `names:...`: a comma list, or a text file with one name per line: the full name, the file name, or its stem.

    Raises `DatasetError` for an unknown rule, an unknown or ambiguous name, or where nothing is left to train on.
    """
    by_name = sorted(range(len(views)), key=lambda row: (views[row].camera.name, views[row].camera.time, row))
    if rule == "auto":
        rule = "files" if any(view.split == "test" for view in views) else "every:8"
    if rule == "none":
        test = []
    elif rule == "files":
        test = [row for row in by_name if views[row].split == "test"]
    elif rule.startswith("every:") and rule[6:].isdigit() and int(rule[6:]) >= 2:
        test = by_name[:: int(rule[6:])] if len(views) > 1 else []
    elif rule.startswith("names:"):
        wanted = {_find(views, name) for name in _names(rule[6:])}
        test = [row for row in by_name if row in wanted]
    else:
        raise DatasetError("split", "", f"the rule {rule!r} is not known", f"Known: {RULES} (N at least 2)")
    held_out = set(test)
    train = [row for row in range(len(views)) if row not in held_out]
    if not train:
        raise DatasetError("split", rule, "no view is left to train on", "Hold fewer views out")
    return train, test


def _names(listed: str) -> list[str]:
    """Names from a comma list or, where it is a file that is no picture, from its lines."""
    path = Path(listed)
    if "," not in listed and path.is_file() and path.suffix.lower() in (".txt", ".lst", ".csv", ""):
        lines = [line.strip() for line in read_text(path).splitlines()]
        return [line for line in lines if line and not line.startswith("#")]
    return [name.strip() for name in listed.split(",") if name.strip()]


def _find(views: Sequence[View], name: str) -> int:
    for spelled in (lambda path: str(path), lambda path: path.name, lambda path: path.stem):
        rows = [row for row, view in enumerate(views) if spelled(PurePosixPath(view.camera.name)) == name]
        if len(rows) == 1:
            return rows[0]
        if rows:
            problem = f"{len(rows)} views are called so"
            raise DatasetError("split", name, problem, f"Give the full name, for example {views[rows[0]].camera.name}")
    near = difflib.get_close_matches(name, [view.camera.name for view in views], 1)
    raise DatasetError(
        "split", name, "no view is called so", f"The nearest is {near[0]}" if near else "See the names in the data set"
    )

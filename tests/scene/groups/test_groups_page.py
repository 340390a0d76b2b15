"""What docs/groups.md shows runs and prints what it says; its table is what was measured; the bench runs."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from bench_scripts import printed_by

from smalti.scene.groups import Group

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "groups.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_its_blocks_run_and_print_what_they_say() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    said = re.findall(r"^print\(.*?\)  # (.*)$", "".join(blocks), re.MULTILINE)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "docs/groups.md", "exec"), names)
    lines = printed.getvalue().splitlines()
    assert len(said) == 8
    assert [line for line in lines if line in said] == said


def test_its_table_names_edits_that_there_are() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)\(", row)}
    assert len(named) == 9
    assert all(callable(getattr(Group, name)) for name in named)


def test_its_figures_are_those_that_were_measured() -> None:
    runs = json.loads((ROOT / "docs" / "groups.json").read_text())["runs"]
    table = [line.strip("| \n").split(" | ") for line in PAGE.splitlines() if re.match(r"\| [\d.]+ % \|", line)]
    assert len(table) == len(runs)
    for cells, run in zip(table, runs, strict=True):
        before, after = run["free_numbers"]
        shares = [
            "-" if run[key] is None else f"{100 * run[key]:.2f} %" for key in ("edit_error", "edit_error_applied")
        ]
        figures = [f"{100 * run[key]:g} %" for key in ("noise", "tolerance")]
        figures += [f"{run['recall']:.2f}", f"{run['precision']:.2f}", f"{before} to {after}"]
        assert cells == [*figures, f"x {run['cost_ratio']:.2f}", *shares]
        assert not run["count_error"]


def test_the_bench_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = printed_by("groups.py", monkeypatch, capsys)
    runs = {run["noise"]: run for run in report["runs"]}
    assert runs[0.0]["recall"] == 1.0
    assert runs[0.0]["edit_error"] < 1e-5
    assert runs[0.01]["recall"] > 0.7
    assert 0 < runs[0.01]["edit_error_applied"] < runs[0.01]["edit_error"] < 0.03
    assert runs[0.02]["recall"] < runs[0.01]["recall"]
    assert runs[0.0]["cost_ratio"] < 0.5

"""What docs/editing.md shows runs, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import smalti.scene

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "editing.md").read_text(encoding="utf-8")


def test_its_blocks_run_one_after_the_other() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/editing.md", "exec"), names)
    assert not names["scene"].history.done


def test_what_it_says_in_comments_is_what_is_printed() -> None:
    scene = smalti.scene.demo_scene()
    assert f"print(scene.counts())  # {scene.counts()}" in PAGE
    scene["chair"].visible = False
    scene["chair"].name = "seat"
    scene["seat"].opacity = 0.5
    assert f"# {scene.undo()} {scene.undo()} {scene.undo()}\n" in PAGE
    scene["chair"].position, scene["chair"].rotation = [0.0, 0.2, 0.0], [0.97, 0.0, 0.26, 0.0]
    assert f"# {scene.undo()} {scene.undo()}\n" in PAGE


def test_its_tables_name_functions_that_there_are() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(named) > 25
    assert named <= set(smalti.scene.__all__)

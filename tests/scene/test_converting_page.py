"""What docs/converting-families.md shows runs; its table of costs is the one that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from smalti.scene.conversions import ROUTES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "converting-families.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.usefixtures("one_torch_thread")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_its_blocks_run(number: int) -> None:
    if "physics" in BLOCKS[number]:
        pytest.importorskip("mujoco")
    exec(compile(BLOCKS[number], "docs/converting-families.md", "exec"), dict[str, Any]())


def test_every_way_is_described() -> None:
    assert len(BLOCKS) > 1
    for route in ROUTES:
        assert f"`{route.name}`" in PAGE


def test_the_defaults_that_it_names_are_those() -> None:
    settings = {route.name: route.settings() for route in ROUTES}
    for way, values in settings.items():
        rows = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{way}`" in line.split("|")[1]]
        for name in vars(values):
            assert any(f"`{name}`" in row for row in rows) or name == "bounds", (way, name)
    assert f"`resolution` ({settings['fusion'].resolution} voxels" in PAGE
    assert f"`resolution` ({settings['voxels'].resolution})" in PAGE
    assert f"`width` ({settings['surface'].width:g})" in PAGE


def test_the_table_is_what_was_measured() -> None:
    measured = json.loads((DOCS / "conversions.json").read_text())
    assert len(measured["rows"]) > 15
    lines = [line for line in PAGE.splitlines() if line.count("|") == 9]
    for row in measured["rows"]:
        psnr = "inf" if row["psnr"] is None else f"{row['psnr']:.1f}"
        start = f"| {row['from']} | {row['to']} |"
        assert any(line.startswith(start) and f"| {psnr} |" in line for line in lines), row

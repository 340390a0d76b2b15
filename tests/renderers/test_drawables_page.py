"""docs/drawables.md is what its script makes of the source, and its code runs."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_is_up_to_date() -> None:
    made: dict[str, Any] = runpy.run_path(str(ROOT / "bench" / "drawables_page.py"))
    text = (ROOT / "docs" / "drawables.md").read_text(encoding="utf-8")
    assert made["page"]() == text, "run: python bench/drawables_page.py"
    for name in ("Gaussian", "RayGaussian", "Surfel", "Neural", "Triangle", "Box"):
        assert f"## {name}Drawable" in text


def test_its_code_runs() -> None:
    text = (ROOT / "docs" / "drawables.md").read_text(encoding="utf-8")
    values: dict[str, Any] = {}
    exec(text.split("```python")[1].split("```")[0], values)
    assert float(values["frame"].color.max()) > 0.1

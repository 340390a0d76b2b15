"""What bridges may lean on, what leans on them (nothing), and what importing them costs (no other package)."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import smalti.bridges

FOLDER = Path(smalti.bridges.__file__).parent
ROOT = FOLDER.parent
ALLOWED = {"bridges", "scene", "files", "primitives", "renderers", "cameras"}
MODULES = sorted(
    "smalti." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
)


def imported(path: Path) -> Iterator[str]:
    """Modules of smalti that a file imports anywhere, by their full names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "smalti":
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "smalti")


def test_bridges_lean_on_what_they_may() -> None:
    found = {name.split(".")[1] for path in FOLDER.rglob("*.py") for name in imported(path) if "." in name}
    assert {"scene", "files", "primitives", "renderers", "cameras"} <= found <= ALLOWED


def test_nothing_leans_on_bridges() -> None:
    others = [path for path in ROOT.rglob("*.py") if not path.is_relative_to(FOLDER)]
    assert len(others) > 100
    assert [str(path) for path in others if any(name.startswith("smalti.bridges") for name in imported(path))] == []


def test_packages_are_imported_only_when_used() -> None:
    strangers = ["gsplat", "pytorch3d", "trimesh", "open3d", "mitsuba", "drjit", "nerfstudio"]
    program = (
        f"import sys, {', '.join(MODULES)}\nassert not {set(strangers)!r} & set(sys.modules), 'imported too early'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert {"smalti.bridges.gsplat", "smalti.bridges.pytorch3d.meshes", "smalti.bridges.mitsuba"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0

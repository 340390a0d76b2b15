"""The CPU compositor's runs of several kinds, which no scene of Gaussians alone makes: see mixed_kinds.cpp."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import smalti.renderers.engine

COMPILER = os.environ.get("CXX") or shutil.which("g++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the compositor cannot be built with a second kind")
def test_runs_of_several_kinds_draw_the_same(tmp_path: Path) -> None:
    engine, program = Path(smalti.renderers.engine.__file__).parent, tmp_path / "mixed_kinds"
    folders = [f"-I{engine / 'cpu'}", f"-I{engine / 'include'}"]
    flags = ["-std=c++17", "-O1", "-pthread", "-ffp-contract=off", "-Wno-psabi"]
    source = str(Path(__file__).with_name("mixed_kinds.cpp"))
    subprocess.run([str(COMPILER), *flags, *folders, source, "-o", str(program)], check=True, timeout=300)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout

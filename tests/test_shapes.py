"""The shapes and dtypes that public signatures promise hold while the examples run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("[0-9]*.py"))
RUN = """
import runpy, sys
sys.path[:0] = sys.argv[2:4]
from jaxtyping import install_import_hook
with install_import_hook("smalti", "shape_checks.check"):
    script = sys.argv[1]
    sys.argv[1:] = []
    runpy.run_path(script, run_name="__main__")
"""
WRONG = """
import torch, smalti
camera = smalti.Camera.look_at(torch.ones(3), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), 0.8, (8, 8))
smalti.GaussianDrawable(*[torch.zeros(4, width) for width in (3, 4, 3)], torch.zeros(4), torch.zeros(4, 3))
smalti.GaussianDrawable(*[torch.zeros(4, width).int() for width in (3, 4, 3)], torch.zeros(4), torch.zeros(4, 3))
"""


def run(script: Path) -> subprocess.CompletedProcess[str]:
    import smalti

    folders = [str(Path(__file__).parent), str(Path(smalti.__file__).parent.parent)]
    command = [sys.executable, "-P", "-W", "ignore", "-c", RUN, str(script), *folders]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_keep_the_promised_shapes(example: Path) -> None:
    done = run(example)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_a_wrong_dtype(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(WRONG)
    done = run(script)
    assert done.returncode == 1
    assert "line 5" in done.stderr
    assert "means" in done.stderr

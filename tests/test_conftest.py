"""The skip rule itself: a test that cannot run in continuous integration must not look like one that passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CASES = {
    "test_functions.py": """
import pytest

@pytest.mark.skip(reason="no CUDA device")
def test_needs_a_card(): ...

def test_needs_data():
    pytest.skip("shared data set not found")

def test_needs_a_judge():
    pytest.importorskip("no_such_judge")

@pytest.mark.xfail
def test_known_to_fail():
    assert False
""",
    "test_module.py": "import pytest\npytest.importorskip('another_judge')\n",
}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The cases under our conftest, outside of the repository's own configuration."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "SMALTI_REQUIRE_INSTALLED", "PYTEST_ADDOPTS")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    return subprocess.run(
        [*command, *options, str(folder)], capture_output=True, text=True, env=environment, timeout=300
    )


def test_only_cuda_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    for name, text in CASES.items():
        (tmp_path / name).write_text(text)

    strict = run(tmp_path, "--fail-on-skip")
    assert strict.returncode == 1, strict.stdout + strict.stderr
    assert "2 failed, 1 skipped, 1 xfailed, 1 error" in strict.stdout
    for missing in ("shared data set not found", "no_such_judge", "another_judge"):
        assert missing in strict.stdout

    lax = run(tmp_path)  # a user's machine may skip
    assert lax.returncode == 0, lax.stdout + lax.stderr
    assert "4 skipped, 1 xfailed" in lax.stdout

"""What the README says is true: its programs run, its commands exist, its tables match the code, its links work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_blocks_run(index: int, tmp_path: Path) -> None:
    import smalti

    environment = os.environ | {"PYTHONPATH": str(Path(smalti.__file__).parent.parent)}
    command = [sys.executable, "-P", "-W", "error", "-c", blocks("python")[index]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_is_a_python_block() -> None:
    assert blocks("python")


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_set_up_is_one_command(name: str) -> None:
    """`.ci/run` runs these two word for word."""
    found = re.search(rf"^<!-- ci: {name} -->\n```bash\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert "\n" not in found.group(1)
    assert found.group(1).startswith("python3 -m venv .venv && .venv/bin/pip install torch==")


def test_commands_are_the_programs_own() -> None:
    from smalti.cli.main import COMMANDS

    assert re.findall(r"^\| `smalti (\w+)", section("Commands"), re.MULTILINE) == list(COMMANDS)
    used = {name for block in blocks("bash") for name in re.findall(r"\bsmalti (\w+)", block)}
    assert used <= set(COMMANDS)


def test_presets_exist() -> None:
    import smalti.configs

    presets = {path.stem for path in Path(smalti.configs.__file__).parent.glob("*.yaml")}
    named = set(re.findall(r"presets ((?:`[\w-]+`,? ?)+)", section("Commands"))[0].replace("`", "").split(", "))
    assert {name.strip() for name in named if name.strip()} == presets


def test_formats_are_all_named() -> None:
    from smalti.datasets.formats import BUILT_IN
    from smalti.files import FORMATS

    rows = [line.split("|")[1] for line in section("Formats").splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(BUILT_IN)
    assert all(f"`{extension}`" in section("Formats") for extension in FORMATS)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target

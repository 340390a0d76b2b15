"""What can be said of the nerfstudio bridge without nerfstudio: its names, its page, how its tests are skipped."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import full_name, preset_names, resolve

ROOT = Path(__file__).parents[2]
BRIDGE = ROOT / "bridges" / "nerfstudio"
PAGE = ROOT / "docs" / "coming-from-nerfstudio.md"


def methods() -> dict[str, str]:
    """Name in `methods.py` -> preset."""
    tree = ast.parse((BRIDGE / "smalti_nerfstudio" / "methods.py").read_text())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target, (preset, _) = node.targets[0], node.value.args
            assert isinstance(target, ast.Name)
            found[target.id] = ast.literal_eval(preset)
    return found


def only_ours() -> tuple[str, ...]:
    """Options that the plug-in does not carry out."""
    tree = ast.parse((BRIDGE / "smalti_nerfstudio" / "model.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ALONE":
            return ast.literal_eval(node.value)
    raise AssertionError("ALONE is not there")


def asks(config: TrainConfig, option: str) -> bool:
    """Whether a configuration sets it to something else than the default."""
    value = attrgetter(option)
    return value(config) != value(TrainConfig())


def test_every_entry_point_is_a_method_and_every_method_a_preset() -> None:
    project = tomllib.loads((BRIDGE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["nerfstudio.method_configs"]
    assert {f"smalti-{preset}": f"smalti_nerfstudio.methods:{name}" for name, preset in methods().items()} == points
    alone = {name for name in preset_names() if any(asks(resolve(name), option) for option in only_ours())}
    assert alone == {"blocks", "neural-splats-paper"}
    assert set(methods().values()) == set(preset_names()) - {"demo"} - alone


def test_parameter_groups_have_names_that_nerfstudio_can_hold() -> None:
    """Layers and parameters become one word, which must not be that of another."""
    for preset in methods().values():
        names = [layer.name for layer in resolve(preset).scene]
        assert all(re.fullmatch(r"\w+", name) for name in names)


def test_options_on_the_page_exist() -> None:
    section = PAGE.read_text().split("## Moving: options of splatfacto")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("| `")]
    options = [word.split()[0] for row in rows for word in re.findall(r"`([a-z_]+\.[^`]+)`", row)]
    assert len(options) > 15
    for option in options:
        assert full_name(option)


@pytest.mark.parametrize(
    ("option", "value"),
    [("density.start", 500), ("density.every", 100), ("density.stop", 15000), ("gradient.threshold", 2e-4)],
)
def test_defaults_on_the_page_are_ours(option: str, value: float) -> None:
    section, name = option.split(".")
    assert getattr(getattr(resolve("gaussians"), section), name) == value
    assert getattr(getattr(TrainConfig(), section), name) == value


def test_the_bridges_own_tests_skip_with_a_message_where_nerfstudio_is_absent(tmp_path: Path) -> None:
    (tmp_path / "nerfstudio.py").write_text("raise ImportError('hidden by a test')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "-q", str(BRIDGE / "tests")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hidden by a test" in done.stdout
    assert "try.sh" in done.stdout
    assert "passed" not in done.stdout

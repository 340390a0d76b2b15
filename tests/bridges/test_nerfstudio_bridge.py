"""What can be said of the nerfstudio bridge without nerfstudio: its names, its page, how its tests are skipped."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import full_name, preset_names, resolve
from smalti.primitives.family import find_family
from smalti.renderers.render import render
from smalti.scene import demo_camera
from smalti.scene.scene import Scene
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.density.budget import Budget
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import make_rule

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


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plug-in's density control, with empty classes for the names of nerfstudio's that it imports."""
    names = {
        "nerfstudio": (), "nerfstudio.engine": (), "nerfstudio.engine.optimizers": ("OptimizerConfig", "Optimizers"),
        "nerfstudio.engine.schedulers": ("Scheduler", "SchedulerConfig"),
    }  # fmt: skip
    for name, classes in names.items():
        module = ModuleType(name)
        vars(module).update({each: type(each, (), {}) for each in classes})
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(BRIDGE))
    before = set(sys.modules)
    yield importlib.import_module("smalti_nerfstudio.growth")
    for name in set(sys.modules) - before:
        if name.startswith("smalti_nerfstudio"):
            del sys.modules[name]


@pytest.mark.parametrize("family", ["gaussians", "neural_splats", "superquadrics"])
def test_rules_are_told_of_every_family_what_they_ask_for(family: str, growth: Any) -> None:
    """Families of which rules observe screen gradients, and those that measure the pull themselves."""
    scene, config, camera = Scene(order="ray"), resolve("gaussians", {"density.rule": "gradient"}), demo_camera(48, 36)
    generator = torch.Generator().manual_seed(0)
    points = 0.3 * torch.randn(20, 3, generator=generator)
    points[0] = torch.tensor([0.0, 0.0, -50.0])  # in no picture
    metadata = {"texture_size": 4, "count": 20} if family == "superquadrics" else {"sh_degree": 0}
    made = find_family(family).from_points(points, torch.rand(20, 3, generator=generator), metadata)
    made.require_gradients(True)
    layer = scene.add("layer", made)
    population = Population(layer, Adam(AdamSettings()))
    control = growth.Growth.__new__(growth.Growth)
    control.config, control.cameras, control.changes, control._rates = config, [], {}, {}
    control.populations, control.absolute, control.moments = [population], False, None
    control.rules = {"layer": make_rule("gradient", config, 1.0)}
    control.budget = Budget(10**9, 10**6)
    control.model = SimpleNamespace(scene=scene, generator=generator, extent=1.0, bind=lambda moments: None)
    drawn = [(layer, list(made.drawables(camera)))]
    frame = render(drawn[0][1], camera, settings=scene.settings())
    seen = growth.Seen.of(frame, drawn, camera)
    frame.color.square().sum().backward()
    control.after(0, seen)
    counted = population.statistic("seen")
    assert torch.equal(counted, seen.visible("layer").float())
    assert float(counted.sum()) > 0
    assert float(population.statistic("pull").max()) > 0
    scene.layers["layer"].visible = False
    control.after(1, growth.Seen.of(frame, [], camera))  # what was not drawn is not told of
    assert torch.equal(population.statistic("seen"), counted)

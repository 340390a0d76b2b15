"""The example of a family from outside: installed as a stranger would, checked, trained, and told step by step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "outside_family"
PAGE = (ROOT / "docs" / "a-family-of-your-own.md").read_text()
FILES = ("pyproject.toml", *(f"smalti_beta/{name}" for name in ("__init__.py", "beta_kernel.h", "beta-splats.yaml")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(folder), str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def environment(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import smalti

    paths = os.pathsep.join([str(Path(smalti.__file__).parent.parent), str(site)])
    cache = str(tmp_path_factory.mktemp("cache"))
    return os.environ | {"PYTHONPATH": paths, "SMALTI_CACHE": cache, "MPLBACKEND": "Agg"}


def run(code: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's modules for the length of a test, not installed."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "smalti_beta"]:
        del sys.modules[name]


def test_installed_it_passes_the_suites_as_the_page_says(environment: dict[str, str], tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(import torch\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    more = """
from smalti.configs.resolve import preset_names
from smalti.primitives.family import find_family
from smalti.renderers.outside import find_outside, outside_names
assert find_family("beta_splats") is BetaSplats and outside_names() == ["beta"] and find_outside("beta") is BETA
assert "beta-splats" in preset_names()
print(check_family(find_family("swaying_gaussians")))
"""
    said = run(code + more, environment, tmp_path)
    assert re.search(r"^kind beta: (\d+)/\1$", said, re.MULTILINE), said
    assert len(re.findall(r"^family \w+: (\d+)/\1$", said, re.MULTILINE)) == 2, said
    assert re.search(r"compiling kind 'beta' for \w+ with", said)
    again = run("from smalti_beta import *\n" + DRAW, environment, tmp_path)
    assert "compiling" not in again  # it is kept


DRAW = """
from smalti.renderers.render import render
one = BetaSplats.from_points(torch.zeros(1, 3), torch.ones(1, 3), {"initial_scale": 1e6})
eye, target, up = torch.tensor([[0, 0, -3.0], [0, 0, 0], [0, -1, 0]]).unbind(0)
camera = Camera.look_at(eye, target, up, 0.8, (32, 32))
assert 0.05 < float(render(one.drawables(camera), camera).alpha.detach().max()) < 0.11
"""


def test_train_offers_it(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smalti.cli.main", "train"]
    options = [
        "--data",
        "demo",
        "--out",
        "run",
        "--downscale",
        "8",
        "--stretch",
        "0.01",
        "--set",
        "finish=[evaluation]",
    ]
    done = subprocess.run(
        [*command, "beta-splats", *options], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["step"] == 40
    state = json.loads(next((tmp_path / "run" / "checkpoints").glob("[0-9]*/scene.json")).read_text())
    assert [layer["family"] for layer in state["layers"]] == ["beta_splats"]


@pytest.mark.usefixtures("importable")
def test_a_family_that_forgets_something_is_told_so() -> None:
    from smalti_beta.swaying import SwayingGaussians  # pyright: ignore[reportMissingImports]

    from smalti.primitives.gaussians import Gaussians
    from smalti.testing import check_family

    class Forgetful(SwayingGaussians):
        name = "forgetful"
        transform = Gaussians.transform
        opacities = lambda self: 2 * self.parameters["logit_opacities"].sigmoid() + 0.9  # noqa: E731

        def rearrange(self, rows):
            changed = super().rearrange(rows)
            self.replace({"means": self.parameters["means"].detach().flip(0)})
            return changed

        def from_points(positions, colors, metadata):
            family = super(Forgetful, Forgetful).from_points(positions, colors, metadata)
            family.parameters["sways"].data += 0.2
            return family

        from_points = staticmethod(from_points)

    failed = {finding.name for finding in check_family(Forgetful, raises=False).failures}
    expected = {"registered", "transform moves the picture along", "opacities are shares", "prune: moments of means"}
    assert expected <= failed
    with pytest.raises(AssertionError, match="optimiser rows part from the parameter's rows"):
        check_family(Forgetful)


@pytest.mark.parametrize(
    "name", ["boxes", "gaussians", "meshes", "neural_splats", "ray_gaussians", "superquadrics", "surfels"]
)
def test_the_built_in_families_hold_to_it(name: str) -> None:
    from smalti.primitives.family import find_family
    from smalti.testing import check_family

    assert len(check_family(find_family(name), points=4000 if name == "meshes" else 40).findings) > 30


# --------------------------------------------------------------------------------------------------------- the page
def blocks() -> list[tuple[str, str]]:
    return re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_code_is_the_examples() -> None:
    told: dict[str, str] = {}
    for name, code in blocks():
        assert code in (EXAMPLE / name).read_text(), f"{name} does not hold:\n{code}"
        told[name] = told.get(name, "") + code
    for name in (*FILES, "smalti_beta/swaying.py"):
        missing = [line for line in (EXAMPLE / name).read_text().splitlines() if line and line + "\n" not in told[name]]
        assert missing == [], f"the page does not tell {missing} of {name}"


def test_it_is_short() -> None:
    """A kind, its family, its preset and its package."""
    assert sum(len((EXAMPLE / name).read_text().splitlines()) for name in FILES) <= 150


def test_links_lead_somewhere() -> None:
    for path in re.findall(r"`((?:smalti|engine|examples)/[\w./]+)`", PAGE):
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "smalti" / "renderers")), path

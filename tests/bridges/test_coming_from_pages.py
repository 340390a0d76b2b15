"""What the pages for newcomers from other packages show runs, and their links lead somewhere."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import open3d_stand_ins
import pytest
import pytorch3d_stand_ins
import torch

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"coming-from": 3, "coming-from-gsplat": 2, "coming-from-pytorch3d": 2}
"""Page and its number of blocks. (nerfstudio's page is held beside its plug-in.)"""


def look_at_view_transform(dist: float, elev: float, azim: float) -> tuple[torch.Tensor, torch.Tensor]:
    """PyTorch3D's, for one camera that looks at the origin: R for rows, its columns the view's axes."""
    e, a = torch.deg2rad(torch.tensor([elev, azim]))
    place = dist * torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()])
    z = -torch.nn.functional.normalize(place, dim=0)
    x = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), z), dim=0)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=1)
    return rotation[None], -(place @ rotation)[None]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for those that are not installed."""
    structures, renderer = types.ModuleType("pytorch3d.structures"), types.ModuleType("pytorch3d.renderer")
    more: dict[str, Any] = {"look_at_view_transform": look_at_view_transform}
    more |= {"RasterizationSettings": types.SimpleNamespace, "BlendParams": types.SimpleNamespace}
    for module in (structures, renderer):
        vars(module).update({name: value for name, value in vars(pytorch3d_stand_ins).items() if name[0].isupper()})
    vars(renderer).update(more)
    monkeypatch.setitem(sys.modules, "pytorch3d", types.ModuleType("pytorch3d"))
    monkeypatch.setitem(sys.modules, "pytorch3d.structures", structures)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", renderer)
    monkeypatch.setitem(sys.modules, "open3d", open3d_stand_ins.module())


@pytest.mark.parametrize("page", PAGES)
def test_their_blocks_run_one_after_the_other(
    page: str, packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGES[page]
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, f"docs/{page}.md", "exec"), names)
    drawn = names["frame"]
    assert 0.01 < float(drawn.alpha.detach().mean()) < 0.99
    if page == "coming-from":
        assert np.abs(np.array(names["picture"])[..., 3] - drawn.alpha.detach().numpy()).mean() < 0.02


@pytest.mark.parametrize("page", PAGES)
def test_their_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", (DOCS / f"{page}.md").read_text(encoding="utf-8")):
        assert (DOCS / target).is_file(), target


def test_options_of_the_training_table_exist() -> None:
    from smalti.configs.resolve import fields, preset_names

    text = (DOCS / "coming-from-gsplat.md").read_text(encoding="utf-8")
    table = text.split("## Training")[1]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("| `")]
    options = {name for row in rows for name in re.findall(r"--([\w.]+)", row)}
    known = {name for name, _, _ in fields()}
    short = {name.split(".")[-1] for name in known}
    extra = {"data", "out", "init-from", "resume", "metadata.compensated"}
    assert len(options) > 15
    assert options <= known | short | extra
    assert {"gaussians", "gaussians-mcmc"} <= set(preset_names())

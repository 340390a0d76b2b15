"""Primitive assemblies: what comes in goes out again, shapes where the JSON says, hostile JSON."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.cameras.similarity import Similarity
from smalti.files.assembly import SHAPES, read_assembly, write_assembly
from smalti.files.splats import FileFormatError
from smalti.primitives.superquadrics import Superquadrics

CUBOID, ELLIPSOID, CYLINDER = 1101002001034001, 1101002001034010, 1101002001034002
HALF = math.sqrt(0.5)


def item(kind: int, location: list[float], rotation: list[float], scale: list[float], color: str) -> dict[str, Any]:
    data = {"location": location, "rotation": rotation, "scale": scale, "color": [color]}
    return {"type_id": kind, "data": data}


TABLE: dict[str, Any] = {
    "operation": 0,
    "type": 1,
    "scene_id": None,
    "group": [
        item(CUBOID, [0, 0, 0.5], [0, 0, 0, 1], [0.8, 0.4, 0.05], "2FA9FF"),
        item(CYLINDER, [0.1, -0.2, 0.0], [0, 0, 0, 1], [0.1, 0.2, 0.6], "FFC203"),
        item(CYLINDER, [0.3, 0.2, 0.1], [HALF, 0, 0, HALF], [0.05, 0.05, 0.3], "ffc203"),
        item(ELLIPSOID, [-0.1234567890123, 0.1, 0.7], [0.1, 0.2, 0.3, math.sqrt(0.86)], [0.1, 0.2, 0.3], "FF8A9C"),
    ],
}


def written(tmp_path: Path, plain: Any) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(plain))
    return path


def test_what_is_read_is_written_value_by_value(tmp_path: Path) -> None:
    """Also after a scene file between, and for the blocks that are left when one is taken away."""
    from smalti.scene.scene import Scene

    blocks = read_assembly(written(tmp_path, TABLE))
    assert write_assembly(tmp_path / "out.json", blocks) == ()
    assert json.loads((tmp_path / "out.json").read_text()) == TABLE
    scene = Scene()
    scene.add("blocks", blocks)
    scene.save(tmp_path / "scene")
    again = Scene.load(tmp_path / "scene").layers["blocks"].family
    assert isinstance(again, Superquadrics)
    again.prune(torch.tensor([False, True, False, False]))
    write_assembly(tmp_path / "out.json", again)
    expected = copy.deepcopy(TABLE)
    del expected["group"][1]
    assert json.loads((tmp_path / "out.json").read_text()) == expected


def test_shapes_stand_where_the_json_says(tmp_path: Path) -> None:
    """z up becomes y down and x changes sign; points of the primitives lie on the blocks."""
    blocks = read_assembly(written(tmp_path, TABLE))
    to_scene = torch.tensor([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
    expected = torch.tensor([each["data"]["location"] for each in TABLE["group"]]) @ to_scene.T
    torch.testing.assert_close(blocks.positions().detach(), expected)
    # the middles of the faces of the upright cylinder, and of the lying one, whose axis R_x(90) turned from z to -y
    rims = {1: [[0.1, -0.2, 0.6], [0.2, -0.2, 0.0], [0.1, 0.0, 0.0]], 2: [[0.3, -0.1, 0.1], [0.35, 0.2, 0.1]]}
    for row, points in rims.items():
        values = blocks.implicit_values(torch.tensor(points) @ to_scene.T)[row]
        torch.testing.assert_close(values, torch.ones(len(points)), rtol=0, atol=1e-3)
    corner = torch.tensor([[0.8, 0.4, 0.55]]) @ to_scene.T
    inside = (1 - 0.055) * (corner - blocks.positions()[0]) + blocks.positions()[0]
    assert blocks.implicit_values(corner)[0].item() > 1 > blocks.implicit_values(inside)[0].item()
    colors = blocks.parameters["raw_textures"].sigmoid().mean(dim=(1, 2)) * 255
    torch.testing.assert_close(colors[0].detach(), torch.tensor([0x2F, 0xA9, 0xFF]).float(), rtol=0, atol=0.05)


def test_how_exact_the_shapes_are() -> None:
    """The numbers of the module's table: volumes over those of the true shapes, and the drawn meshes'."""
    from smalti.primitives.superquadric_shape import surface_points, template, volume
    from smalti.primitives.surface import Surface

    true = {"cuboid": 8.0, "cylinder": 2 * math.pi, "ellipsoid": 4 / 3 * math.pi}
    stated = {"cuboid": 0.989, "cylinder": 0.992, "ellipsoid": 1.0}
    for name, pair in SHAPES.items():
        exponents = torch.tensor([pair], dtype=torch.float64)
        smooth = float(volume(exponents, torch.ones(1, 3, dtype=torch.float64)))
        assert smooth / true[name] == pytest.approx(stated[name], abs=6e-4)
        mesh = Surface(surface_points(template(3).directions, exponents)[0], template(3).faces)
        assert 0.98 < mesh.volume() / true[name] < 1


def test_blocks_that_moved_are_written_where_they_are(tmp_path: Path) -> None:
    """A turned and scaled layer, read back: the same points; types and colours stay."""
    blocks = read_assembly(written(tmp_path, TABLE))
    angle = 0.4
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]], dtype=torch.float64
    )
    blocks.transform(Similarity(0.7, turn, torch.tensor([0.1, 0.05, 0.0], dtype=torch.float64)))
    assert write_assembly(tmp_path / "out.json", blocks) == ()
    again = read_assembly(tmp_path / "out.json")
    torch.testing.assert_close(again.block_vertices(), blocks.block_vertices(), rtol=0, atol=2e-6)
    plain = json.loads((tmp_path / "out.json").read_text())
    assert [each["type_id"] for each in plain["group"]] == [each["type_id"] for each in TABLE["group"]]
    assert plain["group"][3]["data"]["color"] == ["ff8a9c"]


def test_other_shapes_are_named(tmp_path: Path) -> None:
    blocks = read_assembly(written(tmp_path, TABLE), axes="scene")
    blocks.parameters["raw_exponents"].data[1] = torch.tensor([0.5, -3.0])  # 1.22, 0.19: neither
    blocks.parameters["logit_opacities"].data[2] = -5
    blocks.parameters["raw_textures"].data[3, 0, 0] = 4.0
    blocks.transform(Similarity(3.0))
    said = write_assembly(tmp_path / "out.json", blocks, axes="scene")
    assert said[0].startswith("1 blocks are no cuboid, ellipsoid or cylinder but to Smalti: block 1 (1.22, 0.19) as ")
    assert "the textures of 1 blocks" in said[1]
    assert "1 blocks that are not drawn" in said[2]
    assert "beyond -1..1" in said[3]
    assert len(json.loads((tmp_path / "out.json").read_text())["group"]) == 3
    blocks.parameters["logit_opacities"].data[:] = -5
    with pytest.raises(FileFormatError, match="no block is drawn"):
        write_assembly(tmp_path / "none.json", blocks)


def test_a_block_of_any_shape_comes_back(tmp_path: Path) -> None:
    """With its exponents beside the shape that others see; and what was read is written as it stood."""
    generator = torch.Generator().manual_seed(0)
    blocks = Superquadrics.at_random(
        torch.tensor([[-1.0] * 3, [1.0] * 3]), 6, generator, {"texture_size": 2, "level": 3}
    )
    shapes = {"raw_exponents": 2.0 * torch.randn(6, 2, generator=generator), "logit_opacities": torch.full((6,), 9.0)}
    blocks.replace({**blocks.parameters, **shapes})
    write_assembly(tmp_path / "a.json", blocks)
    again = read_assembly(tmp_path / "a.json")
    torch.testing.assert_close(again.exponents(), blocks.exponents(), rtol=0, atol=2e-3)
    torch.testing.assert_close(again.block_vertices(), blocks.block_vertices(), rtol=0, atol=5e-3)
    write_assembly(tmp_path / "b.json", again)
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def changed(**data: Any) -> dict[str, Any]:
    plain = copy.deepcopy(TABLE)
    plain["group"][1]["data"].update(data)
    return plain


HOSTILE: list[tuple[str, str]] = [
    ("", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ("[]", "expected an object"),
    ("{}", "`group`"),
    ('{"group": {}}', "`group`"),
    ('{"group": []}', "0 primitives"),
    (json.dumps({"group": [3]}), "type_id"),
    (json.dumps({"group": [{"type_id": 7, "data": {}}]}), "type_id 7"),
    (json.dumps({"group": [{"type_id": CUBOID}]}), "`data`"),
    (json.dumps({"group": TABLE["group"] * 3000}), "12000 primitives"),
    (json.dumps(changed(location=[0, 0])), "`location`"),
    (json.dumps(changed(location=[0, 0, "x"])), "`location`"),
    (json.dumps(changed(scale=[0.1, 0.1, 0])), "scale"),
    (json.dumps(changed(scale=[0.1, 0.1, -1])), "scale"),
    (json.dumps(changed(scale=[0.1, 0.1, 1e30])), "scale"),
    (json.dumps(changed(rotation=[0, 0, 0, 0])), "unit quaternion"),
    (json.dumps(changed(rotation=[0, 0, 0, 1e200])), "rotation"),
    (json.dumps(changed(color=["blue"])), "color"),
    (json.dumps(changed(exponents=[0.05, 1.0])), "exponents"),
    (json.dumps(changed(exponents=[1.0, 1.0, 1.0])), "`exponents`"),
    (json.dumps(changed(exponents=[1.0, 2.0])), "exponents"),
    (json.dumps(changed(location=[0, 0, 1])).replace("0.6]", "NaN]"), "not valid JSON"),
]


@pytest.mark.parametrize(("text", "said"), HOSTILE)
def test_hostile_json(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileFormatError, match=said):
        read_assembly(tmp_path / "a.json")


def test_type_ids_as_text_and_no_colour(tmp_path: Path) -> None:
    """JavaScript cannot hold these numbers, so tools write them as text."""
    plain = copy.deepcopy(TABLE)
    plain["group"][0]["type_id"] = str(CUBOID)
    del plain["group"][1]["data"]["color"]
    blocks = read_assembly(written(tmp_path, plain))
    np.testing.assert_allclose(blocks.exponents()[0].detach(), SHAPES["cuboid"], atol=1e-6)
    write_assembly(tmp_path / "out.json", blocks)
    assert json.loads((tmp_path / "out.json").read_text()) == plain

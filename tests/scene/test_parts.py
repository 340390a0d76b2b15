"""Layers of solids taken apart: the same picture, undone to the byte, edited one by one; parts that move apart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from part_scenes import block_scene

from smalti.cameras.similarity import Similarity
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene import (
    EditError,
    NoParts,
    Scene,
    demo_camera,
    demo_scene,
    duplicate,
    layer,
    merge,
    move,
    parts_of,
    replace_texture,
    split_parts,
)
from smalti.scene.exchange_parts import export_parts
from smalti.scene.explode import displacements
from smalti.scene.palette import SAFE, flat_color
from smalti.testing.families import Stage, check_parts
from smalti.testing.report import Report

LIVE = ["block-00", "block-02", "block-03", "block-04"]


def bytes_of(scene: Scene) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in scene.state()[0].items()}


@pytest.mark.parametrize("binary", [True, False])
def test_the_same_picture_and_undone_to_the_byte(binary: bool) -> None:
    """Silhouettes are equal to the bit; colours but for the rounding of places in a larger or smaller atlas."""
    scene = block_scene(binary=binary)
    before, was = bytes_of(scene), scene.render(demo_camera(96, 72))
    assert split_parts(scene, "blocks") == LIVE
    assert list(scene.layers) == ["floor", *LIVE]
    now = scene.render(demo_camera(96, 72))
    assert torch.equal(now.alpha, was.alpha)
    assert float((now.color - was.color).detach().abs().max()) < 2e-6
    assert scene.undo() == "split parts"
    assert bytes_of(scene) == before
    scene.redo()
    merge(scene, LIVE)
    assert scene.counts() == {"floor": 2, "block-00": 4}
    assert torch.equal(scene.render(demo_camera(96, 72)).color, was.color)


def test_one_part_is_edited_alone_and_all_is_undone() -> None:
    scene = block_scene()
    split_parts(scene, "blocks")
    before = bytes_of(scene)
    others = {name: scene[name].family.positions().detach().clone() for name in LIVE if name != "block-03"}
    replace_texture(scene, "block-03", torch.tensor([[[0.9, 0.1, 0.1]]]))
    move(scene, layer("block-03"), [0.0, -0.5, 0.0])
    duplicate(scene, layer("block-03"), [1.0, 0.0, 0.0])
    scene["block-00"].visible = False
    assert scene["block-03"].family.base_colors().mean(dim=0).tolist() == pytest.approx([0.9, 0.1, 0.1], abs=0.01)
    assert all(torch.equal(scene[name].family.positions(), value) for name, value in others.items())
    assert scene.counts()["block-03"] == 2
    assert parts_of(scene).names == ("block-02", "block-03-00", "block-03-01", "block-04")
    assert [part.number for part in parts_of(scene).parts] == [2, 0, 1, 4]
    for _ in range(4):
        scene.undo()
    assert bytes_of(scene) == before


def test_names_are_free_and_places_are_kept() -> None:
    scene = block_scene()
    scene.layers["blocks"].similarity = Similarity(2.0, translation=torch.tensor([0.0, 0.0, 3.0]).double())
    scene.add("block-02", scene.layers["floor"].family.copy(), visible=False)
    was = scene.render(demo_camera(48, 36)).color
    assert split_parts(scene, "blocks") == ["blocks-00", "blocks-02", "blocks-03", "blocks-04"]
    assert float((scene.render(demo_camera(48, 36)).color - was).detach().abs().max()) < 2e-6
    assert split_parts(scene, "blocks-03", "leg") == ["leg-00"]


def test_what_has_no_parts_says_so() -> None:
    scene = block_scene()
    with pytest.raises(NoParts, match="'floor' has none: primitives of family 'meshes' are no solids"):
        split_parts(scene, "floor")
    scene["blocks"].locked = True
    with pytest.raises(EditError, match="locked"):
        split_parts(scene, "blocks")
    scene["blocks"].locked = False
    with torch.no_grad():
        scene["blocks"].family.parameters["logit_opacities"].fill_(-9.0)
    with pytest.raises(NoParts, match="none of the 5 primitives"):
        split_parts(scene, "blocks")
    with pytest.raises(NoParts, match="none of its 5 blocks is drawn"):
        parts_of(scene)
    with pytest.raises(NoParts, match="'cloud': primitives of family 'surfels'"):
        parts_of(demo_scene())


def test_taken_apart_without_an_edit() -> None:
    scene = block_scene()
    before = bytes_of(scene)
    parts = parts_of(scene)
    assert parts.names == tuple(LIVE)
    assert [part.number for part in parts.parts] == [0, 2, 3, 4]
    assert parts.left_out == 1
    assert list(parts.scene.layers) == ["floor", *LIVE]
    assert list(parts.alone.layers) == LIVE
    assert list(parts.exploded(1.0, alone=False).layers) == ["floor", *LIVE]
    assert bytes_of(scene) == before
    split_parts(scene, "blocks")
    again = parts_of(scene)
    assert [(part.name, part.number) for part in again.parts] == [(part.name, part.number) for part in parts.parts]
    torch.testing.assert_close(again.boxes, parts.boxes)


def test_a_part_with_the_name_of_the_joint_file_is_written_too(tmp_path: Path) -> None:
    scene = block_scene()
    split_parts(scene, "blocks")
    scene["block-00"].name = "parts"
    done = export_parts(scene, tmp_path)
    assert done.joint == tmp_path / "all-parts.glb"
    assert len({done.joint, *done.files}) == len(LIVE) + 1
    assert done.joint.stat().st_size > (tmp_path / "parts.glb").stat().st_size


def test_boxes_stand_where_the_layer_stands() -> None:
    scene = block_scene()
    plain = parts_of(scene).boxes
    scene.layers["blocks"].similarity = Similarity(2.0, translation=torch.tensor([1.0, 2.0, 3.0]).double())
    torch.testing.assert_close(
        parts_of(scene).boxes, 2.0 * plain + torch.tensor([1.0, 2.0, 3.0]).double(), rtol=1e-5, atol=1e-5
    )


# -- apart -------------------------------------------------------------------------------------------------------------
def overlaps(boxes: torch.Tensor) -> int:
    low, high = boxes.unbind(1)
    both = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(dim=2)
    return int(both.sum()) - len(boxes)


def test_an_exploded_scene_has_its_parts_apart() -> None:
    parts = parts_of(block_scene(count=12))
    assert overlaps(parts.boxes) > 0
    assert overlaps(parts_of(parts.exploded()).boxes) == 0
    torch.testing.assert_close(parts_of(parts.exploded(0.0)).boxes, parts.boxes)
    half = parts_of(parts.exploded(0.5)).boxes.mean(dim=1)
    torch.testing.assert_close(half, parts.boxes.mean(dim=1) + 0.5 * parts.moves(), rtol=1e-5, atol=1e-5)


def test_distances_in_closed_form() -> None:
    """Two cubes of edge 2, one unit apart: the second goes to a distance of an edge and the gap; and never inwards."""
    unit = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]).double()
    shift = torch.tensor([1.0, 0.0, 0.0]).double()
    moves = displacements(torch.stack([unit, unit + shift]))
    assert moves.tolist() == [[0.0, 0.0, 0.0], pytest.approx([1.0 + 0.06 * 2.0, 0.0, 0.0])]
    far = displacements(torch.stack([unit, unit + 10 * shift]))
    assert far.tolist() == [[0.0, 0.0, 0.0], pytest.approx([0.5 * 5.0, 0.0, 0.0])]
    same = displacements(torch.stack([unit] * 6))
    assert overlaps(torch.stack([unit] * 6) + same[:, None, :]) == 0
    assert displacements(unit[None]).tolist() == [[0.0, 0.0, 0.0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10_000), st.floats(0.0, 2.0))
def test_boxes_never_overlap_whatever_they_are(count: int, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    middles = spread * torch.randn(count, 3, generator=generator).double()
    halves = 0.01 + torch.rand(count, 3, generator=generator).double() ** 3
    boxes = torch.stack([middles - halves, middles + halves], dim=1)
    moves = displacements(boxes)
    assert overlaps(boxes + moves[:, None, :]) == 0
    weights = halves.prod(dim=1)
    away = middles - (weights[:, None] * middles).sum(dim=0) / weights.sum()
    apart = (away.norm(dim=1) > 0.1) & moves.any(dim=1)
    assert int(moves.any(dim=1).sum()) == count - 1
    assert bool(((moves * away).sum(dim=1) >= 0.5 * away.square().sum(dim=1) - 1e-4)[apart].all())
    assert float(moves.norm(dim=1).max()) <= 8.0 * count * float(halves.max()) + float(away.norm(dim=1).max())


# -- colours -----------------------------------------------------------------------------------------------------------
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
"""Linear RGB as the red- and the green-blind see it (Machado et al. 2009, severity 1)."""


@pytest.mark.parametrize("eye", ["all", "protan", "deutan"])
def test_the_colors_of_parts_stay_apart(eye: str) -> None:
    """Lightness and chroma (CIE Lab) of any two of the first seven differ by 12 or more; all 21 are different."""
    colors = torch.tensor([flat_color(number) for number in range(SAFE)]).double()
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    if eye in BLIND:
        linear = (linear @ torch.tensor(BLIND[eye]).double().T).clamp(0, 1)
    to_xyz = torch.tensor([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]).double()
    xyz = (linear @ to_xyz.T) / to_xyz.sum(dim=1)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    lab = torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)
    distances = torch.cdist(lab, lab) + 1e3 * torch.eye(SAFE).double()
    assert float(distances.min()) > 12.0
    assert len({flat_color(number) for number in range(3 * SAFE)}) == 3 * SAFE
    assert all(math.isfinite(x) and 0 <= x <= 1 for number in range(100) for x in flat_color(number))


# -- families ----------------------------------------------------------------------------------------------------------
class Torn(Superquadrics):
    """Says that its parts are others than those that it draws."""

    part_noun = ""

    @torch.no_grad()
    def separate_parts(self) -> torch.Tensor:
        return super().separate_parts()[1:].flip(0)


def test_a_family_is_held_to_its_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    points, colors = torch.rand(6, 3, generator=generator) - 0.5, torch.rand(6, 3, generator=generator)
    for kind in (Superquadrics, Torn):
        report = Report(kind.name)
        check_parts(report, Stage(kind, {"texture_size": 4}, points, colors, demo_camera()))
        failed = {finding.name for finding in report.failures}
        assert failed == set() or kind is Torn
    assert failed == {"part_noun", "parts: rows", "parts: the same picture"}

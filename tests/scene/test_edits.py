"""Edits do what they say to every family, to the selection alone, and are refused where they cannot be right."""

from __future__ import annotations

import math

import pytest
import torch
from mixed import LAYERS, SPLATS, a_camera, a_family, a_scene, in_bytes, picture
from torch import Tensor

from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family, FamilyError
from smalti.scene import (
    EditError,
    Layer,
    Selection,
    apply_to,
    array,
    crop,
    delete,
    duplicate,
    everything,
    expose,
    fade,
    index,
    layer,
    merge,
    middle,
    mirror,
    move,
    recolor,
    rotate,
    scale,
    set_opacity,
    split,
    tint,
    transform,
    where,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")
each = pytest.mark.parametrize("name", LAYERS)
TURN = so3_exp(torch.tensor([0.4, -0.9, 0.5], dtype=torch.float64))
MOVE = Similarity(1.0, TURN, torch.tensor([0.5, 1.0, -0.3], dtype=torch.float64))
WIDER = Similarity(1.7, TURN, torch.tensor([0.5, 1.0, -0.3], dtype=torch.float64))


def a_part(name: str) -> Selection:
    """Some of a layer; of a mesh, faces that share vertices with others, which follow."""
    return index(name, [0, 2])


@each
@pytest.mark.parametrize("which", ["a part", "a layer"])
@pytest.mark.parametrize("similarity", [MOVE, WIDER], ids=["rigid", "scaled"])
def test_selection_and_camera_moved_together_give_the_same_picture(
    name: str, which: str, similarity: Similarity
) -> None:
    chosen = a_part(name) if which == "a part" else layer(name)
    before, after, camera = a_scene(name, double=True), a_scene(name, double=True), a_camera()
    crop(before, chosen)
    transform(after, chosen, similarity)
    crop(after, chosen)
    limit = 1e-9
    if name == "boxes" and similarity.scale != 1 and which == "a part":
        # The step of the march belongs to all boxes of a picture: this is another sampling of the same densities.
        for scene in (before, after):
            scene.layers[name].family.metadata["step"] = 0.002
        limit = 5e-3
    if name == "superquadrics" and which == "a part":
        limit = 1e-7
    seen = picture(before, camera)
    assert float(seen[..., 3].max()) > 0.3
    moved = picture(after, similarity.apply_camera(camera), near=0.01 * similarity.scale)
    assert float((moved - seen).abs().max()) < limit


@each
def test_what_is_not_selected_keeps_its_bytes(name: str) -> None:
    scene = a_scene(name, "gaussians" if name != "gaussians" else "surfels")
    other = next(key for key in scene.layers if key != name)
    before = {key: value.detach().clone() for key, value in scene.layers[name].family.parameters.items()}
    beside = {key: value.detach().clone() for key, value in scene.layers[other].family.parameters.items()}
    assert scale(scene, a_part(name), 1.5) == 2
    assert set_opacity(scene, a_part(name), 0.4) == 2
    family = scene.layers[name].family
    own = family.same_primitives("logit_opacities" if "vertices" in before else "quaternions", torch.tensor([0, 2]))
    for key, value in before.items():
        same = torch.ones(len(value), dtype=torch.bool)
        same[own.get(key, torch.zeros(0, dtype=torch.long))] = False
        assert torch.equal(family.parameters[key].detach()[same], value[same]), key
    for key, value in beside.items():
        assert torch.equal(scene.layers[other].family.parameters[key].detach(), value)


@each
@pytest.mark.parametrize("which", ["a part", "a layer"])
def test_a_mirror_image_is_the_picture_mirrored(name: str, which: str) -> None:
    chosen = a_part(name) if which == "a part" else layer(name)
    scene, camera = a_scene(name, double=True), a_camera()
    if name == "superquadrics":
        with pytest.raises(FamilyError, match="cannot be mirrored"):
            mirror(scene, chosen, [1, 0, 0])
        return
    # The plane through the camera's centre with its x axis for a normal turns the picture about its middle column.
    axis = camera.rotation[0]
    crop(scene, chosen)
    seen = picture(scene, camera)
    assert float(seen[..., 3].max()) > 0.2
    mirror(scene, everything(), 3 * axis, float(axis @ camera.centre))
    assert float((picture(scene, camera).flip(1) - seen).abs().max()) < 1e-9


def test_a_mirrored_closed_mesh_keeps_its_inside_inside() -> None:
    scene = a_scene("meshes")
    surface = scene.layers["meshes"].family.surface()
    assert surface is not None
    before = float(surface.volume())
    assert before > 0
    mirror(scene, layer("meshes"), [0.3, 1, 0], 0.7)
    after = scene.layers["meshes"].family.surface()
    assert after is not None
    assert float(after.volume()) == pytest.approx(before, rel=1e-5)


@each
def test_opacities_are_set_and_faded(name: str) -> None:
    scene = a_scene(name)
    family, rows = scene.layers[name].family, torch.tensor([0, 2])
    before = family.opacities().detach().clone()
    assert set_opacity(scene, a_part(name), 0.3) == 2
    seen = family.opacities().detach()
    assert torch.allclose(seen[rows][before[rows] > 0], torch.tensor(0.3), atol=1e-4)
    fade(scene, layer(name), 0.5)
    assert torch.allclose(family.opacities().detach(), 0.5 * seen, atol=1e-4)


@pytest.mark.parametrize("name", [*SPLATS, "local"])
def test_tinted_splats_are_tinted_from_everywhere(name: str) -> None:
    scene, camera = a_scene(name, double=True), a_camera()
    # Bright enough that no colour is cut off at black.
    scene.layers[name].family.parameters["sh_dc"].data += 3.0
    seen = picture(scene, camera)
    tint(scene, layer(name), [0.5, 1.0, 2.0])
    gain = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=seen.dtype)
    assert float((picture(scene, camera) - seen * gain).abs().max()) < 1e-9


@each
def test_colours_are_mapped_by_a_function(name: str) -> None:
    scene, camera = a_scene(name, double=True), a_camera()
    seen = picture(scene, camera)
    assert expose(scene, layer(name), -1.0) == len(scene)
    darker = picture(scene, camera)
    assert float(darker[..., :3].sum()) < 0.75 * float(seen[..., :3].sum())
    assert torch.equal(darker[..., 3], seen[..., 3])
    recolor(scene, layer(name), lambda colors: torch.zeros_like(colors))
    assert float(scene.layers[name].family.base_colors().max()) < 1e-3
    with pytest.raises(ValueError, match="finite colours"):
        recolor(scene, layer(name), lambda colors: colors / 0)


def test_a_texture_is_recoloured_whole_or_not_at_all() -> None:
    scene = a_scene("textured")
    before = in_bytes(scene)
    with pytest.raises(EditError, match=r"raw_texture belongs to all .* split the part"):
        tint(scene, index("textured", [0]), [1, 0, 0])
    assert in_bytes(scene) == before
    split(scene, index("textured", [0]), "red")
    assert tint(scene, layer("red"), [1, 0, 0]) == 1
    assert not torch.equal(*[scene.layers[key].family.parameters["raw_texture"] for key in ("red", "textured")])


@each
def test_deleted_split_and_merged(name: str) -> None:
    scene, camera = a_scene(name, double=True), a_camera()
    whole, count = picture(scene, camera), len(scene)
    assert split(scene, a_part(name), "part") == ["part"]
    assert scene.counts() == {name: count - 2, "part": 2}
    # Two textures of the same bytes count as one.
    assert merge(scene, [name, "part"]) == name
    assert scene.counts() == {name: count}
    # A mesh is the same faces with the seam cut open: its antialiased silhouette has edges there.
    if name not in ("meshes", "textured"):
        assert float((picture(scene, camera) - whole).abs().max()) < 1e-9
    scene.layers[name].family.check_shapes()
    assert delete(scene, everything()) == count
    assert len(scene) == 0
    assert list(scene.layers) == [name]
    assert delete(scene, everything()) == 0
    for _ in range(3):
        scene.undo()
    assert torch.equal(picture(scene, camera), whole)


@each
def test_copies_stand_where_they_should(name: str) -> None:
    scene, one = a_scene(name, double=True), a_scene(name, double=True)
    crop(scene, a_part(name))
    crop(one, a_part(name))
    step = Similarity(1.1, TURN, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert array(scene, layer(name), 3, step) == 6
    family = scene.layers[name].family
    assert len(family) == 8
    for copy in range(4):
        place = step.apply(one.layers[name].family.positions().detach()) if copy else None
        if place is not None:
            transform(one, layer(name), step)
        own = family.positions().detach()[2 * copy : 2 * copy + 2]
        assert torch.allclose(own, one.layers[name].family.positions().detach(), atol=1e-9)
    assert duplicate(scene, index(name, [1]), [0, 0, 5]) == 1
    shift = family.positions().detach()[-1] - family.positions().detach()[1]
    assert torch.allclose(shift, torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64))


def test_moves_about_a_pivot() -> None:
    scene = a_scene("gaussians", double=True)
    points = scene.layers["gaussians"].family.positions
    centre, before = middle(scene, everything()), points().detach().clone()
    rotate(scene, everything(), [0, 0, 5], 90.0)
    x, y, z = (before - centre).unbind(1)
    assert torch.allclose(points().detach(), torch.stack([-y, x, z], 1) + centre)
    rotate(scene, everything(), [0, 0, 1], -90.0)
    scale(scene, everything(), 2.0, pivot=[1.0, 0.0, 0.0])
    pivot = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.allclose(points().detach(), 2.0 * (before - pivot) + pivot)
    with pytest.raises(ValueError, match="positive"):
        scale(scene, everything(), -1.0)
    with pytest.raises(EditError, match="nothing is selected"):
        middle(scene, where("opacity", ">", 2.0))
    assert rotate(scene, where("opacity", ">", 2.0), [0, 0, 1], 90.0) == 0
    assert len(scene.history.done) == 3


def test_layers_with_a_similarity_are_edited_in_the_scenes_axes() -> None:
    plain, placed = a_scene("surfels", double=True), a_scene("surfels", double=True)
    transform(plain, everything(), WIDER)
    placed.layers["surfels"].similarity = WIDER
    for scene in (plain, placed):
        rotate(scene, index("surfels", [1, 3]), [0, 1, 0], 40.0, pivot=[1, 2, 3])
        mirror(scene, index("surfels", [2]), [1, 1, 0], 0.4)
    one, two = (scene.flattened().layers["surfels"].family for scene in (plain, placed))
    for key in ("means", "log_scales", "sh_rest"):
        assert torch.allclose(one.parameters[key], two.parameters[key], atol=1e-9), key


def test_locked_layers_are_refused_and_nothing_happens() -> None:
    scene = a_scene("gaussians", "boxes")
    scene["boxes"].locked = True
    before = in_bytes(scene)
    for edit in (delete, lambda s, c: move(s, c, [1, 0, 0]), lambda s, c: split(s, c, "new"), duplicate):
        with pytest.raises(EditError, match="layer 'boxes' is locked"):
            edit(scene, everything())
    with pytest.raises(EditError, match="locked"):
        merge(scene, ["gaussians", "boxes"])
    with pytest.raises(EditError, match="locked"):
        scene["boxes"].remove()
    assert in_bytes(scene) == before
    assert move(scene, everything() & ~layer("boxes"), [1, 0, 0]) == 7


def test_layers_that_do_not_fit_are_not_merged() -> None:
    scene = a_scene("gaussians", "surfels", "meshes", "textured", "boxes")
    scene.add("more", a_family("gaussians", 1))
    before = in_bytes(scene)
    with pytest.raises(EditError, match="layers of one family"):
        merge(scene, ["gaussians", "surfels"])
    with pytest.raises(ValueError, match=r"texture_size|differ in their parameters"):
        merge(scene, ["meshes", "textured"])
    scene.layers["more"].family.metadata["active_sh_degree"] = 0
    with pytest.raises(FamilyError, match="active_sh_degree"):
        merge(scene, ["gaussians", "more"])
    with pytest.raises(EditError, match="two layers or more"):
        merge(scene, ["gaussians"])
    scene.layers["more"].family.metadata["active_sh_degree"] = 2
    assert in_bytes(scene) == before
    assert merge(scene, ["gaussians", "more"]) == "gaussians"
    assert scene.counts()["gaussians"] == 14


def test_two_layers_of_boxes_can_still_be_drawn_after_one_was_scaled() -> None:
    scene = a_scene("boxes", double=True)
    family = a_family("boxes", 1)
    family.replace({key: value.detach().double() for key, value in family.parameters.items()})
    scene.add("more", family)
    scale(scene, layer("more"), 2.0)
    assert math.isfinite(float(picture(scene, a_camera()).sum()))
    assert family.metadata["step"] == scene.layers["boxes"].family.metadata["step"]


def test_a_block_is_not_shrunk_below_what_its_layer_can_hold() -> None:
    scene = a_scene("superquadrics")
    before = in_bytes(scene)
    with pytest.raises(FamilyError, match="scale their whole layer"):
        scale(scene, index("superquadrics", [0]), 1e-3)
    assert in_bytes(scene) == before
    assert scale(scene, layer("superquadrics"), 1e-3) == 3


def test_a_function_that_writes_into_what_it_gets_harms_nothing() -> None:
    scene = a_scene("boxes")
    held = scene.layers["boxes"].family.parameters["colors"].detach().clone()

    def wild(colors: Tensor) -> Tensor:
        colors.zero_()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        recolor(scene, layer("boxes"), wild)
    assert torch.equal(scene.layers["boxes"].family.parameters["colors"].detach(), held)


def test_edits_that_would_ruin_a_layer_are_refused() -> None:
    scene = a_scene("gaussians")
    before = in_bytes(scene)
    with pytest.raises(EditError, match="means would become NaN or infinite"):
        move(scene, index("gaussians", [1]), [1e39, 0, 0])

    def wider(held: Layer, part: Family) -> None:
        part.replace({"means": part.parameters["means"].repeat(1, 2)})

    def coarser(held: Layer, part: Family) -> None:
        part.replace({"means": part.parameters["means"].half()})

    for change in (wider, coarser):
        with pytest.raises(EditError, match="means should stay"):
            apply_to(scene, layer("gaussians"), "odd", change)
    with pytest.raises(RuntimeError):
        apply_to(scene, index("gaussians", [1]), "odd", wider)
    assert in_bytes(scene) == before


@each
def test_layers_that_sit_elsewhere_are_brought_along_when_merged(name: str) -> None:
    scene, camera = a_scene(name, double=True), a_camera()
    split(scene, a_part(name), "part")
    scene["part"].similarity = Similarity(1.2, TURN, torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64))
    scene[name].similarity = Similarity(0.9)
    for held in scene:
        # One step for both layers in the picture, whatever becomes of it when they are flattened.
        if name == "boxes":
            held.family.metadata["step"] = 0.002 / held.similarity.scale
    before = picture(scene.flattened(), camera)
    merge(scene, [name, "part"])
    after = picture(scene.flattened(), camera)
    assert float(before[..., 3].max()) > 0.3
    assert float((after - before).abs().max()) < (1e-2 if name == "boxes" else 1e-6)

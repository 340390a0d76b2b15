"""Selections choose what they say, on every family, when they are asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mixed import LAYERS, a_camera, a_scene
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene import (
    EditError,
    Scene,
    Selection,
    box,
    connected,
    contributing,
    contributions,
    delete,
    everything,
    half_space,
    in_polygon,
    in_rectangle,
    index,
    layer,
    nearby,
    nearest,
    sphere,
    where,
)
from smalti.scene.nearby import reached
from smalti.scene.screen import in_outline

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def on_points(points: Tensor, opacity: float = 0.95, size: float = 0.1) -> Scene:
    scene = Scene(order="ray")
    family = Gaussians.from_points(points.float(), torch.full((len(points), 3), 0.5), {"initial_opacity": opacity})
    family.replace({"log_scales": torch.full((len(points), 3), size).log()})
    scene.add("points", family)
    return scene


def chosen(selection: Selection, scene: Scene) -> list[int]:
    return torch.nonzero(torch.cat(list(selection.masks(scene).values()))).squeeze(1).tolist()


GRID = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 3)


def test_shapes_choose_by_centres() -> None:
    scene = on_points(GRID)
    x, y, z = GRID.unbind(1)

    def rows(mask: Tensor) -> list[int]:
        return torch.nonzero(mask).squeeze(1).tolist()

    assert chosen(box([-1, 0, 0], [2, 1, 0]), scene) == rows((x >= -1) & (y >= 0) & (y <= 1) & (z == 0))
    assert chosen(sphere([1, 0, 0], 1.0), scene) == rows((x - 1).square() + y.square() + z.square() <= 1)
    assert chosen(half_space([0, 3, 0], 1.0), scene) == rows(y >= 1)
    turn = so3_exp(torch.tensor([0.0, 0.0, torch.pi / 4], dtype=torch.float64))
    # A square of half side 1.1 on its corner: |x| + |y| <= 1.1 sqrt(2).
    found = chosen(box([-1.1, -1.1, -0.5], [1.1, 1.1, 0.5], turn), scene)
    assert found == rows((x.abs() + y.abs() <= 1.5) & (z == 0))
    with pytest.raises(ValueError, match="should not exceed"):
        box([1, 0, 0], [0, 1, 1])
    with pytest.raises(ValueError, match="cannot be zero"):
        half_space([0, 0, 0], 1)
    with pytest.raises(ValueError, match="three finite numbers"):
        sphere([0, 0, float("nan")], 1)


def test_expressions_are_boolean_algebra_and_lazy() -> None:
    scene = on_points(GRID)
    one, two = half_space([1, 0, 0], 0.5), half_space([0, 1, 0], 0.5)
    a, b = (each.masks(scene)["points"] for each in (one, two))
    assert torch.equal((one & ~two).masks(scene)["points"], a & ~b)
    assert torch.equal((~(one | two)).masks(scene)["points"], ~a & ~b)
    assert repr(one & ~layer("points")) == "Selection((half_space([1.0, 0.0, 0.0], 0.5) & ~layer('points')))"
    recipe = layer("later")
    with pytest.raises(EditError, match="there is no layer 'later'; there are: points"):
        recipe.masks(scene)
    scene.add("later", scene.layers["points"].family.copy())
    assert recipe.counts(scene) == {"points": 0, "later": 125}
    delete(scene, recipe & one)
    assert recipe.counts(scene)["later"] == 75


def test_rows_outside_of_a_layer_are_refused() -> None:
    scene = on_points(GRID)
    assert chosen(index("points", [0, -1]), scene) == [0, 124]
    assert chosen(index("points", []), scene) == []
    for rows in ([125], [-126]):
        with pytest.raises(EditError, match="has 125 primitives"):
            index("points", rows).masks(scene)


def test_a_layers_similarity_counts() -> None:
    scene = on_points(GRID)
    scene.layers["points"].similarity = Similarity(2.0, translation=torch.tensor([10.0, 0, 0], dtype=torch.float64))
    assert chosen(sphere([10, 0, 0], 0.1), scene) == [62]
    assert sum(where("x", ">", 13.0).counts(scene).values()) == 25
    assert sum(where("size", "<", 0.199).counts(scene).values()) == 0


@pytest.mark.parametrize("name", LAYERS)
def test_every_family_has_all_values(name: str) -> None:
    scene = a_scene(name)
    family = scene.layers[name].family
    for value in ("opacity", "x", "y", "z", "size", "thinness", "volume", "area", "red", "green", "blue"):
        low, high = where(value, "<", 0.5), where(value, ">=", 0.5)
        assert sum((low | high).counts(scene).values()) == len(scene), value
        assert not chosen(low & high, scene)
    bright = chosen(where(lambda values: values["color"].mean(dim=1) > 0.5), scene)
    assert bright == torch.nonzero(family.base_colors().mean(dim=1) > 0.5).squeeze(1).tolist()


def test_values_that_do_not_exist_are_named() -> None:
    scene = a_scene("gaussians", "boxes")
    with pytest.raises(EditError, match="has no value 'opacitty'; it has opacity"):
        where("opacitty", "<", 1).masks(scene)
    with pytest.raises(ValueError, match="is no comparison"):
        where("opacity", "=", 1)
    with pytest.raises(EditError, match="a boolean per primitive"):
        where("color", "<", 1).masks(scene)
    # A parameter that one of the families has.
    assert where("logit_opacities", ">", -100).counts(scene) == {"gaussians": 7, "boxes": 0}


def test_the_nearest_are_those_of_all_layers() -> None:
    scene = on_points(GRID)
    scene.add("more", on_points(GRID + 0.25).layers["points"].family)
    found = nearest([0.2, 0.2, 0.2], 2).masks(scene)
    assert torch.nonzero(found["more"]).squeeze(1).tolist() == [62]
    assert torch.nonzero(found["points"]).squeeze(1).tolist() == [62]
    assert len(chosen(nearest([0, 0, 0], 1000), scene)) == 250
    assert chosen(nearest([0, 0, 0], 0), scene) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [50, 4_000_000])
def test_what_is_connected_is_what_a_search_over_all_pairs_finds(
    seed: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smalti.scene.nearby.PAIRS", pairs)
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    points[7], distance = float("nan"), 0.45
    close = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") <= distance
    first = int(close.sum(dim=1).argmax())
    expected = torch.zeros(300, dtype=torch.bool)
    expected[first] = True
    while True:
        more = expected | close[expected].any(dim=0)
        if torch.equal(more, expected):
            break
        expected = more
    start = torch.zeros(300, dtype=torch.bool)
    start[first] = True
    assert 20 < int(expected.sum()) < 290
    assert torch.equal(reached(points, start, distance), expected)


def test_a_dense_cloud_is_not_compared_with_itself_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.zeros(len(points), dtype=torch.bool)
    start[int(points.norm(dim=1).argmin())] = True
    compared, pairs = [0], nearby._pairs

    def counted(first: torch.Tensor, last: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        compared[0] += int((last - first).sum())
        return pairs(first, last)

    monkeypatch.setattr(nearby, "_pairs", counted)
    monkeypatch.setattr(nearby, "PAIRS", 400_000)
    assert int(reached(points, start, 1.0).sum()) > 19_990
    assert 20_000 < compared[0] < 0.05 * len(points) ** 2


def test_connected_goes_across_layers() -> None:
    scene = on_points(torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [9.0, 0, 0]]))
    scene.add("bridge", on_points(torch.tensor([[1.0, 0, 0], [7.0, 0, 0]])).layers["points"].family)
    assert chosen(connected(index("points", [0]), 1.0), scene) == [0, 1, 3]
    assert chosen(connected(index("points", [0]), 0.9), scene) == [0]
    with pytest.raises(ValueError, match="positive"):
        connected(everything(), 0)


def a_view() -> Camera:
    position = torch.tensor([0.0, 0.0, -10.0])
    return Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (80, 60))


def test_rectangles_and_lassos_choose_what_projects_into_them() -> None:
    scene, camera = on_points(torch.tensor([[-2.0, 0, 0], [2.0, 0, 0], [2.0, 0, 3], [2, 0, -20]])), a_view()
    assert chosen(in_rectangle(camera, 80, 60, 40, 0), scene) == [1, 2]
    assert chosen(in_rectangle(camera, 0, 0, 40, 60), scene) == [0]
    assert chosen(in_polygon(camera, [(40, 0), (80, 30), (40, 60)]), scene) == [1, 2]
    assert chosen(in_polygon(camera, [(0, 0), (40, 0), (0, 20)]), scene) == []
    scene["points"].visible = False
    assert chosen(in_rectangle(camera, 0, 0, 80, 60), scene) == []
    with pytest.raises(ValueError, match="three corners"):
        in_polygon(camera, [(0, 0), (1, 1)])


def test_a_star_is_inside_where_an_odd_number_of_edges_lies_to_the_right() -> None:
    hole = torch.tensor([[0.0, 0], [4, 0], [4, 4], [0, 4], [0, 1], [3, 1], [3, 3], [1, 3], [1, 0.5], [0, 0.5]]).double()
    points = torch.tensor([[3.5, 2.0], [2.0, 2.0], [5.0, 2.0]]).double()
    assert in_outline(points, hole)[[0, 2]].tolist() == [True, False]


def test_what_is_hidden_is_left_out_where_asked() -> None:
    depth = torch.tensor([[0.0, 0, 0], [0.0, 0, 3], [2.0, 0, 3]])
    scene, camera = on_points(depth, opacity=0.98, size=0.4), a_view()
    scene["points"].family.parameters["log_scales"].data[1] = torch.log(torch.tensor(0.05))
    assert chosen(in_rectangle(camera, 0, 0, 80, 60), scene) == [0, 1, 2]
    assert chosen(in_rectangle(camera, 0, 0, 80, 60, occluded=False), scene) == [0, 2]
    assert chosen(in_polygon(camera, [(0, 0), (80, 0), (80, 60), (0, 60)], occluded=False), scene) == [0, 2]
    assert chosen(in_rectangle(camera, -50, 0, -10, 60, occluded=False), scene) == []
    assert chosen(~contributing(camera), scene) == [1]
    behind = Camera.look_at(torch.tensor([0.0, 0, 10]), torch.zeros(3), torch.tensor([0.0, -1, 0]), 0.8, (80, 60))
    assert chosen(contributing([camera, behind]), scene) == [0, 1, 2]


@pytest.mark.parametrize("name", LAYERS)
def test_contributions_are_per_primitive_whatever_is_drawn(name: str) -> None:
    scene = a_scene(name, "gaussians" if name != "gaussians" else "surfels")
    shares = contributions(scene, a_camera().to(torch.float32))
    for held in scene:
        assert shares[held.name].shape == (len(held.family),)
        assert 0 < float(shares[held.name].max()) <= 1


def test_blocks_that_are_not_drawn_contribute_nothing() -> None:
    scene = a_scene("superquadrics")
    family = scene.layers["superquadrics"].family
    assert isinstance(family, Superquadrics)
    family.parameters["logit_opacities"].data[1] = -20.0
    shares = contributions(scene, a_camera().to(torch.float32))["superquadrics"]
    assert float(shares[1]) == 0
    assert float(shares.max()) > 0


def test_empty_scenes_and_layers_have_nothing_to_choose() -> None:
    assert everything().masks(Scene()) == {}
    assert nearest([0, 0, 0], 3).counts(Scene()) == {}
    assert contributions(Scene(), a_view()) == {}
    scene = on_points(GRID)
    delete(scene, everything())
    for selection in (everything(), where("opacity", "<", 1), nearest([0, 0, 0]), connected(everything(), 1.0)):
        assert chosen(selection, scene) == []
    assert chosen(in_rectangle(a_view(), 0, 0, 80, 60, occluded=False), scene) == []

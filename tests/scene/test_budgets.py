"""Simplifying to a budget: it is kept, the picture nearly too, and it is better than leaving primitives out."""

from __future__ import annotations

import math

import pytest
import torch
from mixed import LAYERS, a_family, a_scene, in_bytes
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import find_family
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.surface import Surface
from smalti.scene import EditError, Scene, contributions, crop, everything, half_space, index, layer, simplify
from smalti.scene.screen import total_contributions

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def a_view(angle: float, width: int = 96) -> Camera:
    position = torch.tensor([3 * math.sin(angle), -0.8, -3 * math.cos(angle)])
    return Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (width, width))


VIEWS = [a_view(0.7 * k) for k in range(9)]
JUDGES = [a_view(0.7 * k + 0.35) for k in range(3)]


def a_shell(family: str, count: int = 3000, size: float = 0.6) -> Scene:
    """A coloured sphere of small splats, with as many inside that nobody sees."""
    number = torch.arange(count)
    high = 1 - (2 * number + 1) / count
    angle = math.pi * (3 - math.sqrt(5)) * number
    flat = (1 - high.square()).sqrt()
    around = torch.stack([flat * angle.cos(), high, flat * angle.sin()], dim=1)
    radius = torch.where(number % 2 == 0, 1.0, 0.5)[:, None]
    colors = 0.5 + 0.4 * torch.sin(3 * around)
    kind = find_family(family)
    made = kind.from_points(around * radius, colors, {"sh_degree": 1, "initial_opacity": 0.9, "initial_scale": size})
    scene = Scene(order="ray", background=(1.0, 1.0, 1.0))
    scene.add("shell", made)
    return scene


@torch.no_grad()
def pictures(scene: Scene) -> Tensor:
    return torch.stack([scene.render(view).color for view in JUDGES])


def decibels(first: Tensor, second: Tensor) -> float:
    return -10 * math.log10(float((first - second).square().mean()))


@pytest.mark.parametrize("family", ["gaussians", "surfels", "ray_gaussians"])
def test_merging_splats_is_better_than_leaving_some_out(family: str) -> None:
    scene = a_shell(family)
    held, before, saved = scene["shell"].family, pictures(scene), in_bytes(scene)
    weighty = held.importance().argsort(descending=True)[:600]
    assert crop(scene, index("shell", weighty)) == 2400
    pruned = decibels(pictures(scene), before)
    scene.undo()
    assert simplify(scene, everything(), count=600) == 2400
    merged = decibels(pictures(scene), before)
    scene.undo()
    assert simplify(scene, everything(), count=600, cameras=VIEWS) == 2400
    seen = decibels(pictures(scene), before)
    assert merged > pruned + 3
    assert seen > merged + 0.4
    scene.undo()
    assert in_bytes(scene) == saved


def test_what_nobody_sees_goes_first() -> None:
    scene = a_shell("gaussians", size=1.2)
    before, inside = pictures(scene), layer("shell") & ~half_space([0, 1, 0], 100.0)
    unseen = total_contributions(scene, VIEWS)["shell"][1] < 1 / 255
    assert 1000 < int(unseen.sum()) < 2000
    left = 3000 - int(unseen.sum())
    kept = scene["shell"].family.parameters["means"][~unseen].detach()
    simplify(scene, inside, count=left, cameras=VIEWS)
    assert torch.equal(scene["shell"].family.parameters["means"].detach(), kept)
    assert decibels(pictures(scene), before) > 45


@pytest.mark.parametrize("name", LAYERS)
def test_every_family_keeps_the_budget_and_can_be_undone(name: str) -> None:
    scene = a_scene(name)
    before, count = in_bytes(scene), len(scene)
    if name == "textured":
        # Every face has texels of its own: all corners are seams.
        with pytest.raises(EditError, match="layer 'textured' cannot become smaller than about 20 primitives"):
            simplify(scene, everything(), count=count // 2)
        assert in_bytes(scene) == before
        return
    went = simplify(scene, everything(), count=count // 2 + 1)
    assert went == count - len(scene) >= count - count // 2 - 1
    after = in_bytes(scene)
    scene.undo()
    assert in_bytes(scene) == before
    scene.redo()
    assert in_bytes(scene) == after
    scene.undo()
    size = scene.layers[name].family.bytes
    simplify(scene, everything(), bytes=2 * size // 3)
    assert 0 < scene.layers[name].family.bytes <= 2 * size // 3
    scene.undo()
    assert in_bytes(scene) == before


def test_a_budget_is_shared_in_proportion_and_leaves_one_of_each() -> None:
    scene = a_shell("gaussians", 400)
    scene.add("few", a_family("superquadrics"))
    simplify(scene, everything(), count=100)
    assert scene.counts() == {"shell": 99, "few": 1}
    assert simplify(scene, everything(), count=100) == 0
    assert len(scene.history.done) == 1
    scene["few"].locked = True
    with pytest.raises(EditError, match="locked"):
        simplify(scene, everything(), count=10)
    with pytest.raises(ValueError, match="either count or bytes"):
        simplify(scene, everything())
    assert simplify(scene, layer("shell"), count=0) == 99


def test_a_part_is_simplified_and_the_rest_stays() -> None:
    scene = a_shell("gaussians")
    rest = scene["shell"].family.parameters["means"].detach()
    rest = rest[rest[:, 0] < 0]
    simplify(scene, half_space([1, 0, 0], 0.0), count=200)
    means = scene["shell"].family.parameters["means"].detach()
    assert torch.equal(means[means[:, 0] < 0], rest)
    assert len(means) <= len(rest) + 200
    # The history holds what went and what came, not the scene.
    assert scene.history.bytes < 0.75 * scene["shell"].family.bytes * 3000 / len(means) + 64 * 3000


# -- meshes -----------------------------------------------------------------------------------------------------------
def test_a_sphere_of_fewer_faces_is_still_one() -> None:
    scene = Scene(order="ray")
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 4}))
    before = pictures(scene)
    assert simplify(scene, everything(), count=1000) == 4120
    family = scene["ball"].family
    surface = family.surface()
    assert surface is not None
    assert int((family.neighbours() < 0).sum()) == 0  # type: ignore[attr-defined]
    assert surface.volume() == pytest.approx(4 / 3 * math.pi, rel=0.02)
    assert len(family.parameters["vertices"]) == 502
    assert decibels(pictures(scene), before) > 33
    scene.undo()
    assert torch.equal(pictures(scene), before)


def a_plane(side: int, colors: str = "grey") -> Surface:
    axis = torch.linspace(-1, 1, side + 1)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    vertices = torch.stack([x, y, torch.zeros_like(x)], dim=2).reshape(-1, 3)
    first = (torch.arange(side)[:, None] * (side + 1) + torch.arange(side)).reshape(-1)
    faces = torch.cat(
        [
            torch.stack([first, first + side + 1, first + 1], dim=1),
            torch.stack([first + 1, first + side + 1, first + side + 2], dim=1),
        ]
    )
    shades = torch.full_like(vertices, 0.5)
    if colors == "halves":
        shades[vertices[:, 0] > 0.01] = torch.tensor([1.0, 0.0, 0.0])
    return Surface(vertices, faces, shades)


def test_a_flat_sheet_keeps_its_border_and_its_colours() -> None:
    sheet = a_plane(16, "halves")
    assert sheet.colors is not None
    scene = Scene(order="ray")
    scene.add("sheet", Meshes.from_mesh(sheet.vertices, sheet.faces, sheet.colors, {}))
    before = pictures(scene)
    simplify(scene, everything(), count=80)
    assert 60 < len(scene) <= 80
    surface = scene["sheet"].family.surface()
    assert surface is not None
    # Nothing turned over, no hole, no overlap: the area and the border are as before.
    assert float(surface.areas().sum()) == pytest.approx(4.0, abs=1e-5)
    assert bool((surface.normals()[:, 2].sign() == surface.normals()[0, 2].sign()).all())
    assert decibels(pictures(scene), before) > 35


def test_faces_that_are_not_selected_keep_their_corners() -> None:
    scene = Scene(order="ray")
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 3}))
    family = scene["ball"].family
    corners = family.corners().detach()  # type: ignore[attr-defined]
    chosen = half_space([0, 1, 0], 0.0)
    mask = chosen.masks(scene)["ball"]
    simplify(scene, chosen, count=int(mask.sum()) // 3)
    rest = corners[~mask]
    now = scene["ball"].family.corners().detach()  # type: ignore[attr-defined]
    held = {tuple(face.reshape(-1).tolist()) for face in now}
    assert all(tuple(face.reshape(-1).tolist()) in held for face in rest)
    assert int((family.neighbours() < 0).sum()) == 0  # type: ignore[attr-defined]


def test_a_texture_is_not_torn() -> None:
    """A sheet with one chart: its inside can go, what it shows stays."""
    sheet = a_plane(12)
    uvs = 0.5 + 0.5 * sheet.vertices[sheet.faces][..., :2]
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.randn(1, 3, 6, 6, generator=generator), (64, 64), mode="bicubic")
    family = Meshes(
        {"vertices": sheet.vertices, "raw_texture": picture[0].movedim(0, 2)}, {}, {"faces": sheet.faces, "uvs": uvs}
    )
    scene = Scene(order="ray")
    scene.add("sheet", family)
    before = pictures(scene)
    assert simplify(scene, everything(), count=40) >= 288 - 40
    family = scene["sheet"].family
    corners = family.corners().detach()  # type: ignore[attr-defined]
    assert torch.equal(family.constants["uvs"], 0.5 + 0.5 * corners[..., :2])
    # Up to pixels on edges.
    assert decibels(pictures(scene), before) > 45


# -- what cameras say -------------------------------------------------------------------------------------------------
def test_contributions_of_several_views_are_summed() -> None:
    scene = a_scene("gaussians", "superquadrics")
    views = [a_view(0.2), a_view(1.5)]
    total = total_contributions(scene, views)
    for name in scene.layers:
        each = [total_contributions(scene, [view])[name] for view in views]
        assert torch.allclose(total[name][0], each[0][0] + each[1][0])
        assert torch.equal(total[name][1], torch.maximum(each[0][1], each[1][1]))
        assert torch.equal(each[0][1], contributions(scene, views[0])[name])
    assert total_contributions(Scene(), views) == {}


@pytest.mark.parametrize("name", ["means", "log_scales", "sh_dc"])
def test_splats_that_are_no_numbers_go_first(name: str) -> None:
    """A diverged training leaves some; they are drawn nowhere."""
    scene = Scene()
    family = Gaussians.from_points(torch.rand(40, 3), torch.rand(40, 3), {})
    values = family.parameters[name].detach().clone()
    values[3], values[7] = torch.nan, torch.inf
    family.replace({name: values})
    scene.add("cloud", family)
    before = {key: value.numpy().tobytes() for key, value in scene.state()[0].items()}
    for count in (39, 10):
        assert simplify(scene, everything(), count=count) >= 40 - count
        left = scene.layers["cloud"].family.parameters
        assert all(bool(value.isfinite().all()) for value in left.values())
        scene.undo()
    assert {key: value.numpy().tobytes() for key, value in scene.state()[0].items()} == before

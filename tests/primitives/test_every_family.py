"""What holds for every family: registration, moves, files, initialisers, aligned state, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_families import EVERY, a_camera, a_similarity, picture, points
from torch import Tensor

from smalti.primitives.family import Family, FamilyError, family_names, find_family
from smalti.primitives.surface import Surface, icosphere
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.scene.folder import load_scene, save_scene
from smalti.scene.scene import Scene
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.density.population import Population

pytestmark = pytest.mark.usefixtures("one_torch_thread")
every = pytest.mark.parametrize("name", sorted(EVERY))
each_family = pytest.mark.parametrize("name", sorted({name.partition("-")[0] for name in EVERY}))
OPAQUE = {"backdrops", "backdrops-dome"}
"""Families without an opacity to change."""
SMALL: dict[str, dict[str, object]] = {
    "boxes": {"voxels": 2, "count": 5},
    "superquadrics": {"texture_size": 4, "count": 4},
    "backdrops": {"texture_size": 4, "reach": 1.0, "initial_height": 0.3},
    "meshes": {"resolution": 8, "level": 1},
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def marked_population(family: Family) -> Population:
    """Every moment is its row's number, counted from 1; a statistic is the primitive's."""
    scene = Scene()
    made = Population(scene.add("layer", family), Adam(AdamSettings()))
    for name, parameter in made.parameters().items():
        number = torch.arange(1.0, len(parameter) + 1, dtype=parameter.dtype)
        number = number.reshape(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter).clone()
        made.adam.moments[name] = (number, number.clone())
        made.adam.counts[name] = 3
    made.statistic("row").copy_(torch.arange(1.0, len(family) + 1))
    return made


def assert_aligned(made: Population, before: dict[str, Tensor]) -> None:
    """Every row with moments is the old row that these moments belong to."""
    family = made.family
    assert len(made.statistic("row")) == len(family)
    for name, parameter in family.parameters.items():
        first, second = made.adam.moments[f"layer/{name}"]
        assert first.shape == parameter.shape
        assert torch.equal(first, second)
        number = first.reshape(len(first), -1).amax(1) if first.numel() else first.new_zeros(0)
        kept = number > 0
        assert torch.equal(parameter.detach()[kept], before[name][number[kept].long() - 1]), name
    family.check_shapes()


@each_family
def test_metadata_outside_of_its_range_is_refused_with_the_range(name: str) -> None:
    kind = find_family(name)
    defaults = kind.default_metadata()
    ranges = kind.metadata_ranges(defaults)
    assert set(ranges) <= set(defaults)
    assert all(fits for fits, _ in ranges.values())
    assert len(ranges) > 1
    for key, (_, words) in ranges.items():
        wrong = "no such word" if isinstance(defaults[key], str) else -1
        with pytest.raises(FamilyError, match=f"family {name}: metadata {key} cannot be {wrong!r}.*; it is {words}"):
            kind.from_points(*points(), {key: wrong})


@each_family
def test_it_is_registered_under_its_name(name: str) -> None:
    assert name in family_names()
    assert find_family(name).name == name
    assert find_family(name).default_order == ("centre" if name == "gaussians" else "ray")


@every
def test_a_similarity_moves_it_so_that_the_picture_stays(name: str) -> None:
    family, move = EVERY[name](), a_similarity()
    before, camera = picture(family), a_camera()
    assert float(before[..., 3].detach().max()) > 0.3
    family.transform(move)
    after = picture(family, move.apply_camera(camera), near=0.01 * move.scale)
    assert float((after - before).detach().abs().max()) < 1e-9
    box = family.bounds()
    assert bool((box[:, 0] <= box[:, 1]).all())
    family.transform(move.inverse)
    assert float((picture(family) - before).abs().max()) < 1e-9


@every
def test_a_scene_folder_gives_it_back(name: str, tmp_path: Path) -> None:
    family = EVERY[name]()
    scene = Scene(order="ray")
    scene.add("layer", family)
    save_scene(scene, tmp_path)
    back = load_scene(tmp_path).layers["layer"].family
    assert type(back) is type(family)
    assert back.metadata == family.metadata
    for held, loaded in ((family.parameters, back.parameters), (family.constants, back.constants)):
        assert set(held) == set(loaded)
        assert all(torch.equal(held[key], loaded[key]) for key in held)
    assert torch.equal(picture(back), picture(family))


@every
def test_a_copy_is_its_own(name: str) -> None:
    family = EVERY[name]()
    before = picture(family).detach()
    copied = family.copy()
    copied.transform(a_similarity())
    assert torch.equal(picture(family), before)


@every
def test_gradients_reach_every_parameter(name: str) -> None:
    family = EVERY[name]()
    seen = picture(family)
    weights = torch.rand(seen.shape, generator=generator(), dtype=seen.dtype)
    (seen * weights).sum().backward()
    for key, value in family.parameters.items():
        assert value.grad is not None, key
        assert bool(torch.isfinite(value.grad).all()), key
        assert float(value.grad.abs().max()) > 0, key
    signal = family.growth_signal()
    if not name.startswith(("gaussians", "ray_gaussians", "surfels")):
        assert signal is not None
        assert signal.shape == (len(family),)
        assert float(signal.max()) > 0


@every
def test_measures_have_a_row_per_primitive_and_hold_together(name: str) -> None:
    family = EVERY[name]()
    count = len(family)
    assert family.positions().shape == (count, 3)
    assert family.opacities().shape == family.volumes().shape == family.areas().shape == (count,)
    assert family.sizes().shape[0] == count
    assert bool(((family.opacities() >= 0) & (family.opacities() <= 1)).all())
    box = family.bounds()
    assert box.shape == (count, 2, 3)
    spots, colors = family.sample_points(200, generator())
    assert bool(((spots >= box[:, 0].amin(0) - 1e-9) & (spots <= box[:, 1].amax(0) + 1e-9)).all())
    assert bool(((colors >= 0) & (colors <= 1)).all())
    drawn = sum(len(drawable) for drawable in family.drawables(a_camera()))
    owners = family.owners()
    assert drawn == (count if owners is None else len(owners))
    assert owners is None or (bool((owners.diff() >= 0).all()) and int(owners.max()) < count)
    assert family.bytes_per_primitive * count >= sum(v.numel() * v.element_size() for v in family.parameters.values())


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"meshes", "meshes-texels", *OPAQUE}))
def test_capped_opacities_are_capped_and_others_stay(name: str) -> None:
    family = EVERY[name]()
    before = family.opacities().detach()
    limit = 0.5 * float(before.min() + before.max())
    family.cap_opacities(limit)
    after = family.opacities().detach()
    assert float(after.max()) <= limit + 1e-9
    assert torch.allclose(after, before.clamp_max(limit), atol=1e-6)


@every
def test_noise_moves_the_faint_and_leaves_the_solid(name: str) -> None:
    family = EVERY[name]()
    before = family.positions().detach().clone()
    solid = family.opacities().detach() > 0.3
    family.perturb(1e-3, generator())
    if bool(solid.any()) and "logit_opacities" in family.parameters:
        assert float((family.positions().detach() - before)[solid].abs().max()) < 1e-9
    if name in OPAQUE or (name.startswith("meshes") and "logit_opacities" not in family.parameters):
        assert torch.equal(family.positions().detach(), before)
        return
    family.cap_opacities(1e-3)
    family.perturb(1e-1, generator())
    assert float((family.positions().detach() - before).abs().max()) > 1e-7


@every
@pytest.mark.parametrize("change", ["prune", "clone", "split", "relocate", "multiply"])
def test_optimiser_state_and_statistics_follow_every_change(name: str, change: str) -> None:
    made = marked_population(EVERY[name]())
    family, count = made.family, len(made)
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    rows = torch.tensor([1])
    if change == "prune":
        assert made.prune(torch.arange(count) == 1) == 1
        assert len(made) == count - 1
    elif change == "relocate":
        made.relocate(rows, torch.tensor([0]))
    elif change == "split":
        made.split(rows, generator())
        assert len(made) > count
    else:
        getattr(made, change)(rows)
        assert len(made) > count
    assert_aligned(made, before)
    assert bool(torch.isfinite(picture(family)).all())


@pytest.mark.parametrize(
    "name",
    [
        *("ray_gaussians-integral", "neural_splats-local", "boxes", "boxes-warped", "boxes-additive"),
        *("meshes", "meshes-textured", "meshes-texels", "backdrops-dome"),
    ],
)
def test_copies_that_share_draw_what_the_one_drew(name: str) -> None:
    family = EVERY[name]()
    if name == "meshes-textured":
        family.metadata["edges"] = "hard"
    before = picture(family).detach()
    family.multiply(torch.tensor([0, 0, 2]))
    # Integral Gaussians are skipped below 1/255 each; everything else is exact to rounding.
    limit = 2e-2 if name == "ray_gaussians-integral" else 2e-7
    assert float((picture(family) - before).abs().max()) < limit


@each_family
def test_every_initialiser_gives_something_to_draw(name: str) -> None:
    kind, options = find_family(name), SMALL.get(name, {"sh_degree": 0} if name not in ("meshes",) else {})
    ball = icosphere(1)
    surface = Surface(0.7 * ball.vertices.float(), ball.faces, torch.rand(42, 3, generator=generator()))
    bounds = torch.tensor([[-0.6, -0.6, -0.6], [0.6, 0.6, 0.6]])
    made = {
        "from_points": kind.from_points(*points(40), options),
        "from_mesh": kind.from_mesh(surface.vertices, surface.faces, points(42)[1], options),
        "from_surface": kind.from_surface(surface, 20, generator(), options),
        "at_random": kind.at_random(bounds, 6, generator(), options),
        "from_family": kind.from_family(EVERY["superquadrics"]().copy(), 50, generator(), options),
    }
    for how, family in made.items():
        if name == "neural_splats":
            family.parameters["offsets"].data += 0.5
        camera = a_camera()
        assert all(value.dtype == torch.float32 for value in family.parameters.values()), how
        seen = render(family.drawables(camera), camera.to(torch.float32), backend="oracle").alpha
        assert float(seen.max()) > 0.02, how
        low, high = family.bounds()[:, 0].amin(0), family.bounds()[:, 1].amax(0)
        assert float((high - low).max()) < 12, how


@each_family
def test_points_that_are_none_are_refused(name: str) -> None:
    kind = find_family(name)
    with pytest.raises(FamilyError, match=r"expected positions and colors \[n, 3\]"):
        kind.from_points(torch.rand(5, 2), torch.rand(5, 3), {})
    with pytest.raises(FamilyError, match=r"expected positions and colors \[n, 3\]"):
        kind.from_points(torch.rand(5, 3), torch.rand(4, 3), {})
    bad = torch.rand(5, 3)
    bad[1, 2], bad[3, 0] = torch.nan, torch.inf
    with pytest.raises(FamilyError, match="2 of the points are not finite"):
        kind.from_points(bad, torch.rand(5, 3), {})


@each_family
def test_wrong_names_shapes_and_metadata_are_refused(name: str) -> None:
    family = EVERY[name]()
    parameters = {key: value.detach() for key, value in family.parameters.items()}
    with pytest.raises(FamilyError, match="expected the parameters"):
        type(family)({**parameters, "nonsense": torch.zeros(1)}, family.metadata, family.constants)
    with pytest.raises(FamilyError, match="expected the constants"):
        type(family)(parameters, family.metadata, {"nonsense": torch.zeros(1)})
    with pytest.raises(FamilyError, match="unknown metadata"):
        type(family)(parameters, {"nonsense": 1}, family.constants)
    needed = next(iter(set(parameters) - set(family.optional_parameters())))
    del parameters[needed]
    with pytest.raises(FamilyError, match="expected the parameters"):
        type(family)(parameters, family.metadata, family.constants)


@every
def test_the_engine_draws_it_as_the_oracle_does(name: str) -> None:
    family, camera = EVERY[name](), a_camera(48, 36).to(torch.float32)
    family.replace({key: value.detach().float() for key, value in family.parameters.items()})
    weights = torch.rand(36, 48, 3, generator=generator())
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    for backend in ("cpu", "oracle"):
        family.replace({key: value.detach() for key, value in family.parameters.items()})
        settings = RenderSettings(order="ray")
        color = render(family.drawables(camera), camera, settings=settings, backend=backend).color
        (color * weights).sum().backward()
        gradients = {key: value.grad for key, value in family.parameters.items() if value.grad is not None}
        seen.append((color.detach(), gradients))
    (color, gradients), (wanted, wanted_gradients) = seen
    assert float((color - wanted).abs().max()) < 2e-5
    for key, gradient in wanted_gradients.items():
        assert float((gradients[key] - gradient).norm()) <= 1e-3 * float(gradient.norm()), key

"""Family `superquadrics`: the published checks (dbw.md, section 10) and what the shared mesh and atlas must keep."""

from __future__ import annotations

import math

import pytest
import torch
from small_families import a_camera, blocks, doubled, picture, points
from torch import Tensor

from smalti.primitives.block_textures import atlas, drawn_atlas, pooled, total_variation
from smalti.primitives.family import FamilyError, LossContext
from smalti.primitives.superquadric_shape import (
    implicit,
    rotation_from_six,
    sample_superquadric,
    surface_points,
    template,
    volume,
)
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import Surface
from smalti.primitives.texture import texture_lookup
from smalti.primitives.topology import face_edges

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CUBE = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def context() -> LossContext:
    return LossContext(1.0, torch.Generator().manual_seed(0))


def one_block(opacity: float = 0.5, **options: object) -> Superquadrics:
    """A ball of radius 0.5 at the origin."""
    family = Superquadrics.at_random(CUBE, 1, torch.Generator(), {"texture_size": 8, "edges": "hard", **options})
    family.replace(
        {
            "translations": torch.zeros(1, 3),
            "raw_scales": torch.full((1, 3), math.log(2.0 - 0.2)),
            "logit_opacities": torch.logit(torch.tensor([opacity])),
        }
    )
    return doubled(family)  # type: ignore[return-value]


@pytest.mark.parametrize("e1", [0.1, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("e2", [0.1, 0.5, 1.0, 1.9])
def test_the_implicit_function_is_one_on_the_surface(e1: float, e2: float) -> None:
    """Test 1."""
    spots = surface_points(template(2).directions, row(e1, e2))[0]
    exponents = row(e1, e2).expand(len(spots), 2)
    assert float((implicit(spots, exponents) - 1).abs().max()) < 1e-12
    assert torch.allclose(implicit(0.5 * spots, exponents), torch.tensor(0.5 ** (2 / e1), dtype=torch.float64))


@pytest.mark.parametrize(
    ("exponents", "wanted"),
    [((1, 1), 4.1888), ((0.1, 0.1), 7.9105), ((1.9, 1.9), 1.5097), ((0.5, 0.5), 6.4820), ((2, 2), 4 / 3)],
)
def test_volumes_in_closed_form(exponents: tuple[float, float], wanted: float) -> None:
    """Test 2."""
    assert float(volume(row(*exponents), row(1, 1, 1))) == pytest.approx(wanted, abs=5e-5)
    assert float(volume(row(*exponents), row(2, 0.5, 3))) == pytest.approx(3 * wanted, abs=2e-4)


@pytest.mark.parametrize(("exponent", "volumes"), [(1.0, (3.6587, 4.0470, 4.1527)), (0.1, (7.6386, 7.8449, 7.8943))])
def test_volumes_of_the_meshes(exponent: float, volumes: tuple[float, ...]) -> None:
    """Test 2, and that faces are seen counter-clockwise from outside."""
    for level, wanted in enumerate(volumes, start=1):
        shape = template(level)
        spots = surface_points(shape.directions, row(exponent, exponent))[0]
        assert Surface(spots, shape.faces).volume() == pytest.approx(wanted, abs=5e-5)
        assert len(shape.faces) == 20 * 4**level


def test_gradients_are_finite_at_poles_seams_and_the_ends_of_the_exponents() -> None:
    for exponent in (0.1, 1.0, 1.9):
        exponents = torch.full((1, 2), exponent, requires_grad=True)
        surface_points(template(2).directions, exponents).square().sum().backward()
        assert bool(torch.isfinite(exponents.grad).all())  # type: ignore[arg-type]
        spots = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]], requires_grad=True)
        exponents = torch.full((4, 2), exponent, requires_grad=True)
        implicit(spots, exponents).clamp_max(10).sum().backward()
        assert bool(torch.isfinite(spots.grad).all() and torch.isfinite(exponents.grad).all())  # type: ignore[arg-type]


def test_gradients_of_every_shape_parameter_by_central_differences() -> None:
    """Test 6, in double: one block, soft edges, colour moving the surface too."""
    family = one_block(0.6, edges="soft", sigma=2e-3, detach_barycentrics=False, level=0)
    generator = torch.Generator().manual_seed(5)
    for name, size in {"raw_exponents": 0.3, "rotations": 0.3, "raw_scales": 0.2, "raw_textures": 1.0}.items():
        value = family.parameters[name].data
        value += size * torch.randn(value.shape, generator=generator)
    camera = a_camera(16, 12)
    weights = torch.rand(12, 16, 4, generator=generator, dtype=torch.float64)
    (picture(family, camera) * weights).sum().backward()
    for name, value in family.parameters.items():
        toward = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        analytic = float((value.grad * toward).sum())  # type: ignore[operator]
        sums, start = [], value.detach().clone()
        for sign in (1, -1):
            value.data = start + sign * 1e-6 * toward
            sums.append(float((picture(family, camera).detach() * weights).sum()))
        value.data = start
        assert (sums[0] - sums[1]) / 2e-6 == pytest.approx(analytic, rel=1e-5, abs=1e-6), name


def test_the_noise_has_the_published_spread_and_is_gone_after_the_step() -> None:
    """Test 7."""
    family = Superquadrics.at_random(CUBE, 20_000, torch.Generator(), {"texture_size": 2})
    for logit, mean, deviation in ((0.0, 0.5, 0.2082), (5.0, 0.9892, 0.0133)):
        family.replace({"logit_opacities": torch.full((20_000,), logit)})
        family.begin_step(0.1, torch.Generator().manual_seed(0))
        noisy = family._drawn_opacities(torch.arange(20_000)).detach()
        assert float(noisy.mean()) == pytest.approx(mean, abs=3e-3)
        assert float(noisy.std()) == pytest.approx(deviation, rel=0.05)
        family.end_step()
        assert torch.equal(family._drawn_opacities(torch.arange(20_000)), family.opacities())


def test_parsimony_pulls_as_published() -> None:
    """Test 8: lambda / (2 K) sqrt(a) (1 - a) = 1.77e-4 at a = 0.5, K = 10, lambda = 0.01."""
    family = Superquadrics.at_random(CUBE, 10, torch.Generator(), {"texture_size": 2})
    assert family.default_regularizers() == {"parsimony": 0.01, "total_variation": 0.1, "overlap": 1.0}
    (0.01 * family.regularizers(context())["parsimony"]()).backward()
    gradient = family.parameters["logit_opacities"].grad
    assert torch.allclose(gradient, torch.full((10,), 1.77e-4), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "wanted"), [(1, 0.0), (2, 0.0243), (3, 0.533)])
def test_overlap_of_coincident_balls(count: int, wanted: float) -> None:
    """Test 9."""
    family = one_block(1 - 1e-9)
    family.clone(torch.zeros(count - 1, dtype=torch.int64))
    found = family.overlap_of(torch.Generator().manual_seed(0), 20_000).detach()
    assert float(found) == pytest.approx(wanted, abs=0.01 if count == 3 else 2e-3)


def test_variation_counts_a_step_twice_around() -> None:
    """Test 10."""
    assert float(total_variation(torch.full((1, 4, 8, 3), 0.3))[0]) == 0
    step = torch.full((1, 4, 8, 3), -40.0)
    step[:, :, 3:] = 40.0
    assert float(total_variation(step)[0]) == pytest.approx(2 * 4 * 3 / 32)
    assert float(total_variation(step.transpose(1, 2))[0]) == pytest.approx(4 * 3 / 28)
    assert float(total_variation(step, around=False)[0]) == pytest.approx(4 * 3 / 28)


def test_textures_have_no_second_derivative_and_say_so() -> None:
    raw = torch.rand(1, 4, 8, 3, dtype=torch.float64, requires_grad=True)
    uvs = torch.zeros(1, 3, 2, dtype=torch.float64)
    for value in (total_variation(raw).square().sum(), drawn_atlas(raw, 2, uvs, 0.0)[0].square().sum()):
        (slope,) = torch.autograd.grad(value, raw, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()


@pytest.mark.parametrize("around", [True, False])
def test_derivatives_of_textures_are_those_of_what_they_say(around: bool) -> None:
    raw = torch.randn(2, 6, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    uvs, overflow = template(1).uvs, template(1).overflow if around else 0.0
    weights = torch.tensor([0.3, -2.0], dtype=torch.float64)

    def variation(raw: Tensor) -> Tensor:
        values = raw.sigmoid()
        after = values.roll(-1, dims=2) if around else values[:, :, 1:]
        across = (after - values[:, :, : after.shape[2]]).square().sum(3).mean((1, 2))
        return across + (values[:, 1:] - values[:, :-1]).square().sum(3).mean((1, 2))

    assert torch.allclose(total_variation(raw, around), variation(raw), rtol=1e-12)
    wanted = torch.autograd.grad((weights * variation(raw)).sum(), raw)[0]
    found = torch.autograd.grad((weights * total_variation(raw, around)).sum(), raw)[0]
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-14)
    for pool in (1, 2, 3):
        assert torch.autograd.gradcheck(lambda raw: drawn_atlas(raw, pool, uvs, overflow, around)[0], (raw,))  # noqa: B023
        shown, where = drawn_atlas(raw, pool, uvs, overflow, around)
        still, there = atlas(pooled(raw.detach().sigmoid(), pool), uvs, overflow, around)
        assert torch.equal(shown, still)
        assert torch.equal(where, there)


def test_six_numbers_make_a_rotation() -> None:
    """Test 11."""
    six = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = rotation_from_six(six)
    assert torch.allclose(turn @ turn.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(50, dtype=torch.float64))
    scaled = torch.cat([3.7 * six[:, :3], six[:, 3:]], dim=1)
    assert torch.allclose(rotation_from_six(scaled), turn, atol=1e-12)


def test_ten_blocks_with_ground_and_dome_have_the_published_number_of_parameters() -> None:
    """Test 12: 2,359,455; two of the twelve textures and nine numbers are the ground's and the dome's."""
    family = Superquadrics.at_random(CUBE, 10, torch.Generator(), {})
    numbers = sum(value.numel() for value in family.parameters.values())
    assert numbers + 2 * 256**2 * 3 + 9 == 2_359_455


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_no_face_spans_more_than_half_a_turn(level: int) -> None:
    """Test 13."""
    u = template(level).uvs[..., 0]
    assert float((u.amax(1) - u.amin(1)).max()) <= 0.5 + 1e-12
    poles = template(level).directions[:, 1].abs() > 1 - 1e-9
    assert int(poles.sum()) == (0 if level == 0 else 2)


@pytest.mark.parametrize("level", [1, 2])
def test_a_texture_that_is_a_function_of_direction_has_no_seam(level: int) -> None:
    """Test 13: both faces at an edge show the same there, at the seam as elsewhere; also with two blocks."""
    shape, size = template(level), 64
    u, v = ((torch.arange(size) + 0.5) / size for _ in range(2))
    wave = torch.sin(math.pi * v)[:, None] * torch.stack([torch.cos(2 * math.pi * u + k) for k in range(3)], -1)[None]
    textures = torch.stack([wave, 5.0 + wave.roll(7, dims=1)]).double()
    picture_of, uvs = atlas(textures, shape.uvs, shape.overflow)
    _, place = face_edges(shape.faces)
    share = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)[:, None]
    at_poles = (shape.uvs[..., 1] < 0.01) | (shape.uvs[..., 1] > 0.99)
    seen: dict[int, list[Tensor]] = {}
    for block in range(2):
        for face in range(len(shape.faces)):
            for corner in range(3):
                after = (corner + 1) % 3
                if at_poles[face, corner] or at_poles[face, after]:
                    continue  # there u is a mean by the second repair, and no function of direction
                ends = uvs.reshape(2, -1, 3, 2)[block, face][[corner, after]]
                if int(shape.faces[face, corner]) > int(shape.faces[face, after]):
                    ends = ends.flip(0)
                shown = texture_lookup(picture_of, torch.lerp(ends[0], ends[1], share))
                seen.setdefault(block * 10_000 + int(place[face, corner]), []).append(shown)
    pairs = [pair for pair in seen.values() if len(pair) == 2]
    assert len(pairs) > 2 * 20
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-9
    # The blocks' values lie 5 apart: nothing of one is seen on the other.
    assert all(float(a.max()) < 1.1 or float(a.min()) > 3.9 for pair in pairs for a in pair)


def test_no_lookup_reads_another_blocks_texels() -> None:
    shape = template(1)
    textures = torch.arange(3.0)[:, None, None, None].expand(3, 4, 6, 3)
    picture_of, uvs = atlas(textures, shape.uvs.float(), shape.overflow)
    weights = torch.rand(len(uvs), 3, 1, generator=torch.Generator().manual_seed(0))
    spots = (uvs * weights / weights.sum(1, keepdim=True)).sum(1)
    for where in (spots, uvs[:, 0], uvs[:, 1], uvs[:, 2]):
        shown = texture_lookup(picture_of, where)[:, 0].reshape(3, -1)
        assert torch.allclose(shown, torch.arange(3.0)[:, None].expand_as(shown))


def test_pooling_averages_squares() -> None:
    textures = torch.rand(2, 6, 8, 3)
    coarse = pooled(textures, 4)
    assert coarse.shape == textures.shape
    assert torch.allclose(coarse[:, :4, :4], textures[:, :4, :4].mean((1, 2), keepdim=True).expand(2, 4, 4, 3))
    assert torch.allclose(coarse[:, 4:, 4:], textures[:, 4:, 4:].mean((1, 2), keepdim=True).expand(2, 2, 4, 3))
    assert pooled(textures, 1) is textures


def test_a_translucent_block_is_crossed_twice() -> None:
    """dbw.md, section 3: seen through, its opacity is 1 - (1 - a)^2."""
    alpha = picture(one_block(0.3))[..., 3].detach()
    assert float(alpha.max()) == pytest.approx(1 - 0.7**2, abs=1e-6)
    assert float((alpha > 0).double().mean()) > 0.1


@pytest.mark.parametrize("detach", [True, False])
def test_colour_moves_the_surface_unless_detached(detach: bool) -> None:
    """A block that fills the picture has no silhouette there: only colours can move it."""
    family = one_block(0.9, detach_barycentrics=detach)
    family.replace({"raw_scales": torch.full((1, 3), math.log(8.0 - 0.2)).double()})
    family.parameters["raw_textures"].data += torch.randn(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    seen = picture(family)
    assert float(seen[..., 3].detach().min()) > 0.9
    seen[..., :3].square().sum().backward()
    pull = float(family.parameters["translations"].grad.abs().max())  # type: ignore[union-attr]
    assert pull == 0 if detach else pull > 1e-3


def test_shared_blocks_with_hard_edges_draw_what_the_one_drew() -> None:
    family = one_block(0.6)
    before = picture(family).detach()
    family.multiply(torch.tensor([0, 0]))
    assert len(family) == 3
    assert float((picture(family).detach() - before).abs().max()) < 1e-9


def test_dead_blocks_are_not_drawn_and_get_no_gradient() -> None:
    family = blocks(3)
    family.parameters["logit_opacities"].data[1] = -6.0
    owners = family.owners()
    assert torch.unique(owners).tolist() == [0, 2]
    assert len(family.drawables(a_camera())[0]) == len(owners) == 2 * 80
    picture(family).sum().backward()
    assert float(family.parameters["translations"].grad[1].abs().max()) == 0  # type: ignore[index]
    family.parameters["logit_opacities"].data[:] = -6.0
    assert float(picture(family)[..., 3].detach().max()) == 0


def test_the_schedule_ends_with_opaque_blocks_and_no_others() -> None:
    family = blocks(3)
    family.replace({"logit_opacities": torch.tensor([1.0, -1.0, 2.0]).double()})
    generator = torch.Generator().manual_seed(0)
    soft = picture(family).detach()
    family.begin_step(0.2, generator)
    assert not torch.allclose(picture(family).detach(), soft)
    family.end_step()
    assert torch.equal(picture(family).detach(), soft)
    family.begin_step(0.9, generator)
    family.end_step()
    assert family.metadata["binary"] is True
    drawn = family.drawables(a_camera())[0]
    assert torch.unique(family.owners()).tolist() == [0, 2]
    assert bool((drawn.opacities == 1).all())
    assert drawn.sigma == family.metadata["fine_sigma"]
    terms = family.regularizers(context())
    assert float(terms["parsimony"]()) == float(terms["overlap"]()) == 0


def test_random_blocks_are_the_published_ones_within_their_bounds() -> None:
    low, high = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 6.0, 7.0])
    family = Superquadrics.at_random(
        torch.stack([low, high]), 4000, torch.Generator().manual_seed(0), {"texture_size": 2}
    )
    centre = (family.positions().detach() - 0.5 * (low + high)) / 2.0
    assert torch.allclose(centre.mean(0), torch.zeros(3), atol=0.03)
    assert torch.allclose(centre.std(0), torch.full((3,), 0.5), atol=0.02)
    relative = family.sizes().detach() / (0.25 * 2.0)  # the floor is part of them
    assert 0.5 <= float(relative.min()) < 0.51
    assert 1.49 < float(relative.max()) <= 1.5
    larger = Superquadrics.at_random(CUBE, 4000, torch.Generator(), {"texture_size": 2, "initial_size": 1.2})
    assert float(larger.sizes().detach().mean()) == pytest.approx(0.25 * 1.2, rel=0.01)
    assert torch.allclose(family.exponents(), torch.ones(4000, 2))
    assert torch.allclose(family.axes().detach().mean(0), torch.zeros(3, 3), atol=0.03)


def test_even_places_leave_no_region_without_a_block() -> None:
    """Points of the published distribution lie nearer to a block than where blocks are put at random."""
    spots = 0.5 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(9))
    reach: dict[str, list[float]] = {"random": [], "even": []}
    for seed in range(5):
        for places, found in reach.items():
            generator = torch.Generator().manual_seed(seed)
            family = Superquadrics.at_random(CUBE, 10, generator, {"texture_size": 2, "initial_places": places})
            assert len(family) == 10
            found.append(float(torch.cdist(spots, family.positions().detach()).amin(1).square().mean()))
    assert max(reach["even"]) < min(reach["random"])
    assert sum(reach["even"]) < 0.75 * sum(reach["random"])


def test_blocks_from_points_sit_on_them() -> None:
    spots, colors = points(300)
    family = Superquadrics.from_points(spots, colors, {"count": 6, "texture_size": 4})
    assert len(family) == 6
    values = family.implicit_values(spots).detach()
    assert float((values.amin(0) < 1.0).float().mean()) > 0.5
    assert family.metadata["ratio"] == pytest.approx(0.125, rel=0.1)


def test_samples_of_the_smooth_surface_are_even_and_on_it() -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.tensor([0.3, 1.4], dtype=torch.float64)
    half = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    spots = sample_superquadric(exponents, half, 2000, generator)
    assert torch.allclose(implicit(spots / half, exponents.expand(2000, 2)), torch.ones(2000, dtype=torch.float64))
    # Archimedes: on the ball every coordinate is uniform.
    ball = sample_superquadric(torch.ones(2), torch.ones(3), 20_000, generator)
    for axis in range(3):
        counts = torch.histc(ball[:, axis], 10, -1, 1)
        assert float((counts - 2000).abs().max()) < 5 * math.sqrt(2000)


def test_measures_agree_with_the_mesh() -> None:
    family = blocks(2, level=4)
    surface = family.surface()
    assert surface.volume() == pytest.approx(float(family.volumes().sum()), rel=0.02)
    assert float(surface.areas().sum()) == pytest.approx(float(family.areas().sum()), rel=1e-9)
    inside = family.implicit_values(family.positions())
    assert float(inside.diagonal().max().detach()) < 1e-6


def test_metadata_that_cannot_be_is_refused() -> None:
    for name, value in (("level", 9), ("edges", "round"), ("pool", 0), ("initial_opacity", 1.0), ("initial_size", 0.7)):
        with pytest.raises(FamilyError, match=f"metadata {name} cannot be"):
            Superquadrics.at_random(CUBE, 2, torch.Generator(), {name: value})

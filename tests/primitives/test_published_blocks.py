"""Blocks as published, beside the numbered checks of `test_superquadrics`: how they start, what kills them, where
gradients come from (dbw.md, sections 2 to 5 and 11).
"""

from __future__ import annotations

import pytest
import torch
from small_families import a_camera, blocks, picture
from torch import Tensor

from smalti.primitives.family import LossContext
from smalti.primitives.superquadric_shape import implicit, overlap, radial, rotation_from_six, surface_points, template
from smalti.primitives.superquadrics import Superquadrics

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CUBE = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def test_blocks_start_as_published() -> None:
    """Half opaque, grey with a little noise, the coarse mesh of 42 vertices and 80 faces, blurred by 1e-4."""
    family = Superquadrics.at_random(CUBE, 10, torch.Generator().manual_seed(0), {})
    assert torch.allclose(family.opacities(), torch.full((10,), 0.5))
    raw = family.parameters["raw_textures"].detach()
    assert raw.shape == (10, 256, 256, 3)
    assert float(raw.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(raw.std()) == pytest.approx(0.1, rel=0.01)
    assert (len(family.shape.directions), len(family.shape.faces)) == (42, 80)
    (drawn,) = family.drawables(a_camera().to(torch.float32))
    assert (drawn.edges, drawn.sigma, drawn.detach_barycentrics) == ("soft", 1e-4, True)
    assert family.metadata["fine_sigma"] == 5e-6


@pytest.mark.parametrize("exponent", [0.1, 0.3, 1.9])
def test_poles_stay_on_their_axis_in_single_precision(exponent: float) -> None:
    """cos(asin(1)) is about -4e-8 there, and (4e-8)^0.1 = 0.18."""
    shape = template(1)
    spots = surface_points(shape.directions.float(), torch.full((1, 2), exponent))[0]
    poles = shape.directions[:, 1].abs() == 1
    assert int(poles.sum()) == 2
    assert spots[poles].abs().tolist() == [[0, 1, 0], [0, 1, 0]]


def test_textures_are_laid_as_published() -> None:
    """u = (atan2(x, z) + pi) / 2 pi, v = acos(-y) / pi: the front is the middle, +x a quarter further, up is v = 1."""
    shape = template(1)
    for direction, wanted in (((0, 0, 1), (0.5, 0.5)), ((1, 0, 0), (0.75, 0.5)), ((-1, 0, 0), (0.25, 0.5))):
        vertex = int((shape.directions - torch.tensor(direction).double()).norm(dim=1).argmin())
        assert torch.allclose(shape.directions[vertex], torch.tensor(direction).double(), atol=1e-12)
        at = (shape.faces == vertex).nonzero()
        assert torch.allclose(shape.uvs[at[:, 0], at[:, 1]], torch.tensor(wanted).double().expand(len(at), 2))
    up = (shape.directions[shape.faces][..., 1] > 1 - 1e-9).nonzero()
    assert len(up) == 6
    assert (shape.uvs[up[:, 0], up[:, 1], 1] == 1).all()


def test_with_detached_colours_the_outline_keeps_its_whole_gradient() -> None:
    """As released: gradients of alpha are those by central differences, and colours only add what alpha gives."""
    family = blocks(1, detach_barycentrics=True, level=0, sigma=2e-3)
    camera, generator = a_camera(16, 12), torch.Generator().manual_seed(2)
    weights = torch.rand(12, 16, generator=generator, dtype=torch.float64)
    (picture(family, camera)[..., 3] * weights).sum().backward()
    for name in ("translations", "rotations", "raw_scales", "raw_exponents", "logit_opacities"):
        value = family.parameters[name]
        toward = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        analytic = float((value.grad * toward).sum())  # type: ignore[operator]
        sums, start = [], value.detach().clone()
        for sign in (1, -1):
            value.data = start + sign * 1e-6 * toward
            sums.append(float((picture(family, camera)[..., 3].detach() * weights).sum()))
        value.data = start
        assert abs(analytic) > 1e-3, name
        assert (sums[0] - sums[1]) / 2e-6 == pytest.approx(analytic, rel=1e-5, abs=1e-6), name


# -- loss terms -------------------------------------------------------------------------------------------------------
def said_overlap(points: Tensor, family: Superquadrics) -> Tensor:
    """Section 4 to the letter, at fixed points: mean of max(sum_k a_k sigmoid((1 - F^(e1/2)) / 0.005) - 1.95, 0)."""
    held = family.parameters
    turn = rotation_from_six(held["rotations"])
    total = torch.zeros(len(points), dtype=points.dtype)
    for k in range(len(family)):
        e1, e2 = family.exponents()[k]
        x, y, z = ((points - held["translations"][k]) @ turn[k] / family.sizes()[k]).square().clamp_min(1e-12).unbind(1)
        inside = (x ** (1 / e2) + z ** (1 / e2)) ** (e2 / e1) + y ** (1 / e1)
        total = total + family.opacities()[k] * torch.sigmoid(-(inside ** (e1 / 2) - 1) / 0.005)
    return (total - 1.95).clamp_min(0).mean()


def test_overlap_is_what_is_said_and_moves_blocks_at_points_that_stay() -> None:
    """Value and gradients: the points lie in boxes that move with their blocks, but do not take gradients along."""
    family = blocks(4)
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(4, 3, generator=generator).double()
    family.replace({"translations": 0.05 * some, "logit_opacities": torch.linspace(1, 4, 4).double()})
    local = 2 * torch.rand(4, 500, 3, generator=generator).double() - 1
    frames = family.positions(), family.axes(), family.sizes()
    found = overlap(local, frames, family.exponents(), family.opacities())
    points = ((local * frames[2][:, None]) @ frames[1].mT + frames[0][:, None]).reshape(-1, 3).detach()
    wanted = said_overlap(points, family)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-9)
    assert float(found.detach()) > 0.05
    names = ("translations", "rotations", "raw_scales", "raw_exponents", "logit_opacities")
    leaves = [family.parameters[name] for name in names]
    for name, one, two in zip(
        names, torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True
    ):
        assert float(two.abs().max()) > 1e-4, name
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("exponent", [0.1, 0.15, 1.0, 1.9])
def test_overlap_is_finite_at_the_centre_and_far_outside(exponent: float) -> None:
    """In single precision F underflows around the centre of a box (0.005^20), and the derivative of its root is
    infinite there: 0.4 % of the steps of ten boxes would have met such a point.
    """
    generator = torch.Generator().manual_seed(0)
    local = 2 * torch.rand(3, 2000, 3, generator=generator) - 1
    local[0] *= 0.01
    local[1, 0], local[2, 0] = 0.0, 1e6
    centres = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0.01, 0, 0]]).requires_grad_()
    axes, sizes = torch.eye(3).repeat(3, 1, 1).requires_grad_(), torch.ones(3, 3, requires_grad=True)
    exponents = torch.full((3, 2), exponent, requires_grad=True)
    found = overlap(local, (centres, axes, sizes), exponents, torch.full((3,), 0.9))
    assert 0.1 < float(found.detach()) < 0.75
    found.backward()
    for each in (centres, axes, sizes, exponents):
        assert each.grad is not None
        assert bool(torch.isfinite(each.grad).all())


@pytest.mark.parametrize("exponent", [0.1, 0.7, 1.9])
def test_the_radius_is_the_root_of_the_implicit_function(exponent: float) -> None:
    points = 4 * torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
    exponents = torch.tensor([exponent, 2.0 - exponent], dtype=torch.float64).expand(500, 2)
    assert torch.allclose(radial(points, exponents), implicit(points, exponents) ** (exponent / 2), rtol=1e-12)
    assert torch.allclose(radial(2 * points, exponents), 2 * radial(points, exponents), rtol=1e-12)


def test_the_dead_are_in_no_term_and_stay_dead() -> None:
    """Section 5: blocks of opacity 0.01 or less get no gradient from pictures or terms; 1/K counts them still."""
    family = blocks(3, overlap_samples=200)
    family.parameters["logit_opacities"].data[1] = -6.0
    terms = family.regularizers(LossContext(1.0, torch.Generator().manual_seed(0)))
    loss = picture(family).sum() + terms["parsimony"]() + terms["total_variation"]() + terms["overlap"]()
    loss.backward()
    for name, value in family.parameters.items():
        assert value.grad is not None
        assert not value.grad[1].any(), name
        assert bool(value.grad[0].any()), name
    alive = family.opacities()[[0, 2]].detach().sqrt().sum() / 3
    assert float(terms["parsimony"]().detach()) == pytest.approx(float(alive), rel=1e-12)
    family.metadata["binary"] = True  # of those that are not drawn at the end textures are not smoothed either
    family.parameters["logit_opacities"].data[:] = torch.tensor([-1.0, -6.0, 1.0])
    (gradient,) = torch.autograd.grad(terms["total_variation"](), family.parameters["raw_textures"])
    assert gradient.reshape(3, -1).any(dim=1).tolist() == [False, False, True]


def test_where_all_are_dead_terms_are_nought_and_pictures_empty() -> None:
    family = blocks(2)
    family.parameters["logit_opacities"].data[:] = -9.0
    terms = family.regularizers(LossContext(1.0, torch.Generator().manual_seed(0)))
    for name in ("parsimony", "total_variation", "overlap"):
        assert float(terms[name]().detach()) == 0, name
    sum(terms[name]() for name in ("parsimony", "total_variation", "overlap")).backward()  # type: ignore[union-attr]
    assert not family.parameters["logit_opacities"].grad.any()  # type: ignore[union-attr]
    assert family.separate_parts().tolist() == []


@pytest.mark.parametrize("places", ["random", "even"])
def test_no_blocks_is_a_number_of_blocks(places: str) -> None:
    made = Superquadrics.at_random(CUBE, 0, torch.Generator(), {"texture_size": 4, "initial_places": places})
    assert len(made) == 0

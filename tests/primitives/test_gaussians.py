"""Family `gaussians`: measures, moves and the closed forms of its density operations."""

from __future__ import annotations

import math

import pytest
import torch

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import FamilyError, RowMap, family_names, find_family
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.neighbours import neighbour_distances
from smalti.primitives.spherical_harmonics import basis, rotate_rest
from smalti.primitives.splats import shared_opacity


def some(count: int = 6, degree: int = 3, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return Gaussians(
        {
            "means": draw(count, 3),
            "log_scales": draw(count, 3) * 0.3 - 2,
            "quaternions": draw(count, 4),
            "logit_opacities": draw(count),
            "sh_dc": draw(count, 3),
            "sh_rest": draw(count, (degree + 1) ** 2 - 1, 3) * 0.1,
        },
        {"sh_degree": degree, "active_sh_degree": degree},
    )


def a_similarity() -> Similarity:
    turn = matrix_from_quaternion(torch.tensor([[0.9, 0.2, -0.3, 0.5]], dtype=torch.float64))[0]
    return Similarity(2.5, turn, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def test_the_family_is_found_by_name_and_a_misspelt_one_names_the_near_miss() -> None:
    assert "gaussians" in family_names()
    assert find_family("gaussians") is Gaussians
    with pytest.raises(ValueError, match="did you mean 'gaussians'"):
        find_family("gausians")


def test_missing_parameters_and_unknown_metadata_are_named() -> None:
    parameters = dict(some().parameters)
    with pytest.raises(ValueError, match="unknown metadata"):
        Gaussians(parameters, {"sh_degre": 2})
    del parameters["means"]
    with pytest.raises(ValueError, match="means"):
        Gaussians(parameters)


@pytest.mark.parametrize("copies", [1, 2, 5, 51])
@pytest.mark.parametrize("opacity", [0.01, 0.5, 0.99])
def test_shared_copies_draw_what_the_one_drew(opacity: float, copies: int) -> None:
    shared, factor = shared_opacity(torch.tensor([opacity], dtype=torch.float64), torch.tensor([copies]))
    assert 1 - (1 - float(shared)) ** copies == pytest.approx(opacity, rel=1e-9)
    x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    together = 1 - (1 - shared * torch.exp(-0.5 * (x / factor) ** 2)) ** copies
    alone = opacity * torch.exp(-0.5 * x**2)
    assert float(together.sum() / alone.sum()) == pytest.approx(1.0, rel=1e-6)


def test_share_opacity_sets_the_rows_and_no_others() -> None:
    family = some()
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    family.share_opacity(torch.tensor([1, 4]), torch.tensor([2, 3]))
    for row, copies in ((1, 2), (4, 3)):
        old = torch.sigmoid(before["logit_opacities"][row].double())
        assert float(1 - (1 - family.opacities().detach()[row].double()) ** copies) == pytest.approx(
            float(old), rel=1e-5
        )
    others = [0, 2, 3, 5]
    assert torch.equal(family.parameters["log_scales"][others], before["log_scales"][others])
    assert not torch.equal(family.parameters["log_scales"][[1, 4]], before["log_scales"][[1, 4]])


def test_split_children_have_the_parents_covariance_between_them() -> None:
    family = some(1)
    parent = {key: value.detach().clone() for key, value in family.parameters.items()}
    rows = 20_000
    family.rearrange(RowMap(torch.zeros(rows, dtype=torch.int64), torch.ones(rows, dtype=torch.bool)))
    family.shrink_split(torch.arange(rows), 2, torch.Generator().manual_seed(0))
    turn = matrix_from_quaternion(parent["quaternions"])[0]
    wanted = turn @ torch.diag(parent["log_scales"][0].exp() ** 2) @ turn.T
    got = torch.cov(family.positions().detach().T)
    assert torch.allclose(got, wanted, atol=0.03 * float(wanted.abs().max()))
    assert torch.allclose(family.sizes(), parent["log_scales"].exp() / 1.6)


def test_noise_moves_faint_primitives_along_their_covariance_and_leaves_solid_ones() -> None:
    family = some(20_000)
    values = {
        key: value.detach()[:1].expand(20_000, *value.shape[1:]).clone() for key, value in family.parameters.items()
    }
    values["logit_opacities"][:10_000] = math.log(0.001 / 0.999)
    values["logit_opacities"][10_000:] = 2.0
    family.replace({key: value.clone() for key, value in values.items()})
    family.perturb(3.0, torch.Generator().manual_seed(1))
    moved = family.positions().detach() - values["means"]
    assert not moved[10_000:].any()
    turn = matrix_from_quaternion(values["quaternions"][:1])[0]
    covariance = turn @ torch.diag(values["log_scales"][0].exp() ** 2) @ turn.T
    weight = 3.0 / (1 + math.exp(100 * (0.001 - 0.005)))
    wanted = weight**2 * covariance @ covariance
    assert torch.allclose(torch.cov(moved[:10_000].T), wanted, atol=0.05 * float(wanted.abs().max()))


def test_spherical_harmonics_turn_with_the_world() -> None:
    rest = some(4).parameters["sh_rest"].detach().double()
    turn = a_similarity().rotation
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    before = torch.einsum("dk,nkc->ndc", basis(directions, 3)[:, 1:], rest)
    after = torch.einsum("dk,nkc->ndc", basis(directions @ turn.T, 3)[:, 1:], rotate_rest(rest, turn))
    assert torch.allclose(before, after, atol=1e-10)


def test_the_basis_is_orthonormal() -> None:
    z = torch.linspace(-1, 1, 801, dtype=torch.float64)[:, None].expand(801, 64)
    angle = (torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64).expand(801, 64)
    radius = torch.sqrt((1 - z * z).clamp_min(0))
    values = basis(torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1).reshape(-1, 3), 3)
    weight = torch.full((801, 64), 2 / 800 * 2 * math.pi / 64, dtype=torch.float64)
    weight[[0, -1]] /= 2
    gram = values.T @ (values * weight.reshape(-1, 1))
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=1e-4)


def test_a_similarity_and_its_inverse_give_the_family_back() -> None:
    family, move = some(), a_similarity()
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    family.transform(move)
    assert torch.allclose(family.positions(), move.apply(before["means"]), atol=1e-6)
    assert torch.allclose(family.sizes(), 2.5 * before["log_scales"].exp())
    family.transform(move.inverse)
    assert torch.allclose(family.positions(), before["means"], atol=1e-5)
    assert torch.allclose(family.parameters["sh_rest"], before["sh_rest"], atol=1e-5)
    back, old = (matrix_from_quaternion(each) for each in (family.parameters["quaternions"], before["quaternions"]))
    assert torch.allclose(back, old, atol=1e-5)


def test_bounds_hold_what_is_drawn() -> None:
    family = some(3)
    box = family.bounds()
    turn = matrix_from_quaternion(family.parameters["quaternions"].detach())
    unit = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    for row in range(3):
        opacity = float(family.opacities()[row])
        reach = math.sqrt(2 * math.log(255 * opacity))
        surface = family.positions()[row] + reach * unit @ (turn[row] * family.sizes()[row]).T
        assert bool((surface >= box[row, 0] - 1e-5).all())
        assert bool((surface <= box[row, 1] + 1e-5).all())
        assert float((surface.amax(0) / box[row, 1]).max()) > 0.9 or float(box[row, 1].abs().min()) < 0.1


def test_surface_samples_lie_on_one_sigma() -> None:
    family = some(1)
    points = family.sample_surface(200, torch.Generator().manual_seed(0))
    turn = matrix_from_quaternion(family.parameters["quaternions"].detach())[0]
    local = (points - family.positions()) @ turn / family.sizes()
    assert torch.allclose(local.norm(dim=1), torch.ones(200), atol=1e-4)


def test_volume_is_that_of_the_ellipsoid() -> None:
    family = some(2)
    expected = 4 / 3 * math.pi * family.sizes()[:, 0] * family.sizes()[:, 1] * family.sizes()[:, 2]
    assert torch.allclose(family.volumes(), expected)


def test_neighbour_distances_are_exact_also_for_clusters_outliers_and_twins() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.cat([torch.randn(900, 3, generator=generator) * 0.01, torch.randn(100, 3, generator=generator) * 50])
    points = torch.cat([points, points[:5]])
    distance = (points[:, None].double() - points[None].double()).norm(dim=2)
    wanted = distance.topk(4, largest=False).values[:, 1:].square().mean(1).sqrt()
    assert torch.allclose(neighbour_distances(points, 3).double(), wanted, rtol=1e-5)
    assert neighbour_distances(points[:1], 3).tolist() == [1.0]


def test_colour_degrees_only_rise() -> None:
    family = some(2, degree=2)
    family.metadata["active_sh_degree"] = 0
    family.advance(1)
    assert family.metadata["active_sh_degree"] == 1
    family.advance(9)
    assert family.metadata["active_sh_degree"] == 2
    family.advance(0)
    assert family.metadata["active_sh_degree"] == 2


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"sh_degre": 2}, "unknown metadata 'sh_degre'; did you mean 'sh_degree'"),
        ({"sh_degree": "many"}, "sh_degree is of type int, got 'many'"),
        ({"sh_degree": 4}, "sh_degree cannot be 4"),
        ({"active_sh_degree": -1}, "active_sh_degree cannot be -1"),
        ({"compensated": 1}, "compensated is of type bool"),
        ({"initial_opacity": 1}, "initial_opacity cannot be 1"),
        ({"initial_scale": math.nan}, "initial_scale is of type float, got nan"),
    ],
)
def test_metadata_that_cannot_be_is_refused_by_name(metadata: dict[str, object], message: str) -> None:
    with pytest.raises(FamilyError, match=message):
        Gaussians.from_points(torch.rand(3, 3), torch.rand(3, 3), metadata)
    assert Gaussians.checked_metadata({"sh_degree": 2.0})["sh_degree"] == 2

"""Family `neural_splats`: its size, its published start, closed forms against quadrature, its own signals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_families import EVERY, doubled, picture, points
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.family import FamilyError, LossContext, find_family
from smalti.primitives.neural_splats import NETWORK, NeuralSplats
from smalti.scene.folder import save_scene
from smalti.scene.scene import Scene

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def density(family: NeuralSplats, row: int, offset: Tensor) -> Tensor:
    """f at world offsets [n, 3] from the centre, by the definition."""
    values = {key: value.detach()[row] for key, value in family.parameters.items()}
    if family.metadata["frame"] == "local":
        offset = offset @ matrix_from_quaternion(values["quaternions"])
    scaled = offset / values["log_scales"].exp().max()
    waves = torch.cos(float(family.metadata["omega"]) * (scaled @ values["frequencies"].T + values["phases"]))
    return values["offsets"] + waves @ values["amplitudes"]


def test_a_primitive_has_99_numbers_at_width_8_and_degree_3() -> None:
    family = NeuralSplats.from_points(*points(5), {})
    assert family.bytes_per_primitive == 4 * 99
    assert sum(value.numel() for value in family.parameters.values()) == 5 * 99


@pytest.mark.parametrize(("metadata", "numbers"), [({}, 99), ({"sh_degree": 0}, 54), ({"width": 16}, 99 + 5 * 8)])
def test_a_saved_scene_holds_these_numbers_and_no_others(
    metadata: dict[str, int], numbers: int, tmp_path: Path
) -> None:
    """Specification, section 7, test 12: no opacity, no normals; 4 x 99 bytes each, on disk."""
    scene = Scene()
    scene.add("neural", NeuralSplats.from_points(*points(7), metadata))
    save_scene(scene, tmp_path / "scene")
    with (tmp_path / "scene" / "scene.safetensors").open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        held = sum(each["data_offsets"][1] - each["data_offsets"][0] for each in header.values())
        assert held == len(stream.read()) == 4 * numbers * 7
    assert {each["dtype"] for each in header.values()} == {"F32"}


def test_it_starts_as_published() -> None:
    """Specification, section 2: uniform weights, and what they do to random rays."""
    count = 4000
    family = NeuralSplats.from_points(torch.rand(count, 3), torch.rand(count, 3), {"sh_degree": 0})
    values = {key: value.detach().double() for key, value in family.parameters.items()}
    second = math.sqrt(6 / 8) / 30
    for name, bound in {"frequencies": 1 / 3, "phases": 1 / 3, "amplitudes": second, "offsets": second}.items():
        assert bound * 0.99 < float(values[name].abs().max()) <= bound
        assert float(values[name].std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
    # One random chord through each unit ball: a direction, and a foot uniform over the disk across it.
    generator = torch.Generator().manual_seed(0)
    frame = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))[0]
    angle, radius = 2 * math.pi * torch.rand(count, generator=generator), torch.rand(count, generator=generator).sqrt()
    foot = radius[:, None] * (angle.cos()[:, None] * frame[:, :, 1] + angle.sin()[:, None] * frame[:, :, 2])
    half = (1 - radius.square()).sqrt()
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(64))
    place = foot[:, None] + (half[:, None] * nodes)[..., None] * frame[:, None, :, 0]
    phase = 30 * (torch.einsum("nqc,nwc->nqw", place, values["frequencies"]) + values["phases"][:, None])
    field = values["offsets"][:, None] + torch.einsum("nqw,nw->nq", phase.cos(), values["amplitudes"])
    integral = half * (field * weights).sum(1)
    alpha = -torch.expm1(-integral.clamp_min(0))
    # The specification's (half, 58 %, 0.0096, 0.042) are of rays by a law it does not state; ours cross balls, whose
    # mean chord of 4/3 is longer than that of ellipsoids with the same largest axis.
    assert float((integral <= 0).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((alpha < 1 / 255).double().mean()) == pytest.approx(0.56, abs=0.03)
    assert float(alpha.mean()) == pytest.approx(0.013, abs=0.001)
    assert float(alpha.quantile(0.95)) == pytest.approx(0.055, abs=0.004)
    assert 0.08 < float(alpha.max()) < 0.14


def test_its_bound_and_colours_start_as_published() -> None:
    """Specification, section 2: round, as large as the root mean square distance to the three nearest points, the
    colour in the constant term; its mode for toys is a twentieth of that size, with a density of one.
    """
    positions, colors = points(40)
    family = NeuralSplats.from_points(positions, colors, {})
    apart = torch.cdist(positions.double(), positions.double()).sort(dim=1).values[:, 1:4]
    wanted = apart.square().mean(1).sqrt()
    assert torch.allclose(family.sizes().detach().double(), wanted[:, None].expand(-1, 3), rtol=1e-5)
    assert family.parameters["quaternions"].tolist() == [[1, 0, 0, 0]] * 40
    assert torch.allclose(family.base_colors(), colors, atol=1e-6)
    assert not family.parameters["sh_rest"].any()
    assert family.metadata["active_sh_degree"] == 0
    toy = NeuralSplats.from_points(positions, colors, {"initial_scale": 1 / 20, "initial_offset": 1.0})
    assert torch.allclose(20 * toy.sizes().detach(), family.sizes().detach(), rtol=1e-5)
    change = toy.parameters["offsets"].detach() - family.parameters["offsets"].detach()
    assert torch.allclose(change, torch.ones(40), atol=1e-6)
    together = NeuralSplats.from_points(torch.zeros(5, 3), torch.rand(5, 3), {})
    assert torch.allclose(together.sizes().detach(), torch.full((5, 3), 1e-7))


def test_published_sizes_are_these_numbers_of_primitives() -> None:
    """Specification, section 5: 0.4 MB are about 1,000, 2 MB 5,000 and 4 MB 10,000, against 424, 1.7, 4.2, 8.5 and 17
    thousand Gaussians; the 84 MB and 350 MB of a kitchen (in MiB) 220 thousand and 1.5 million.
    """
    neural, gaussian = (
        find_family(name).from_points(*points(5), {}).bytes_per_primitive for name in ("neural_splats", "gaussians")
    )
    assert gaussian == 4 * 59
    assert neural / gaussian == pytest.approx(1.68, abs=0.005)
    for budget, few, many in ((0.1, 252, 424), (0.4, 1000, 1700), (1.0, 2500, 4200), (2.0, 5000, 8500), (4, 1e4, 17e3)):
        assert 1e6 * budget / neural == pytest.approx(few, rel=0.011)
        assert 1e6 * budget / gaussian == pytest.approx(many, rel=0.011)
    assert 84 * 2**20 / neural == pytest.approx(222e3, rel=0.01)
    assert 350 * 2**20 / gaussian == pytest.approx(1.56e6, rel=0.01)


@pytest.mark.parametrize("name", ["neural_splats", "neural_splats-local"])
def test_central_depths_are_the_integrals_along_the_axes(name: str) -> None:
    family = EVERY[name]()
    assert isinstance(family, NeuralSplats)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(96))
    for row in range(len(family)):
        turn = matrix_from_quaternion(family.parameters["quaternions"].detach())[row]
        scales = family.sizes().detach()[row]
        along = [
            (density(family, row, scales[axis] * nodes[:, None] * turn[:, axis]) * weights).sum() * scales[axis]
            for axis in range(3)
        ]
        assert float(family.central_depths()[row].detach()) == pytest.approx(
            float(sum(along) / 3 / scales.max()), abs=1e-12
        )


def test_a_constant_density_makes_every_diameter_alike() -> None:
    """Specification, section 7, test 2: w2 = 0, equal scales: I = 2 b2, for any radius."""
    family = NeuralSplats.from_points(*points(3), {})
    family.replace({"amplitudes": torch.zeros(3, 8), "offsets": torch.full((3,), 1.3)})
    assert torch.allclose(family.central_depths(), torch.full((3,), 2.6))
    assert torch.allclose(family.opacities(), torch.full((3,), 1 - math.exp(-2.6)))


def test_the_published_field_does_not_turn_with_its_primitive() -> None:
    for frame, turns in (("world", False), ("local", True)):
        family = NeuralSplats.from_points(*points(3), {"frame": frame, "initial_offset": 0.5, "sh_degree": 0})
        doubled(family)
        before = picture(family).detach()
        turn = torch.tensor([0.8, 0.1, 0.5, -0.3], dtype=torch.float64)
        family.replace({"quaternions": turn.expand(3, 4)})
        changed = float((picture(family).detach() - before).abs().max())
        assert (changed > 1e-4) == turns
        assert turns or changed < 1e-9


def test_the_signal_for_growth_is_the_sum_of_four_norms() -> None:
    family = NeuralSplats.from_points(*points(4), {})
    assert family.growth_signal() is None
    generator = torch.Generator().manual_seed(0)
    for name in NETWORK:
        value = family.parameters[name]
        value.grad = torch.randn(value.shape, generator=generator)
    signal = family.growth_signal()
    assert signal is not None
    for row in range(4):
        norms = [float(torch.linalg.vector_norm(family.parameters[name].grad[row])) for name in NETWORK]  # type: ignore[index]
        assert float(signal[row]) == pytest.approx(sum(norms), rel=1e-5)


def test_anisotropy_is_the_published_term_and_finite_at_the_start() -> None:
    family = NeuralSplats.from_points(*points(2), {})
    term = family.regularizers(LossContext(1.0, torch.Generator()))["anisotropy"]
    loss = term()
    loss.backward()
    assert float(loss) == 0
    assert bool(torch.isfinite(family.parameters["log_scales"].grad).all())  # type: ignore[union-attr]
    family.replace({"log_scales": torch.tensor([[0.0, math.log(2), math.log(3)], [0.0, 0.0, 0.0]])})
    assert float(term()) == pytest.approx(0.5 * 1.0)  # deviation of 1, 2, 3 is 1; of 1, 1, 1 it is 0
    assert family.default_regularizers() == {"anisotropy": 1e-3}


def test_children_keep_their_parents_network() -> None:
    family = EVERY["neural_splats"]()
    before = {key: value.detach().clone() for key, value in family.parameters.items()}
    family.split(torch.tensor([2]), 2, torch.Generator().manual_seed(0))
    assert len(family) == 7
    for name in NETWORK:
        assert torch.equal(family.parameters[name][-2:], before[name][[2, 2]])
    assert torch.allclose(family.sizes()[-2:], before["log_scales"][[2, 2]].exp() / 1.6)


def test_a_width_that_does_not_fit_is_refused() -> None:
    family = NeuralSplats.from_points(*points(2), {"width": 16})
    with pytest.raises(FamilyError, match="width"):
        NeuralSplats(family.parameters, {"width": 8})
    with pytest.raises(FamilyError, match="width cannot be 7"):
        NeuralSplats.from_points(*points(2), {"width": 7})

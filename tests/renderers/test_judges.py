"""The oracle's projection and basis against code that others wrote: scipy, and gsplat's reference on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scenes import gaussians, simple_camera

from smalti.renderers.oracle import Splats, project, rotation_matrices
from smalti.renderers.spherical_harmonics import gaussian_color, spherical_harmonics_basis


def directions(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    along_axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    free = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.cat([along_axes, torch.nn.functional.normalize(free, dim=-1)])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_basis_against_scipy(degree: int) -> None:
    """Real harmonics out of scipy's complex ones, which carry the Condon-Shortley phase, as 3DGS keeps it."""
    special = pytest.importorskip("scipy.special")
    points = directions(40)
    x, y, z = points.numpy().T
    azimuth, polar = np.arctan2(y, x), np.arccos(z)
    columns = []
    for order in range(degree + 1):
        for m in range(-order, order + 1):
            value = special.sph_harm_y(order, abs(m), polar, azimuth)
            part = value.real if m == 0 else math.sqrt(2) * (value.real if m > 0 else value.imag)
            columns.append(part)
    np.testing.assert_allclose(spherical_harmonics_basis(points, degree).numpy(), np.stack(columns, 1), atol=1e-13)


def test_basis_in_known_directions() -> None:
    """Constants of the 3DGS files, worked out on the axes."""
    first, second = math.sqrt(3 / (4 * math.pi)), 0.25 * math.sqrt(5 / math.pi)
    along_x, along_y, along_z = spherical_harmonics_basis(torch.eye(3).double(), 3)
    assert along_x[:4].tolist() == pytest.approx([0.5 / math.sqrt(math.pi), 0, 0, -first])
    assert along_y[:4].tolist() == pytest.approx([0.5 / math.sqrt(math.pi), -first, 0, 0])
    assert along_z[:4].tolist() == pytest.approx([0.5 / math.sqrt(math.pi), 0, first, 0])
    assert along_z[4:9].tolist() == pytest.approx([0, 0, 2 * second, 0, 0])
    assert along_z[12].item() == pytest.approx(0.5 * math.sqrt(7 / math.pi))


@pytest.fixture(scope="module")
def gsplat_reference() -> Any:
    """gsplat's torch twins; its CUDA part is not touched."""
    return pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat (an extra of the tests) is not installed")


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_color_against_gsplat(degree: int, gsplat_reference: Any) -> None:
    generator = torch.Generator().manual_seed(6)
    points = directions(30)
    coefficients = torch.randn(len(points), 16, 3, generator=generator, dtype=torch.float64)
    expected = gsplat_reference._spherical_harmonics(degree, points, coefficients) + 0.5
    torch.testing.assert_close(gaussian_color(coefficients[:, 0], coefficients[:, 1:], degree, points), expected)


@pytest.mark.parametrize("variance", [0.3, 0.05])
def test_projection_against_gsplat(variance: float, gsplat_reference: Any) -> None:
    """Centres, conics, compensation and depths of Gaussians in front of the camera, many of them beside the picture."""
    camera = simple_camera(64, 48)
    camera = replace(camera, intrinsics=torch.tensor([70.0, 60.0, 20.5, 30.0], dtype=torch.float64))
    drawable = gaussians(300, 21, scale=0.2, compensated=True, filter_variance=variance)
    drawable = replace(drawable, means=1.5 * drawable.means)
    z = drawable.means @ camera.rotation[2] + camera.translation[2]
    rows = (z > 0.1).nonzero()[:, 0]
    ours: Splats = project(drawable, camera, rows)

    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3], view[:3, 3] = camera.rotation, camera.translation
    covariances, _ = gsplat_reference._quat_scale_to_covar_preci(drawable.quaternions, drawable.scales, True, False)
    _, centres, depths, conics, compensations = gsplat_reference._fully_fused_projection(
        drawable.means[rows],
        covariances[rows],
        view[None],
        camera.matrix[None],
        camera.width,
        camera.height,
        eps2d=variance,
        calc_compensations=True,
    )
    outside = (ours.centres[:, 0] < -20) | (ours.centres[:, 0] > 84)
    assert int(outside.sum()) > 10  # the clamp of the affine map is part of what is compared
    torch.testing.assert_close(ours.centres, centres[0])
    torch.testing.assert_close(ours.depths, depths[0])
    torch.testing.assert_close(ours.conics, conics[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.opacities, drawable.opacities[rows] * compensations[0], rtol=1e-6, atol=1e-8)
    rotations = gsplat_reference._quat_to_rotmat(drawable.quaternions)
    torch.testing.assert_close(rotation_matrices(drawable.quaternions), rotations)

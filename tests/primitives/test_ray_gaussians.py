"""Family `ray_gaussians`: what a logit means under either response."""

from __future__ import annotations

import math

import pytest
import torch
from small_families import doubled, picture, points

from smalti.cameras.camera import Camera
from smalti.primitives.family import FamilyError
from smalti.primitives.ray_gaussians import RayGaussians

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def facing(row_scales: list[float], response: str, logit: float) -> RayGaussians:
    """One Gaussian at the origin whose first axis is world z, the way the camera looks."""
    family = RayGaussians.from_points(
        torch.zeros(1, 3), torch.full((1, 3), 0.7), {"response": response, "sh_degree": 0}
    )
    half = math.sqrt(0.5)
    family.replace(
        {
            "log_scales": torch.tensor([row_scales]).log(),
            "quaternions": torch.tensor([[half, 0.0, -half, 0.0]]),
            "logit_opacities": torch.tensor([logit]),
        }
    )
    return doubled(family)  # type: ignore[return-value]


def ahead(offset: float = 0.0, size: int = 1) -> Camera:
    """Looks along z past the origin, so far away that the rays of its pixel are parallel to z."""
    eye = torch.eye(3, dtype=torch.float64)
    shift = torch.tensor([-offset, 0.0, 1000.0], dtype=torch.float64)
    return Camera(eye, shift, torch.tensor([1e5, 1e5, 0.5 * size, 0.5 * size], dtype=torch.float64), size, size)


@pytest.mark.parametrize("response", ["maximum", "integral"])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 3.0])
def test_the_logit_is_the_opacity_seen_along_the_longest_axis(response: str, logit: float) -> None:
    family = facing([0.3, 0.1, 0.2], response, logit)
    alpha = float(picture(family, ahead()).detach()[0, 0, 3])
    assert alpha == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-9)
    assert float(family.opacities().detach()[0]) == pytest.approx(alpha, abs=1e-7)


@pytest.mark.parametrize("response", ["maximum", "integral"])
def test_bounds_end_where_nothing_is_drawn_any_more(response: str) -> None:
    family = facing([0.3, 0.1, 0.2], response, 1.0)
    edge = float(family.bounds()[0, 1, 0])  # across, along x, which is the Gaussian's third axis
    assert float(picture(family, ahead(edge * 0.999)).detach()[0, 0, 3]) > 1 / 256
    assert float(picture(family, ahead(edge * 1.001)).detach()[0, 0, 3]) == 0.0


def test_an_unknown_response_is_refused() -> None:
    with pytest.raises(FamilyError, match="response cannot be 'mean'"):
        RayGaussians.from_points(*points(2), {"response": "mean"})

"""Family `neural_splats`: ellipsoids filled with a one-layer neural density (Zhou et al. 2025, Splat the Net), drawn by
kind `neural`.

Parameters: `means` [n, 3] world units; `log_scales` [n, 3] natural logarithm of the bound's semi-axes; `quaternions`
[n, 4] (w, x, y, z, any length); `sh_dc` [n, 3]; `sh_rest` [n, k, 3]; the network, raw: `frequencies` [n, w, 3] and
`phases` [n, w] (multiplied by `omega` at use), `amplitudes` [n, w], `offsets` [n]. Densities are per largest semi-axis,
so that opacity does not depend on the world's unit. 99 numbers per primitive at width 8 and degree 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.primitives.editing import reflection
from smalti.primitives.family import FamilyError, LossContext
from smalti.primitives.metadata import Ranges
from smalti.primitives.rows import Restructure
from smalti.primitives.splats import SplatFamily
from smalti.renderers.drawables import NeuralDrawable

NETWORK = ("frequencies", "phases", "amplitudes", "offsets")
FIRST_LAYER = 1.0 / 3.0
"""Frequencies and phases start uniform within this (the released code)."""

BRANCH_STEP = 0.3
"""Of a newcomer and its host, in semi-axes."""


class NeuralSplats(SplatFamily):
    """See the module. Metadata: `width` 8 or 16; `omega`; `frame` of the field, `world` as published (turning the
    quaternion turns the bound alone) or `local`; `cap` of alpha at 0.99, as published; `leak` of the gradient where a
    ray's integral is negative; `initial_offset`, 0 as published, 1 in its mode for toys; `initial_seed` of the weights.
    """

    name: ClassVar[str] = "neural_splats"

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        field = {"width": 8, "omega": 30.0, "frame": "world", "cap": True, "leak": 0.0}
        return {**super().default_metadata(), **field, "initial_offset": 0.0, "initial_seed": 0}

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            **super().metadata_ranges(values),
            "width": (values["width"] in (8, 16), "8 or 16"),
            "omega": (values["omega"] > 0, "positive"),
            "frame": (values["frame"] in ("world", "local"), "world or local"),
            "leak": (0 <= values["leak"] <= 1, "0 to 1"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {**super().default_learning_rates(), **dict.fromkeys(NETWORK, 1e-3)}

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("offsets",)

    @classmethod
    def default_regularizers(cls) -> dict[str, float]:
        return {"anisotropy": 1e-3}

    @classmethod
    def initial_parameters(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], values: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Weights as published: first layer U(-1/3, 1/3), second U(-A, A) with A = sqrt(6 / width) / omega."""
        count, width = len(positions), values["width"]
        generator = torch.Generator().manual_seed(values["initial_seed"])

        def uniform(bound: float, *shape: int) -> Tensor:
            drawn = torch.rand(count, *shape, generator=generator) * (2 * bound) - bound
            return drawn.to(positions.device)

        second = math.sqrt(6.0 / width) / values["omega"]
        return {
            **super().initial_parameters(positions, colors, values),
            "frequencies": uniform(FIRST_LAYER, width, 3),
            "phases": uniform(FIRST_LAYER, width),
            "amplitudes": uniform(second, width),
            "offsets": uniform(second) + values["initial_offset"],
        }

    def check_shapes(self) -> None:
        super().check_shapes()
        width = int(self.metadata["width"])
        for name, shape in {"frequencies": (width, 3), "phases": (width,), "amplitudes": (width,)}.items():
            got = tuple(self.parameters[name].shape[1:])
            if got != shape:
                raise FamilyError(f"family {self.name}: {name} should be [n, {width}, ...] by its width, got {got}")

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[NeuralDrawable]:
        field = {key: self.metadata[key] for key in ("omega", "frame", "cap", "leak")}
        return [NeuralDrawable(**self.drawn(), **{key: self.parameters[key] for key in NETWORK}, **field)]

    # -- measures -----------------------------------------------------------------------------------------------------
    def central_depths(self) -> Float[Tensor, "n"]:
        """Line integrals of the density (negative ones too), mean of the three rays along the bound's axes through the
        centre. Differentiable.
        """
        values = self.parameters
        scales = values["log_scales"].exp()
        relative = scales / scales.amax(dim=1, keepdim=True)
        along = values["frequencies"]
        if self.metadata["frame"] == "world":
            along = along @ matrix_from_quaternion(values["quaternions"])
        omega = float(self.metadata["omega"])
        # torch.sinc(x) is sin(pi x) / (pi x).
        waves = torch.sinc(omega / math.pi * along * relative[:, None, :]) * (omega * values["phases"]).cos()[..., None]
        means = values["offsets"][:, None] + (values["amplitudes"][..., None] * waves).sum(dim=1)
        return (2.0 * relative * means).mean(dim=1)

    def opacities(self) -> Float[Tensor, "n"]:
        """1 - exp(-`central_depths`), 0 where those are negative."""
        return -torch.expm1(-self.central_depths().clamp_min(0.0))

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        """The frequencies turn with the world where the field is aligned with it."""
        super().transform(similarity)
        if self.metadata["frame"] == "world":
            turn = similarity.rotation.to(self.parameters["frequencies"])
            self.replace({"frequencies": self.parameters["frequencies"] @ turn.T})

    @torch.no_grad()
    def mirror(self, plane: Float[Tensor, "4"]) -> None:
        """The frequencies are reflected in the field's own frame."""
        super().mirror(plane)
        held = self.parameters["frequencies"]
        third = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
        flip = reflection(plane)[0] if self.metadata["frame"] == "world" else third
        self.replace({"frequencies": held @ flip.to(held)})

    @torch.no_grad()
    def set_opacities(self, wanted: Float[Tensor, "n"]) -> None:
        """The density is multiplied; primitives that show nothing stay so."""
        depths = self.central_depths().double()
        factor = -torch.log1p(-wanted.double().clamp(0, 1 - 1e-6)) / depths
        values = self.parameters
        factor = torch.where(depths > 0, factor, torch.ones_like(factor)).to(values["offsets"])
        changed = {"offsets": values["offsets"] * factor, "amplitudes": values["amplitudes"] * factor[:, None]}
        self.replace(changed)

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """`anisotropy` is the paper's: mean over primitives of the unbiased deviation of the semi-axes over the least
        one; the excess over the limit is not asked for.
        """

        def anisotropy() -> Tensor:
            sizes = self.sizes()
            return (sizes / sizes.amin(dim=1, keepdim=True)).std(dim=1).mean()

        return {**super().regularizers(context), "anisotropy": anisotropy}

    # -- density control ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def growth_signal(self) -> Float[Tensor, "n"] | None:
        """Sum of the norms of the gradients of the four raw parts of the network (specification, section 3)."""
        gradients = [self.parameters[name].grad for name in NETWORK]
        found = [each.reshape(len(self), -1).norm(dim=1) for each in gradients if each is not None]
        return torch.stack(found).sum(dim=0) if found else None

    @torch.no_grad()
    def branch(self, rows: Int[Tensor, "k"], generator: torch.Generator) -> Restructure:
        """Host and newcomer share the density and part a little: by 0.3 times a normal deviate of the host's semi-axes,
        either way. (A split puts copies of the field where they do not belong: -1.1 dB on `chair_blender`, this +0.3.)
        """
        change = self.multiply(rows)
        values = self.parameters
        noise = torch.randn(len(rows), 3, generator=generator).to(values["means"])
        turn = matrix_from_quaternion(values["quaternions"][rows])
        step = (turn * (BRANCH_STEP * self.axes_lengths(rows) * noise)[:, None, :]).sum(dim=2)
        values["means"].data[rows] -= step
        values["means"].data[-len(rows) :] += step
        return change

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """The density is divided: exact on every ray, as far as the cap is not at work."""
        share = 1.0 / copies.to(self.parameters["offsets"])
        self.parameters["offsets"].data[rows] *= share
        self.parameters["amplitudes"].data[rows] *= share[:, None]

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        """Lowers the density's constant where `opacities` are above."""
        depths = self.central_depths()
        scales = self.sizes()
        mean_chord = (2.0 * scales / scales.amax(dim=1, keepdim=True)).mean(dim=1)
        excess = (depths + math.log1p(-maximum)).clamp_min(0.0)
        self.parameters["offsets"].data -= excess / mean_chord


FAMILY = NeuralSplats

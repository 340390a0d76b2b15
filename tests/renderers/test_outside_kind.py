"""Kinds from outside: compiled on demand, drawn like any other, judged by the public suite, which is itself tried on
kinds that are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backends import emulator
from outside import FOG, SETTINGS, a_camera, beta_kind, beta_rows, changed_beta, compiler_script, draw, fog_rows, some

from smalti.renderers.engine import cubins, exact_cuda, nvrtc
from smalti.renderers.engine.exact_source import ExactSource, kind_source
from smalti.renderers.engine.library import available, set_threads, use_isa
from smalti.renderers.engine.outside import find_compiler
from smalti.renderers.fragments import composite, fragments
from smalti.renderers.outside import OutsideDrawable, OutsideKind
from smalti.renderers.render import render
from smalti.testing import check_kind


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each kind is compiled once, into a cache of this module's own, for the right processor but with half the
    optimisation, which costs half the time (tests/test_outside_family.py compiles as users do).
    """
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALTI_CACHE", str(folder))
        patch.setenv("CXX", str(compiler_script(folder, f'exec {find_compiler()[0]} "$@" -O1')))
        yield


@pytest.fixture
def one_emulated_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The emulator holds all kinds that are drawn here in one library, so that only one has to be compiled."""
    together = tuple(kind_source(kind) for kind in (beta_kind(), FOG, "gaussian", "triangle"))
    monkeypatch.setattr(exact_cuda, "ExactSource", lambda _, dtype, draws: ExactSource(together, dtype, draws))
    with emulator().selected():
        yield


# ---------------------------------------------------------------------------------------------------- the suite itself
def test_fog_passes_with_every_function_of_duals() -> None:
    report = check_kind(FOG, fog_rows)
    print(report)
    assert len(report.findings) > 40
    assert any("near plane amid" in finding.name for finding in report.findings)


WRONG = {
    "bound too small": ([("return max(p[7], max(p[8], p[9]));", "return 0.7 * p[7];")], "a larger bound"),
    "z from elsewhere": (
        [("smalti::dot(d, d);", "smalti::dot(d, d) + 0.1 * smalti::dot(o, o);")],
        "origin moved by",
    ),
    "derivative lost": ([("const S rest", "p12 = S(p[11].v[0]); const S rest"), ("S o[3]", "S p12, o[3]"),
                         ("pow(rest, p[11])", "pow(rest, p12)")], "gradient of parameter shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_the_suite_finds_what_is_wrong(name: str, tmp_path: Path) -> None:
    changes, expected = WRONG[name]
    kind = changed_beta(tmp_path, *changes)
    report = check_kind(kind, beta_rows, raises=False)
    assert any(finding.name.startswith(expected) for finding in report.failures), str(report)
    with pytest.raises(AssertionError, match=r"kind beta fails \d+ of \d+ checks"):
        report.raise_failures()


def test_the_suite_finds_a_reference_that_differs() -> None:
    assert FOG.reference is not None
    other = replace(
        FOG, reference=lambda p, o, d: FOG.reference(p * torch.tensor([1.0] * 4 + [1.01] + [1.0] * 3), o, d)
    )
    failed = [finding.name for finding in check_kind(other, fog_rows, raises=False).failures]
    assert failed == ["picture against the reference", "gradient against the reference"]


# ------------------------------------------------------------------------------------------------------------ pictures
@pytest.mark.parametrize("name", [name for name in available() if name != "double"])
@pytest.mark.parametrize("kind", [beta_kind(), FOG], ids=lambda kind: kind.name)
def test_every_library_draws_what_double_draws(name: str, kind: OutsideKind) -> None:
    expected = draw(some(kind))
    with use_isa(name):
        frame = draw(some(kind, dtype=torch.float32))
    assert frame.color.dtype == torch.float32
    assert float((frame.color - expected.color).abs().max()) < 2e-5
    assert float(expected.alpha.max()) > 0.3


def test_features_and_screen_gradients() -> None:
    """The screen's gradient is that of moving the centre by a pixel's worth, at its depth."""
    plain = some(beta_kind())
    camera = a_camera()
    leaves = [plain.parameters.clone(), plain.colors.clone(), torch.linspace(-1, 1, 16).double().reshape(8, 2)]
    leaves = [leaf.requires_grad_(True) for leaf in leaves]
    frame = draw(OutsideDrawable(beta_kind(), *leaves), absolute_gradient=True)
    assert frame.features is not None
    (frame.features * torch.linspace(0, 1, 60).double()[:, None] + frame.color[..., :2]).sum().backward()
    parameters, _, features = leaves
    assert parameters.grad is not None
    assert features.grad is not None
    weight = draw(replace(plain, features=torch.ones(8, 1).double())).features
    assert weight is not None
    assert torch.allclose(weight[..., 0], frame.alpha.detach(), atol=1e-12)
    assert bool((features.grad != 0).all())
    z = (plain.parameters[:, :3] @ camera.rotation.T + camera.translation)[:, 2:]
    expected = (parameters.grad[:, :3] @ camera.rotation.T)[:, :2] * z / camera.intrinsics[:2]
    felt = frame.visibility.screen_gradient
    assert torch.allclose(felt["sum"], expected, rtol=1e-9, atol=1e-12)
    assert bool((felt["absolute"] >= felt["sum"].abs() - 1e-12).all())


def test_statistics_and_order_by_centre() -> None:
    for order in ("ray", "centre"):
        settings = replace(SETTINGS, order=order, statistics=True)
        engine, oracle = (
            render([some(FOG)], a_camera(), settings=settings, backend=backend) for backend in ("cpu", "oracle")
        )
        assert float((engine.color - oracle.color).abs().max()) < 1e-10
        assert engine.contribution_sum is not None
        assert oracle.contribution_sum is not None
        assert torch.allclose(engine.contribution_sum, oracle.contribution_sum, atol=1e-9)
        assert bool((engine.ids["dominant"] == oracle.ids["dominant"]).all())


def test_same_bits_for_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        set_threads(threads)
        plain = some(beta_kind(), 60, torch.float32)
        parameters = plain.parameters.clone().requires_grad_(True)
        frame = draw(replace(plain, parameters=parameters))
        frame.color.sum().backward()
        assert parameters.grad is not None
        found.append((frame.color.detach(), parameters.grad))
    set_threads(0)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_rows_that_are_no_primitives_are_counted() -> None:
    plain = some(beta_kind())
    parameters, colors = plain.parameters.clone(), plain.colors.clone()
    parameters[0, 7:10], parameters[1, 7:10], colors[2, 1] = 0.0, -0.3, torch.nan
    frame = draw(OutsideDrawable(beta_kind(), parameters, colors))
    assert frame.visibility.skipped == 3
    rest = draw(OutsideDrawable(beta_kind(), parameters[3:], colors[3:]))
    assert torch.equal(frame.color, rest.color)


@pytest.mark.parametrize("kind", [beta_kind(), FOG], ids=lambda kind: kind.name)
def test_fragments_composite_to_the_same_picture(kind: OutsideKind) -> None:
    plain = some(kind)
    listed = fragments([plain], a_camera(), most=16)
    assert listed.complete
    color, alpha = composite(listed, listed.colors)
    frame = draw(plain)
    assert float((color - frame.color).abs().max()) < 1e-9
    assert float((alpha - frame.alpha).abs().max()) < 1e-9
    hit = listed.primitives >= 0
    radius = plain.parameters[:, 7:10].amax(1) if kind is not FOG else plain.parameters[:, 3]
    distance = listed.local.norm(dim=-1)[hit]  # of the event's place from the centre
    assert bool((distance <= radius[listed.primitives[hit]] * (1 + 1e-6)).all())
    centres = plain.parameters[listed.primitives[hit], :3] + listed.local[hit]
    z = (centres @ a_camera().rotation.T + a_camera().translation)[:, 2]
    assert torch.allclose(z, listed.z0[hit], atol=1e-9)


# ------------------------------------------------------------------------------------------------- the CUDA sources
@pytest.mark.usefixtures("one_emulated_library")
def test_the_cuda_kernels_draw_the_same_under_the_emulator() -> None:
    found: list[list[torch.Tensor]] = []
    for backend in ("cpu", "emulator"):
        beta, fog = some(beta_kind(), 5), some(FOG, 4)
        leaves = [beta.parameters, beta.colors, fog.parameters, fog.colors]
        leaves = [leaf.clone().requires_grad_(True) for leaf in leaves]
        mixed = [OutsideDrawable(beta_kind(), *leaves[:2]), OutsideDrawable(FOG, *leaves[2:])]
        frame = render(mixed, a_camera(), settings=SETTINGS, backend=backend)
        assert frame.depth is not None
        (frame.color.square().sum() + (frame.depth * frame.alpha).sum()).backward()
        found.append([frame.color.detach(), *[leaf.grad for leaf in leaves if leaf.grad is not None]])
    assert len(found[0]) == 5
    for expected, got in zip(*found, strict=True):
        assert float((got - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.usefixtures("one_emulated_library")
def test_fragments_are_the_same_under_the_emulator() -> None:
    """With local coordinates and their gradients, one kind thin and one thick."""
    found: list[list[torch.Tensor]] = []
    for backend in ("cpu", "emulator"):
        beta, fog = some(beta_kind(), 5), some(FOG, 4)
        leaves = [drawable.parameters.clone().requires_grad_() for drawable in (beta, fog)]
        mixed = [OutsideDrawable(beta_kind(), leaves[0], beta.colors), OutsideDrawable(FOG, leaves[1], fog.colors)]
        listed = fragments(mixed, a_camera(), 6, backend=backend)
        planes = [listed.z0, listed.z1, listed.values, listed.local]
        torch.stack([plane.square().sum() for plane in planes]).sum().backward()
        found.append([*(p.detach() for p in planes), *[leaf.grad for leaf in leaves if leaf.grad is not None]])
        assert bool(listed.thick.any())
        assert bool((~listed.thick & (listed.primitives >= 0)).any())
    assert len(found[0]) == 6
    for expected, got in zip(*found, strict=True):
        assert float((got - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.usefixtures("one_emulated_library")
def test_the_suite_passes_under_the_emulator() -> None:
    report = check_kind(beta_kind(), beta_rows, backend="emulator")
    assert len(report.findings) > 40


def test_nvrtc_compiles_them() -> None:
    source = ExactSource((kind_source(beta_kind()),), torch.float32)
    options = (*cubins.OPTIONS, "--ptxas-options=-O1")  # whether it is accepted, not how fast it runs: half the time
    code = nvrtc.load().compile(source.text(), "sm_90", options).code
    assert len(code) > 10_000

"""Kinds from outside: compiled on demand, drawn like any other, judged by the public suite, which is itself tried on
kinds that are wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backends import emulator
from outside import BETA_HEADER, FOG, beta_kind, beta_rows, changed_beta, fog_rows

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable, RayGaussianDrawable
from smalti.renderers.engine import cubins, nvrtc
from smalti.renderers.engine import outside as engine_outside
from smalti.renderers.engine.exact_source import ExactSource, kind_source
from smalti.renderers.engine.library import EngineError, available, set_threads, use_isa
from smalti.renderers.engine.outside import KindError, compiled, find_compiler
from smalti.renderers.fragments import composite, fragments
from smalti.renderers.frame import Frame
from smalti.renderers.outside import OutsideDrawable, OutsideError, OutsideKind, find_outside
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.testing import check_kind

SETTINGS = RenderSettings(order="ray", depth=True)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own, so that kinds are compiled, once each."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SMALTI_CACHE", str(folder))
        yield folder / "kinds"


def a_camera(dtype: torch.dtype = torch.float64) -> Camera:
    eye, target, up = torch.tensor([[0.3, -0.4, -3.0], [0, 0, 0], [0, -1, 0]], dtype=dtype).unbind(0)
    return Camera.look_at(eye, target, up, 0.9, (60, 44))


def some(kind: OutsideKind, count: int = 8, dtype: torch.dtype = torch.float64) -> OutsideDrawable:
    generator = torch.Generator().manual_seed(3)
    rows = (fog_rows if kind is FOG else beta_rows)(count, generator)
    return OutsideDrawable(
        kind, rows.to(dtype), torch.rand(count, 3, generator=generator, dtype=torch.float64).to(dtype)
    )


def draw(drawable: OutsideDrawable, **options: bool) -> Frame:
    return render([drawable], a_camera(drawable.dtype), settings=replace(SETTINGS, **options))


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


# ------------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("change", "line_of", "words"),
    [
        (("z = -smalti", "zz = -smalti"), "zz = -smalti", "zz"),
        (("pow(rest, p[11])", 'pow(rest, "one")'), "alpha =", ""),
        (("return max(p[7]", "return maximum(p[7]"), "return maximum", "maximum"),
        (("S o[3], d[3];", "S o[3], d[3]"), "smalti::turn_into(p + 3, origin", ""),
    ],
)
def test_a_compile_error_shows_the_users_line(
    change: tuple[str, str], line_of: str, words: str, tmp_path: Path
) -> None:
    kind = changed_beta(tmp_path, change)
    text = kind.path.read_text().splitlines()
    with pytest.raises(KindError) as failure:
        draw(some(kind))
    first = str(failure.value).splitlines()[1]
    file, line, message = first.split(":", 2)
    assert "kind 'beta' does not compile. First error:" in str(failure.value)
    assert Path(file) == kind.path
    assert line_of in text[int(line) - 1] or line_of in text[int(line)], first
    assert words in message


def test_what_python_and_the_header_say_must_agree() -> None:
    narrow = OutsideKind("beta", BETA_HEADER, "BetaKernel", {"centre": 3, "rest": 4})
    with pytest.raises(KindError, match=r"kParameters differs from what Python says of kind beta: 7"):
        draw(OutsideDrawable(narrow, torch.zeros(1, 7), torch.zeros(1, 3)))
    with pytest.raises(KindError, match="kThick differs"):
        draw(some(replace(beta_kind(), thick=True)))
    with pytest.raises(KindError, match="Gamma"):
        draw(some(replace(beta_kind(), struct="GammaKernel")))
    with pytest.raises(KindError, match="there is no header"):
        draw(some(replace(beta_kind(), header="nowhere/beta.h")))


def test_descriptions_are_checked() -> None:
    with pytest.raises(OutsideError, match="name"):
        replace(beta_kind(), name="Beta kernel")
    with pytest.raises(OutsideError, match="struct"):
        replace(beta_kind(), struct="Beta; int x")
    with pytest.raises(OutsideError, match="at most 16"):
        replace(beta_kind(), parameters={"centre": 3, "rest": 14})
    with pytest.raises(OutsideError, match="it has"):
        beta_kind().draw({"centre": torch.zeros(1, 3)}, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"parameters: expected shape \(2, 12\)"):
        OutsideDrawable(beta_kind(), torch.zeros(2, 11), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="float64"):
        OutsideDrawable(beta_kind(), torch.zeros(2, 12), torch.zeros(2, 3).double())
    with pytest.raises(OutsideError, match="is the package that brings it installed"):
        find_outside("no_such_kind")


def test_no_compiler_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = changed_beta(tmp_path, ("after Liu", "see Liu"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine_outside.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KindError, match=r"install g\+\+, or `pip install ziglang`, or name"):
        draw(some(kind))
    monkeypatch.setattr(engine_outside.importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    assert find_compiler() == [sys.executable, "-m", "ziglang", "c++"]
    assert "-march=x86_64_v4" in engine_outside.compiler_flags("avx512", zig=True) or "avx512" not in available()
    monkeypatch.setenv("CXX", "no-such-compiler -O0")
    with pytest.raises(KindError, match="the compiler that CXX names, 'no-such-compiler', does not exist"):
        draw(some(kind))


# ---------------------------------------------------------------------------------------------------------------- cache
@pytest.fixture
def counting_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CXX is a script that notes every compilation (not `--version`) and then does it; the notes' file."""
    notes, script = tmp_path / "notes", tmp_path / "compiler"
    real = find_compiler()[0]
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo one >> {notes}\nexec {real} "$@" -O0\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    notes.touch()
    return notes


def test_compiled_once_kept_by_content_and_sealed(counting_compiler: Path, tmp_path: Path) -> None:
    kind = changed_beta(tmp_path)
    count = lambda: len(counting_compiler.read_text().split())  # noqa: E731
    first = compiled(kind, "double")
    assert compiled(kind, "double") == first
    assert count() == 1
    assert compiled(kind, "baseline") != first
    moved = tmp_path / "moved"
    moved.mkdir()
    assert compiled(changed_beta(moved), "double") == first  # the same content elsewhere
    assert count() == 2
    whole = first.read_bytes()
    for damaged in (whole[:-1000], whole[:5000] + b"?" + whole[5001:], b""):
        first.write_bytes(damaged)
        assert compiled(kind, "double") == first
        assert engine_outside._is_whole(first)
    assert count() == 5
    (tmp_path / "more.h").write_text("// a header beside it, which it might include")
    assert compiled(kind, "double") != first
    assert count() == 6
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".so"] * 3  # nothing is left lying about


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "file"))
    path = compiled(changed_beta(tmp_path), "double")
    assert path.is_file()
    assert "compiling kind 'beta' for double with" in caplog.text
    assert "set SMALTI_CACHE to a writable folder" in caplog.text


PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from backends import emulator
from outside import beta_kind
from smalti.renderers.engine.outside import compiled
print(compiled(beta_kind(Path({header!r})), "double"))
"""


def test_processes_at_once(counting_compiler: Path, tmp_path: Path) -> None:
    import smalti

    code = PROCESS.format(tests=str(Path(__file__).parent), header=str(changed_beta(tmp_path).path))
    environment = os.environ | {"PYTHONPATH": str(Path(smalti.__file__).parent.parent)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1]
    assert engine_outside._is_whole(Path(said[0].strip()))


def test_built_in_kinds_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    one = [torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.3), torch.tensor([0.8])]
    for kind in (GaussianDrawable, RayGaussianDrawable):
        frame = render([kind(*one, torch.ones(1, 3))], a_camera(torch.float32), settings=SETTINGS)
        assert float(frame.alpha.max()) > 0.5


def test_a_kind_that_nobody_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(RayGaussianDrawable):
        kind = "unknown"

    values = [torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), torch.ones(1, 3)]
    with pytest.raises(EngineError, match="there is no kind 'unknown'"):
        render([Unknown(*values)], a_camera(torch.float32), settings=SETTINGS)


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
def test_the_cuda_kernels_draw_the_same_under_the_emulator() -> None:
    found: list[list[torch.Tensor]] = []
    with emulator().selected():
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


def test_fragments_are_the_same_under_the_emulator() -> None:
    """With local coordinates and their gradients, one kind thin and one thick."""
    found: list[list[torch.Tensor]] = []
    with emulator().selected():
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


def test_the_suite_passes_under_the_emulator() -> None:
    with emulator().selected():
        report = check_kind(beta_kind(), beta_rows, backend="emulator")
    assert len(report.findings) > 40


def test_nvrtc_compiles_them() -> None:
    source = ExactSource((kind_source(beta_kind()),), torch.float32)
    code = nvrtc.load().compile(source.text(), "sm_90", cubins.OPTIONS).code
    assert len(code) > 10_000

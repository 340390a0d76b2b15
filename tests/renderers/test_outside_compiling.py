"""Compiling kinds from outside: mistakes are told with the user's line, what was made is kept by content."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from outside import BETA_HEADER, SETTINGS, a_camera, beta_kind, changed_beta, compiler_script, draw, some

from smalti.renderers.drawables import GaussianDrawable, RayGaussianDrawable
from smalti.renderers.engine import outside as engine_outside
from smalti.renderers.engine.library import EngineError, available
from smalti.renderers.engine.outside import KindError, compiled, find_compiler
from smalti.renderers.outside import OutsideDrawable, OutsideError, OutsideKind, find_outside
from smalti.renderers.render import render


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the user's."""
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path_factory.mktemp("cache")))


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
    """CXX notes every compilation and writes what no one loads here: what is kept, and when, is all that is asked."""
    notes = tmp_path / "notes"
    write = 'for made; do :; done; printf "%9000s" made > "$made"'  # the last argument follows -o
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, f"echo one >> {notes}\n{write}")))
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


PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from outside import beta_kind
from smalti.renderers.engine.outside import compiled
print(compiled(beta_kind(Path({header!r})), "double"))
"""


def a_process(folder: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """It compiles the kind in `folder` and says where that is."""
    import smalti

    code = PROCESS.format(tests=str(Path(__file__).parent), header=str(changed_beta(folder).path))
    paths = {"PYTHONPATH": str(Path(smalti.__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, env=os.environ | paths | (environment or {}), stdout=subprocess.PIPE, text=True)


def run(process: subprocess.Popen[str]) -> str:
    said = process.communicate()[0]
    assert process.returncode == 0
    return said.strip()


@pytest.mark.usefixtures("counting_compiler")
def test_processes_at_once(tmp_path: Path) -> None:
    running = [a_process(tmp_path) for _ in "ab"]
    first, second = (run(process) for process in running)
    assert first == second
    assert engine_outside._is_whole(Path(first))


def temporary(folder: Path) -> list[str]:
    """What lies below a folder for temporary files, libraries aside."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".so")


@pytest.mark.usefixtures("counting_compiler")
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    engine_outside._own_folder.cache_clear()
    path = compiled(changed_beta(tmp_path), "double")
    assert engine_outside._is_whole(path)
    assert "compiling kind 'beta' for double with" in caplog.text
    assert "set SMALTI_CACHE to a writable folder" in caplog.text
    assert temporary(tmp_path / "temporary") == [path.parent.name]
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, "exit 1")))
    with pytest.raises(KindError, match="does not compile"):
        compiled(changed_beta(tmp_path), "baseline")
    assert temporary(tmp_path / "temporary") == [path.parent.name]  # nothing of the failure is left
    engine_outside._own_folder.cache_clear()


@pytest.mark.usefixtures("counting_compiler")
def test_what_stands_in_for_the_cache_goes_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    environment = {"SMALTI_CACHE": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    said = run(a_process(tmp_path, environment))
    assert said.startswith(str(tmp_path / "temporary" / "smalti-kinds-"))
    assert list((tmp_path / "temporary").iterdir()) == []


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

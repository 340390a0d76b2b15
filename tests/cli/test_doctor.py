"""`smalti doctor`: complete, quick, and helpful where things are missing."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import pytest
import torch

from smalti.cli import doctor
from smalti.renderers.engine import library


def test_json_has_everything_and_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    seconds, code = [], 0
    for _ in range(3):  # the best of three: the machine may be busy
        capsys.readouterr()
        start = time.perf_counter()
        code = doctor.main(["--json"])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0
    findings = json.loads(capsys.readouterr().out)
    assert code == (0 if findings["used"]["backend"] else 2)
    assert findings["torch"]["version"] == torch.__version__
    assert [entry["name"] for entry in findings["backends"]] == ["cpu", "cuda", "gsplat", "oracle"]
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    # LPIPS is none: only its weights are wanted, not what they depend on.
    assert {entry["extra"] for entry in findings["extras"]} == {*extras} - {"test", "dev"} | {"lpips"}
    assert all(entry["installed"] or entry["remedy"] for entry in findings["extras"])
    assert [entry["name"] for entry in findings["engine"]["libraries"]] == ["avx512", "avx2", "baseline", "double"]


def test_text_names_what_is_used_and_the_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(library, "chosen", lambda: "avx2")
    monkeypatch.setattr(library, "processor_flags", lambda: frozenset(library.NEEDS["avx2"]))
    monkeypatch.setenv("COLUMNS", "300")
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "everything runs on the CPU (engine, avx2); cuda is not used: torch" in text
    assert "was built without CUDA" in text
    assert "Install a CUDA build of torch" in text
    assert "this processor lacks avx512bw" in text or "not built" in text


def test_without_any_library_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.delenv("SMALTI_ISA", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor.main(["--json"]) == 2
    findings = json.loads(capsys.readouterr().out)
    assert "reinstall smalti" in findings["engine"]["problem"]
    assert findings["used"]["text"].startswith("nothing fast can draw")

"""The entry point: the table of commands, near misses, exit codes, and that help is quick."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

import smalti
from smalti.cli import train
from smalti.cli.main import COMMANDS, main
from smalti.datasets.dataset import DatasetError


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and command.summary in text for name, command in COMMANDS.items())
    assert main([]) == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "smalti", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_demo_is_the_word_and_not_a_folder_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert train._absolute("demo") == "demo"
    assert train._absolute("./demo") == train._absolute("demo/") == str(tmp_path.resolve() / "demo")
    assert train._absolute("elsewhere") == "elsewhere"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"smalti {smalti.__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("chekc", "check"), ("docter", "doctor")])
def test_unknown_commands_name_the_near_miss(capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    assert main([typed]) == 2
    assert f"did you mean `smalti {meant}`" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_main(name: str) -> None:
    assert callable(importlib.import_module(COMMANDS[name].module).main)


def test_neither_help_nor_version_imports_torch() -> None:
    code = "import sys; from smalti.cli.main import main; main(['--help']); main(['--version'])"
    code += "; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DatasetError("a.bin", "image 3", "it is cut", "Copy it again"), 2, "a.bin: image 3: it is cut. Copy it again"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_expected_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setitem(sys.modules, COMMANDS["check"].module, types.SimpleNamespace(main=fail))
    assert main(["check"]) == code
    assert said in capsys.readouterr().err


def test_a_closed_pipe_is_no_failure() -> None:
    command = f"{shlex.quote(sys.executable)} -m smalti.cli.main train --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: smalti train")
    assert done.stderr == ""


def test_a_capture_without_its_option_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "gaussians", str(tmp_path)]) == 2
    assert f"the capture is given as --data {tmp_path}" in capsys.readouterr().err


def test_programming_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise ValueError("a bug")

    monkeypatch.setitem(sys.modules, COMMANDS["check"].module, types.SimpleNamespace(main=fail))
    with pytest.raises(ValueError, match="a bug"):
        main(["check"])

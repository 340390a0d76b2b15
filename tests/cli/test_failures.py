"""Which failures a command reports in a line, and which keep their traceback."""

from __future__ import annotations

import errno

import pytest

from smalti.cli.failures import UsageError, reported
from smalti.datasets.dataset import DatasetError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("no such thing"), "no such thing"),
        (DatasetError("a.json", "frame 1", "it is bad", "Mend it"), "a.json: frame 1: it is bad. Mend it"),
        (PermissionError(errno.EACCES, "Permission denied", "there/x.ply"), "there/x.ply: Permission denied. Check"),
        (OSError(errno.EROFS, "Read-only file system", "there/.x.ply.17.part"), "there: Read-only file system. Check"),
        (OSError(errno.EROFS, "Read-only file system", "there/.x.17.part.mp4"), "there: Read-only file system. Check"),
        (
            OSError(errno.ENOSPC, "It is full. Run: smalti train --resume a", "a/b"),
            "a/b: It is full. Run: smalti train",
        ),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "there is not enough memory"),
    ],
)
def test_expected_failures_are_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    @reported
    def main(argv: object) -> int:
        raise error

    assert main([]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"smalti: {said}")
    assert text.count("\n") == 1
    assert "resume" not in text or text.endswith("--resume a\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    @reported
    def main(argv: object) -> int:
        raise error

    with pytest.raises(type(error), match="a bug"):
        main([])

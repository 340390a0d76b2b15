"""What a command reports in one line instead of a traceback: bad data, missing files, missing back ends and weights."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

Main = Callable[[Sequence[str]], int]


def reported(main: Main) -> Main:
    """A command's `main` that prints expected failures as `smalti: ...` on stderr and returns 2."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
        try:
            return main(argv)
        except (ValueError, RuntimeError, OSError) as error:
            if not isinstance(error, _expected()):
                raise
            print(f"smalti: {error}", file=sys.stderr)
            return 2

    return wrapped


def _expected() -> tuple[type[Exception], ...]:
    """Collected only when something failed: these modules bring torch."""
    from smalti.configs.resolve import ConfigError
    from smalti.datasets.dataset import DatasetError
    from smalti.files.splats import FileFormatError
    from smalti.renderers.backends import BackendError
    from smalti.renderers.engine.library import EngineError
    from smalti.trainers.checkpoints import CheckpointError
    from smalti.trainers.lpips import LpipsUnavailable
    from smalti.trainers.pictures import VideoUnavailable

    files = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    missing = (BackendError, EngineError, LpipsUnavailable, VideoUnavailable)
    return (UsageError, ConfigError, DatasetError, FileFormatError, CheckpointError, *missing, *files)


class UsageError(ValueError):
    """A combination of arguments that means nothing, or a value out of range: what, and what to give instead."""

"""What a command reports in one line instead of a traceback: bad data, missing files, missing back ends and weights."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Main = Callable[[Sequence[str]], int]


def reported(main: Main) -> Main:
    """A command's `main` that prints expected failures as `smalti: ...` on stderr and returns 2."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return 141  # as a shell counts SIGPIPE
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            text = _text(error)
            if not text:
                raise
            print(f"smalti: {text}", file=sys.stderr)
            return 2

    return wrapped


def _text(error: Exception) -> str:
    """What to say about an expected failure; empty for any other, which deserves its traceback."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        # Files are written under a hidden name first; what the user named is their folder.
        path = Path(error.filename)
        where = path.parent if path.name.startswith(".") and ".part" in path.name else path
        if error.strerror != os.strerror(error.errno or 0):
            return f"{where}: {error.strerror}"  # whoever raised it has put the remedy there
        return f"{where}: {error.strerror}. Check the path, its permissions and the space left"
    if isinstance(error, _expected()):
        return str(error)
    memory = isinstance(error, MemoryError) or any(word in str(error) for word in ("allocate memory", "out of memory"))
    return f"there is not enough memory ({error}). Ask for fewer pixels or primitives" if memory else ""


def _expected() -> tuple[type[Exception], ...]:
    """Collected only when something failed: these modules bring torch."""
    from smalti.configs.resolve import ConfigError
    from smalti.datasets.dataset import DatasetError
    from smalti.files.splats import FileFormatError
    from smalti.primitives.family import FamilyError
    from smalti.renderers.backends import BackendError
    from smalti.renderers.engine.library import EngineError
    from smalti.trainers.checkpoints import CheckpointError
    from smalti.trainers.lpips import LpipsUnavailable
    from smalti.trainers.pictures import VideoUnavailable

    bad = (UsageError, ConfigError, DatasetError, FamilyError, FileFormatError, CheckpointError)
    missing = (BackendError, EngineError, LpipsUnavailable, VideoUnavailable)
    return (*bad, *missing, OSError)


class UsageError(ValueError):
    """A combination of arguments that means nothing, or a value out of range: what, and what to give instead."""

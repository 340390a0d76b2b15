"""Compiled kernels: from the user's cache, else from NVRTC, which takes seconds once per machine and version."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from smalti.renderers.engine import nvrtc
from smalti.renderers.engine.kernel_source import INCLUDE, KernelSource

# Contraction is off as on the CPU: forward and backward must round alike, so fused operations are written out.
OPTIONS = ("--std=c++17", "--fmad=false", f"--include-path={INCLUDE}")
_MARK = b"smalti-cubin-1\n"

_log = logging.getLogger("smalti.cuda")


def cache_folder() -> Path:
    """$SMALTI_CACHE, else $XDG_CACHE_HOME/smalti, else ~/.cache/smalti; `cuda` below it. Not created here."""
    given = os.environ.get("SMALTI_CACHE")
    if given:
        return Path(given) / "cuda"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smalti" / "cuda"


def cubin_for(source: KernelSource, capability: int, *, fresh: bool = False) -> bytes:
    """Machine code of `source` for a device of compute capability `capability` (90 for 9.0).

    The cache's key is the text, the target, the options and NVRTC's version. An entry that cannot be read is compiled
    anew, as are all with `fresh`; a cache that cannot be written is done without.
    """
    compiler = nvrtc.load()
    target = compiler.target(capability)
    options = [option.replace(str(INCLUDE), "") for option in OPTIONS]
    words = [source.digest(), target, compiler.version, *options]
    path = cache_folder() / f"{target}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:40]}.cubin"

    def build() -> bytes:
        # Warnings are shown where no logging is set up: this line explains a pause of seconds.
        _log.warning(
            "compiling CUDA kernels for %s with NVRTC %s (once; kept in %s)", target, compiler.version, path.parent
        )
        return compiler.compile(source.text(), target, OPTIONS).code

    return build_and_store(path, build) if fresh else cached(path, build)


def cached(path: Path, build: Callable[[], bytes]) -> bytes:
    """Contents of the entry at `path`, else of `build()`, stored there."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    head = len(_MARK) + 32
    body = content[head:]
    if content.startswith(_MARK) and content[len(_MARK) : head] == hashlib.sha256(body).digest():
        return body
    return build_and_store(path, build)


def build_and_store(path: Path, build: Callable[[], bytes]) -> bytes:
    """`build()`, written to `path` as a whole or not at all: several processes may do this at once."""
    body = build()
    scratch = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(_MARK + hashlib.sha256(body).digest() + body)
        os.replace(scratch, path)
    except OSError as error:
        if scratch:
            Path(scratch).unlink(missing_ok=True)
        _log.warning(
            "the compiled kernels could not be kept in %s (%s); set SMALTI_CACHE to a writable folder",
            path.parent,
            error,
        )
    return body

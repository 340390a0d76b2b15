"""Kinds from outside, compiled when they are first drawn: a few lines of C++ around the user's header, made with the
engine's own flags for the library in use, kept in the user's cache by content, and loaded beside the engine.

Kinds that are built in never come here.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from smalti.renderers.engine.cubins import cache_folder
from smalti.renderers.engine.flags import FLAGS, variants
from smalti.renderers.engine.library import EngineError
from smalti.renderers.outside import OutsideKind, header_digest

INCLUDE = Path(__file__).parent / "include"
REMEDY = "install g++, or `pip install ziglang`, or name a C++17 compiler in the environment variable CXX"
SHOWN = 25
"""Lines of the compiler's words in an error."""
_MARK = b"smalti-kind-1"

_log = logging.getLogger("smalti.kinds")
_lock = threading.Lock()
_loaded: dict[tuple[Path, str, str], tuple[Any, int]] = {}  # by header, unit and library


class KindError(EngineError):
    """A kind from outside could not be compiled or loaded; with the compiler's first error and the user's line."""


def outside_table(kind: OutsideKind, library: SimpleNamespace) -> int:
    """Address of `kind`'s table of functions for the engine's `library`; compiles it where the cache has none.

    Raises KindError where the header is wrong, where there is no compiler, and for a table of another version.
    """
    key = (kind.path, unit(kind, kind.path.name), library.name)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(kind, library, compiled(kind, library.name))
        return _loaded[key][1]


def compiled(kind: OutsideKind, name: str) -> Path:
    """The shared library of `kind` for the engine's library `name`, from the cache or compiled now."""
    if not kind.path.is_file():
        raise KindError(f"kind {kind.name!r}: there is no header {kind.path}; is its package installed whole?")
    compiler = find_compiler()
    flags = compiler_flags(name, zig="ziglang" in compiler)
    # Where the header lies is no part of its content.
    words = [
        unit(kind, kind.path.name),
        header_digest(kind.path),
        _digest(tuple(sorted(INCLUDE.rglob("*.h")))),
        *flags,
    ]
    words += [" ".join(compiler), _version(tuple(compiler))]
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]
    path = cache_folder().parent / "kinds" / f"{kind.name}-{name}-{key}.so"
    if _is_whole(path):
        return path
    # Warnings are shown where no logging is set up: this line explains a pause of seconds.
    _log.warning("compiling kind %r for %s with %s (once; kept in %s)", kind.name, name, compiler[0], path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent, prefix="making-")
    except OSError as error:
        _log.warning("%s cannot be written (%s); set SMALTI_CACHE to a writable folder", path.parent, error)
        path = _own_folder(os.getpid()) / path.name
        folder = tempfile.mkdtemp(dir=path.parent, prefix="making-")
    try:
        source, made = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
        source.write_text(unit(kind, str(kind.path)))
        command = [*compiler, *flags, f"-I{INCLUDE}", f"-I{kind.path.parent}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not made.is_file():
            raise KindError(complaint(kind, done.stdout + done.stderr))
        with made.open("ab") as file:
            file.write(hashlib.sha256(made.read_bytes()).digest() + _MARK)
        os.replace(made, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


@cache
def _own_folder(process: int) -> Path:
    """What stands in for a cache that cannot be written; gone when this process ends. A fork has one of its own."""
    folder = tempfile.mkdtemp(prefix="smalti-kinds-")

    def remove() -> None:
        if os.getpid() == process:  # not what a fork inherited
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


def unit(kind: OutsideKind, header: str) -> str:
    """The translation unit around the user's header."""
    said = f"what Python says of kind {kind.name}"
    return f"""#include "kinds/outside_table.h"
#include {_quoted(header)}
static_assert({kind.struct}::kParameters == {kind.width}, "kParameters differs from {said}: {kind.width}");
static_assert({kind.struct}::kThick == {str(kind.thick).lower()}, "kThick differs from {said}: {kind.thick}");
#define SMALTI_API extern "C" __attribute__((visibility("default")))
SMALTI_API int smalti_outside_version() {{ return smalti::kKindVersion; }}
SMALTI_API int smalti_outside_real_size() {{ return (int)sizeof(smalti::real); }}
SMALTI_API const smalti::ExactKind* smalti_outside_kind(const smalti::OutsideCalls* calls) {{
    smalti::bound_calls() = calls;
    return &smalti::outside_kind<{kind.struct}>("{kind.name}");
}}
"""


def find_compiler() -> list[str]:
    """The command of a C++ compiler: $CXX, else g++, else c++, else the wheel `ziglang`. KindError without one."""
    given = shlex.split(os.environ.get("CXX", ""))
    if given:
        if not shutil.which(given[0]):
            raise KindError(f"the compiler that CXX names, {given[0]!r}, does not exist; {REMEDY}")
        return given
    for name in ("g++", "c++"):
        found = shutil.which(name)
        if found:
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++"]
    raise KindError(f"a kind from outside needs a C++ compiler, and there is none here: {REMEDY}")


def compiler_flags(name: str, zig: bool) -> list[str]:
    """Those of the engine's library `name`; zig writes processors in its own way and links its own C++ library."""
    flags = [*FLAGS, *variants(platform.machine())[name]]
    if not zig:
        return flags
    known = [flag for flag in flags if not flag.startswith(("-static-", "-Wno-maybe"))]
    return [flag.replace("-", "_").replace("_march=", "-march=") if "-march=" in flag else flag for flag in known]


def complaint(kind: OutsideKind, words: str) -> str:
    """The compiler's first error, with the first line of the user's that it speaks of, and its own words below."""
    lines = words.splitlines()
    wrong = re.compile(r"^(.*?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$")
    first = next((k for k, line in enumerate(lines) if wrong.match(line)), None)
    folder = str(kind.path.parent)
    if first is None:
        what = f"the compiler failed: {lines[-1] if lines else 'it said nothing'}"
    else:
        found = wrong.match(lines[first])
        assert found is not None
        file, line, message = found.groups()
        what = f"{file}:{line}: {message}"
        if not file.startswith(folder):
            # An error within our headers: the user's line is among what led there, or in the notes below.
            mention = re.compile(rf"({re.escape(folder)}/[^:\s]+):(\d+)")
            ways = [
                match
                for text in [*lines[max(0, first - 8) : first], *lines[first:]]
                for match in mention.finditer(text)
            ]
            if ways:
                what = f"{ways[0].group(1)}:{ways[0].group(2)}: {message} (in {Path(file).name}, line {line})"
    shown = lines[max(0, (first or 0) - 3) :][:SHOWN]
    return f"kind {kind.name!r} does not compile. First error:\n{what}\n\nThe compiler's own words:\n" + "\n".join(
        shown
    )


def _load(kind: OutsideKind, library: SimpleNamespace, path: Path) -> tuple[Any, int]:
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise KindError(f"kind {kind.name!r}: cannot load {path}: {error}") from error
    version = library.lib.smalti_exact_kind_version()
    if (found.smalti_outside_version(), found.smalti_outside_real_size()) != (version, ctypes.sizeof(library.real)):
        raise KindError(
            f"kind {kind.name!r}: the engine's library was built from other headers than this package has; reinstall "
            "smalti, or in a source tree run build_engine.py"
        )
    library.lib.smalti_outside_calls.restype = found.smalti_outside_kind.restype = ctypes.c_void_p
    return found, found.smalti_outside_kind(ctypes.c_void_p(library.lib.smalti_outside_calls()))


def _is_whole(path: Path) -> bool:
    """Whether the cache holds this entry, sealed and not damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    tail = len(_MARK) + 32
    body, seal = content[:-tail], content[-tail : -len(_MARK)]
    return content.endswith(_MARK) and hashlib.sha256(body).digest() == seal


def _digest(files: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


@cache
def _version(compiler: tuple[str, ...]) -> str:
    """What the compiler says of itself."""
    if "ziglang" in compiler:
        from importlib.metadata import version

        return version("ziglang")
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


def _quoted(text: str) -> str:
    """As a C++ string, but for what no path should hold. KindError for that."""
    if any(letter in text for letter in '"\\\n'):
        raise KindError(f"the header's path {text!r} cannot be written in C++; move it")
    return f'"{text}"'

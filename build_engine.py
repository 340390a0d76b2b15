"""Hatchling build hook: compiles the engine, one torch-free shared library per instruction set.

`pip install .` therefore needs a C++17 compiler ($CXX, else g++); an installed wheel needs none.
The libraries land in `smalti/renderers/engine/lib/`, which git ignores; an editable install uses them in place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run as a script: it compiles, and builds no wheel
    BuildHookInterface: Any = object

ENGINE = Path("smalti/renderers/engine")

_flags = run_path(str(Path(__file__).parent / ENGINE / "flags.py"))
FLAGS, variants = _flags["FLAGS"], _flags["variants"]


def compile_engine(root: Path) -> list[Path]:
    """Compile every variant below `root` that is older than its sources; returns all libraries.

    Raises RuntimeError with the compiler's own words. Delete `lib/` to compile with another compiler.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        raise RuntimeError(
            "building smalti from source needs a C++17 compiler: install g++ or set CXX (a wheel needs none)"
        )
    source = root / ENGINE
    folder = source / "lib"
    folder.mkdir(exist_ok=True)
    texts = [
        Path(__file__),
        source / "flags.py",
        *(path for part in ("include", "cpu") for path in (source / part).rglob("*") if path.is_file()),
    ]
    changed = max(path.stat().st_mtime for path in texts)

    def build(name: str, flags: list[str]) -> Path:
        target = folder / f"smalti_{name}.so"
        if target.exists() and target.stat().st_mtime > changed:
            return target
        scratch = target.with_suffix(f".{os.getpid()}.tmp")  # so that a process using the old one is not disturbed
        command = [
            compiler,
            *FLAGS,
            *flags,
            f"-I{source / 'include'}",
            str(source / "cpu" / "engine.cpp"),
            "-o",
            str(scratch),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"compiling the {name} engine failed:\n{' '.join(command)}\n{done.stderr}")
        os.replace(scratch, target)
        return target

    import platform

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda item: build(*item), variants(platform.machine()).items()))


class EngineBuildHook(BuildHookInterface):
    """Adds the compiled libraries to the wheel and marks it as one wheel for every Python 3 of this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        libraries = compile_engine(Path(self.root))
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in libraries]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


if __name__ == "__main__":
    for path in compile_engine(Path(__file__).parent):
        print(path)

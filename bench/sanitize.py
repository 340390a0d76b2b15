"""The CPU engine under the address and undefined-behaviour sanitizers: `python bench/sanitize.py [pytest arguments]`.

Compiles the engine with -fsanitize=address,undefined into a temporary folder and runs renderer tests over it (one
library per run; `--isa` names it). With `--scenes N` it runs `bench/fuzz.py` over N scenes of hostile numbers of every
kind instead, from `--seed` on. A fault ends the run with the sanitizer's report. Needs g++ with its sanitizers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from build_engine import ENGINE, FLAGS, variants  # noqa: E402

TESTS = ["test_degenerate.py", "test_backends.py", "test_same_events.py", "test_engine.py"]
# A plug-in rather than an option: the folder must be replaced before tests ask which libraries there are.
PLUGIN = """
from pathlib import Path
from smalti.renderers.engine import library
library.FOLDER = Path(__file__).parent
"""
FUZZ = "import runpy, sys, sanitized_engine; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default="avx2", help="avx512, avx2, baseline or double")
    parser.add_argument("--scenes", type=int, default=0, help="fuzz so many scenes instead of running tests")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    arguments, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = [flag for flag in FLAGS if flag not in ("-O3", "-static-libstdc++", "-static-libgcc")]
        flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        flags += variants("x86_64")[arguments.isa]
        source, target = ROOT / ENGINE, folder / f"smalti_{arguments.isa}.so"
        command = ["g++", *flags, f"-I{source / 'include'}", str(source / "cpu" / "engine.cpp"), "-o", str(target)]
        subprocess.run(command, check=True)
        (folder / "sanitized_engine.py").write_text(PLUGIN)
        runtimes = [
            subprocess.check_output(["g++", f"-print-file-name={lib}"], text=True).strip()
            for lib in ("libasan.so", "libubsan.so", "libstdc++.so.6")
        ]
        environment = {
            **os.environ,
            "LD_PRELOAD": ":".join(runtimes),
            # Python leaves memory to the end of the process; only wrong accesses are looked for.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": os.pathsep.join([name, str(ROOT)]),
        }
        if arguments.scenes:
            precision = "double" if arguments.isa == "double" else "single"
            run = [sys.executable, "-c", FUZZ, str(ROOT / "bench" / "fuzz.py"), "--precision", precision]
            run += ["--scenes", str(arguments.scenes), "--seed", str(arguments.seed), *more]
            raise SystemExit(subprocess.run(run, env=environment, cwd=ROOT).returncode)
        tests = [argument for argument in more if not argument.startswith("-")]
        run = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "sanitized_engine", "-p", "no:cacheprovider"]
        run += [*(() if tests else [str(ROOT / "tests" / "renderers" / test) for test in TESTS]), *more]
        run += [] if "-k" in more else ["-k", arguments.isa]
        raise SystemExit(subprocess.run(run, env=environment, cwd=ROOT).returncode)


if __name__ == "__main__":
    main()

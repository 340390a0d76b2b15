"""Everything there is to run on a CUDA device, unattended, without a network: `python bench/device.py --out FOLDER`.

Builds the engine's libraries (`python build_engine.py`, needs g++), times renders, runs the tests that need a device,
trains the demo for 500 steps on the device and on the CPU, times gsplat where that is installed, and last runs the
kernels under compute-sanitizer where there is one. A part that fails is recorded and the others go on. Leaves
FOLDER/device.json and FOLDER/device.md, and puts the table into docs/benchmarks.md. Needs an environment with torch,
pytest and the dependencies of pyproject.toml; the package itself is taken from this folder. With `--device cpu` it
rehearses itself where there is no device; the document is left alone then.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BEGIN, END = "<!-- device: begin -->", "<!-- device: end -->"


def run(command: list[str], seconds: float, under: Sequence[str] = ()) -> tuple[int, str]:
    """Exit code and output of a Python command in the repository, with this package on the path; `under` runs it."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
    try:
        done = subprocess.run(
            [*under, sys.executable, *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        return 124, f"{said}\nstopped after {seconds:.0f} s"
    return done.returncode, done.stdout


def require(code: int, output: str) -> str:
    """The output; RuntimeError with its end where the command failed."""
    if code:
        raise RuntimeError(f"exit code {code}: {output[-3000:]}")
    return output


def build() -> dict[str, Any]:
    """The CPU libraries."""
    return {"libraries": [Path(line).name for line in require(*run(["build_engine.py"], 600)).split()]}


def facts(device: str) -> dict[str, Any]:
    """What this ran on."""
    import torch

    from smalti.renderers.engine import nvrtc

    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", *sys.argv]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor_cores": os.cpu_count(),
    }
    code, revision = -1, ""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        code, revision = done.returncode, done.stdout.strip()
    except OSError:
        pass
    found["revision"] = revision if code == 0 else "unknown"
    if device == "cuda":
        from smalti.renderers.backends import choose

        choose("cuda", "cuda")  # a BackendError names what is missing
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["memory_gigabytes"] = round(properties.total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
        # gsplat compiles itself at first use: for this device alone.
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", found["compute_capability"])
        found["nvrtc"] = f"{nvrtc.load().version} ({nvrtc.load().path.name})"
    return found


def tests(device: str) -> dict[str, Any]:
    """Tests that touch the device; on the CPU the emulator's share of them."""
    words = "cuda" if device == "cuda" else "emulator-float32 and small"
    code, output = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/renderers", "-k", words], 1500)
    lines = output.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    found = {"result": lines[-1] if lines else "", "exit_code": code, "failed": failed}
    if code:
        found["output"] = output[-8000:]
    return found


def training(device: str, steps: int, folder: Path) -> dict[str, Any]:
    """The demo, shortened to `steps` steps, on `device`: held-out PSNR, wall-clock seconds of the training alone."""
    path = folder / f"train-{device}-{datetime.now(UTC):%H%M%S}"
    preset = (ROOT / "smalti" / "configs" / "demo.yaml").read_text()
    whole = int(re.findall(r"^  steps: (\d+)", preset, re.MULTILINE)[0])
    options = ["--stretch", str(steps / whole), "--device", device, "--finish", "[]", "--out", str(path)]
    require(*run(["-m", "smalti.cli.main", "train", "demo", *options], 1500))
    scores = require(*run(["-m", "smalti.cli.main", "eval", str(path), "--device", device, "--json"], 600))
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record.get("kind") == "train"][-1]
    mean = json.loads(next(line for line in scores.splitlines() if line.startswith("{")))["mean"]
    names = ("step", "loss", "primitives", "wall_seconds", "cpu_seconds")
    return {**{name: last[name] for name in names}, "psnr": mean["psnr"], "ssim": mean["ssim"]}


def renders(device: str, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of device_render.measure."""
    import device_render

    names = device_render.QUICK if quick else device_render.CASES
    return [device_render.measure(name, device, repeats) for name in names]


def gsplat(repeats: int, quick: bool) -> dict[str, Any]:
    """By case: gsplat's times in a process of their own, or why there are none."""
    import device_render

    names = device_render.QUICK if quick else device_render.CASES
    if find_spec("gsplat") is None:
        return {name: {"missing": "gsplat is not installed"} for name in names}
    found: dict[str, Any] = {}
    for name in names:
        code, output = run(["bench/device_render.py", "gsplat", name, str(repeats)], 400)
        lines = [line for line in output.splitlines() if line.startswith("{")]
        found[name] = json.loads(lines[-1]) if code == 0 and lines else {"missing": output.strip()[-600:]}
        if code:
            break  # what failed once, or was compiling still, will not do better
    return found


def checked(device: str) -> dict[str, Any]:
    """Every kernel under compute-sanitizer, where that is installed and works: bad accesses, races, barriers."""
    draw = ["bench/device_render.py", "draw", device]
    found: dict[str, Any] = {"plain": require(*run(draw, 200)).strip().splitlines()[-1]}
    program = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck", "synccheck") if program and device == "cuda" else ():
        code, output = run(draw, 240, [str(program), "--tool", tool, "--error-exitcode", "9"])
        found[tool] = {"exit_code": code, "output": output.strip()[-1500:]}
    return found


def guarded(report: dict[str, Any], name: str, part: Callable[[], Any]) -> None:
    """Run one part; what it raises becomes its result."""
    start = time.perf_counter()
    print(f"--- {name}", flush=True)
    try:
        report[name] = part()
    except Exception as error:
        report[name] = {
            "error": f"{type(error).__name__}: {error}"[-3500:],
            "traceback": traceback.format_exc()[-3000:],
        }
        report["failed"].append(name)
    print(f"    {time.perf_counter() - start:.1f} s: {json.dumps(report[name])[:1500]}", flush=True)


def pair(times: dict[str, float] | None) -> str:
    """Forward, backward, sum."""
    if not times or "forward" not in times:
        return "-"
    return f"{times['forward']:.2f} + {times['backward']:.2f} = {times['forward'] + times['backward']:.2f}"


def markdown(report: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    found = report.get("facts", {})
    on = f"{found.get('device', 'CPU')} ({found.get('cuda', 'no')} CUDA, torch {found.get('torch')})"
    lines = [
        "## On a device",
        "",
        f"{found.get('date')}, {on}, revision {found.get('revision')}: `{found.get('command')}`",
        "",
    ]
    outcome = report.get("tests", {})
    lines += [f"Tests: {outcome.get('result', outcome.get('error', 'not run'))}", ""]
    peer: dict[str, Any] = report.get("gsplat", {})
    if isinstance(report.get("renders"), list):
        lines += ["Milliseconds of one render, forward + backward = sum (medians, projection to picture and back):", ""]
        lines += ["| scene | tile entries | Smalti | deterministic | gsplat | Smalti, CPU | picture against CPU |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for row in report["renders"]:
            cells = [row["case"], f"{row['intersections']:,}", pair(row["ours"]), pair(row.get("ours_deterministic"))]
            cells += [pair(peer.get(row["case"])), pair(row["cpu"]), f"{row['distance_to_cpu']['picture']:.1e}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", "Milliseconds per kernel:", ""]
        for row in report["renders"]:
            parts = ", ".join(f"{kernel} {value:.3f}" for kernel, value in row.get("kernels", {}).items())
            lines.append(f"- {row['case']}: {parts or 'no device'}")
        lines.append("")
    tools = report.get("memory checker", {})
    said = [
        f"{name} {'clean' if t['exit_code'] == 0 else 'not clean'}" for name, t in tools.items() if isinstance(t, dict)
    ]
    lines += [f"compute-sanitizer: {', '.join(said) or 'not run'}", ""]
    rows = [(name, report[name]) for name in ("training on the device", "training on the CPU") if name in report]
    if rows:
        lines += ["The demo, trained:", "", "| | steps | primitives | PSNR | SSIM | wall seconds |", "| --- " * 6 + "|"]
        for name, row in rows:
            if "error" in row:
                lines.append(f"| {name} | failed: {row['error'].splitlines()[0][:120]} | | | | |")
            else:
                cells = [name, row["step"], row["primitives"], f"{row['psnr']:.2f}", f"{row['ssim']:.4f}"]
                lines.append(f"| {' | '.join(map(str, cells))} | {row['wall_seconds']:.1f} |")
    return "\n".join(lines).rstrip() + "\n"


def put_into_document(section: str) -> None:
    """Between the marks of docs/benchmarks.md, which are added where they are missing."""
    path = ROOT / "docs" / "benchmarks.md"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    head, rest = text.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n{section}{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def main() -> int:
    """0 where everything ran and the tests passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "device", help="folder for results and runs")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a tiny scene in place of the large ones")
    parser.add_argument(
        "--skip", nargs="*", default=[], help="parts to leave out: build renders tests training gsplat checker"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"failed": []}
    device = arguments.device
    parts: list[tuple[str, str, Callable[[], Any]]] = [
        ("build", "build", build),
        ("facts", "facts", lambda: facts(device)),
        ("renders", "renders", lambda: renders(device, arguments.repeats, arguments.quick)),
        ("tests", "tests", lambda: tests(device)),
        ("training", "training on the device", lambda: training(device, arguments.steps, arguments.out)),
        ("training", "training on the CPU", lambda: training("cpu", arguments.steps, arguments.out)),
        ("gsplat", "gsplat", lambda: gsplat(arguments.repeats, arguments.quick)),
        ("checker", "memory checker", lambda: checked(device)),
    ]
    for group, name, part in parts:
        if group not in arguments.skip:
            guarded(report, name, part)
            # After every part: what was measured stays, whatever happens to the rest.
            (arguments.out / "device.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    section = markdown(report)
    (arguments.out / "device.md").write_text(section, encoding="utf-8")
    if device == "cuda" and "error" not in report.get("facts", {}):
        put_into_document(section)
    print(f"\n{section}\n{'failed: ' + ', '.join(report['failed']) if report['failed'] else 'all parts ran'}")
    return 1 if report["failed"] or report.get("tests", {}).get("exit_code") else 0


if __name__ == "__main__":
    sys.exit(main())

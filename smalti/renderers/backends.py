"""Which back ends this machine has, which one a render uses, and what to do about the others.

Asking never imports gsplat, starts no compiler and creates no CUDA context.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

NAMES = ("cpu", "cuda", "gsplat", "oracle")


class BackendError(RuntimeError):
    """A back end was asked for that cannot be used; the message names what is missing and the remedy."""


@dataclass(frozen=True)
class BackendStatus:
    """One back end on this machine."""

    name: str
    available: bool
    version: str
    """Library and version where they could be told, else empty."""
    reason: str
    """Why it can or cannot be used, in a sentence."""
    remedy: str = ""
    """What to do where it cannot."""


def backend_statuses() -> tuple[BackendStatus, ...]:
    """The state of every back end, in the order cpu, cuda, gsplat, oracle."""
    return cpu_status(), cuda_status(), gsplat_status(), oracle_status()


def choose(requested: str = "auto", device: torch.device | str = "cpu") -> str:
    """The back end for tensors on `device`: the device's own for `auto`, else the one that is requested.

    Raises BackendError, within a second, where it is unknown, unavailable, or cannot read tensors of that device.
    """
    kind = torch.device(device).type
    if requested == "auto":
        if kind not in ("cpu", "cuda"):
            raise BackendError(f"no back end draws tensors on the device {kind!r}. Move the scene to cpu or cuda")
        requested = kind
    if requested not in NAMES:
        raise BackendError(f"unknown back end {requested!r}. Choose one of auto, {', '.join(NAMES)}")
    probes = {"cpu": cpu_status, "cuda": cuda_status, "gsplat": gsplat_status, "oracle": oracle_status}
    status = probes[requested]()
    if not status.available:
        raise BackendError(f"the back end {requested!r} cannot be used: {status.reason}. {status.remedy}")
    wanted = {"cpu": "cpu", "cuda": "cuda", "gsplat": "cuda"}.get(requested, kind)
    if kind != wanted:
        raise BackendError(
            f"the back end {requested!r} draws tensors on {wanted}, but these are on {kind}. Move the scene with "
            f"`.to({wanted!r})` or choose the back end {kind!r}"
        )
    return requested


def cpu_status() -> BackendStatus:
    """The native engine on the CPU."""
    from smalti.renderers.engine import library

    try:
        name = library.chosen()
    except library.EngineError as error:
        remedy = "Install the wheel again (`pip install --force-reinstall smalti`), or unset SMALTI_ISA"
        return BackendStatus("cpu", False, "", _sentence(error), remedy)
    return BackendStatus("cpu", True, f"engine, {name}", f"the library for {name} is built and this processor runs it")


def cuda_status() -> BackendStatus:
    """The same engine on CUDA, compiled by NVRTC at first use."""
    built = torch.version.cuda
    if built is None:
        remedy = (
            "Install a CUDA build of torch (https://pytorch.org/get-started/locally), on a machine with an NVIDIA GPU"
        )
        return BackendStatus("cuda", False, "", f"torch {torch.__version__} was built without CUDA", remedy)
    version = f"CUDA {built}"
    if not torch.cuda.is_available():
        driver = driver_version()
        if driver is None:
            reason, remedy = "no NVIDIA driver was found", "Install the driver of your GPU, or run on the CPU"
        else:
            reason = f"the driver {driver} offers no device to torch built for CUDA {built}"
            remedy = "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES; update the driver if it is older than torch's CUDA"
        return BackendStatus("cuda", False, version, reason, remedy)
    if not cuda_engine_present():
        return BackendStatus("cuda", False, version, "this installation has no CUDA engine", "Install smalti again")
    nvrtc = nvrtc_library()
    if nvrtc is None:
        package = "nvidia-cuda-nvrtc" if int(built.split(".")[0]) >= 13 else "nvidia-cuda-nvrtc-cu12"
        remedy = f"Install it: pip install {package} (the extra `smalti[cuda]`)"
        return BackendStatus("cuda", False, version, "the run-time compiler NVRTC was not found", remedy)
    device = torch.cuda.get_device_name(0)
    return BackendStatus("cuda", True, version, f"{device}; kernels are compiled at first use by {nvrtc.name}")


def gsplat_status() -> BackendStatus:
    """The package gsplat: found by its metadata alone, because importing its CUDA part may start a compiler."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("gsplat")
    except PackageNotFoundError:
        remedy = "Install it if you want it beside ours: pip install 'smalti[gsplat]'"
        return BackendStatus("gsplat", False, "", "the package gsplat is not installed", remedy)
    if not torch.cuda.is_available():
        return BackendStatus(
            "gsplat", False, found, "it draws on CUDA only, which is not available", cuda_status().remedy
        )
    return BackendStatus("gsplat", True, found, "draws scenes of Gaussians alone, on CUDA")


def oracle_status() -> BackendStatus:
    """The specification in plain torch."""
    return BackendStatus(
        "oracle", True, f"torch {torch.__version__}", "plain torch: the judge in tests, slow by design"
    )


def cuda_engine_present() -> bool:
    """True where the Python side of the CUDA engine is part of this installation."""
    return (Path(__file__).parent / "engine" / "cuda.py").is_file()


def nvrtc_library() -> Path | None:
    """NVRTC's shared library, or None; nothing is loaded."""
    from smalti.renderers.engine import nvrtc

    return nvrtc.find()


def driver_version() -> str | None:
    """The NVIDIA kernel driver's version, or None where it is not loaded."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
    except OSError:
        return None
    numbers = [word for word in words if word[0].isdigit() and "." in word]
    return numbers[0] if numbers else "of unknown version"


def _sentence(error: Exception) -> str:
    return str(error).rstrip(". ")

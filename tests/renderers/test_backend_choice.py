"""The choice of a back end: what is reported, and how quickly and clearly an impossible wish fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from smalti.renderers import backends
from smalti.renderers.backends import BackendError, backend_statuses, choose, nvrtc_library
from smalti.renderers.engine import library


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def with_cuda(monkeypatch: pytest.MonkeyPatch, version: str = "13.0") -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k: "Test GPU")
    monkeypatch.setattr(backends, "cuda_engine_present", lambda: True)


def test_every_backend_is_reported_once_with_reason_and_remedy() -> None:
    statuses = backend_statuses()
    assert [status.name for status in statuses] == ["cpu", "cuda", "gsplat", "oracle"]
    for status in statuses:
        assert status.reason
        assert status.available or status.remedy


def test_forced_cuda_without_cuda_fails_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.perf_counter()
        with pytest.raises(BackendError, match=r"'cuda' cannot be used: torch .* was built without CUDA\. Install"):
            choose("cuda", "cpu")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_asking_starts_no_process_and_imports_no_gsplat() -> None:
    """In a fresh interpreter, with every way to start a compiler closed."""
    program = """
import subprocess, os, sys, time
import torch
def refuse(*a, **k): raise AssertionError("a process was started")
subprocess.Popen.__init__ = refuse; os.system = refuse; os.posix_spawn = refuse; os.fork = refuse
start = time.process_time()
from smalti.renderers.backends import backend_statuses, choose, BackendError
backend_statuses()
for name in ("cuda", "gsplat"):
    try: choose(name, "cpu")
    except BackendError as error: print(error)
assert "gsplat" not in sys.modules
assert time.process_time() - start < 1.0, "slow"
"""
    root = Path(backends.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_auto_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "chosen", lambda: "avx2")
    assert choose("auto", "cpu") == "cpu"
    with_cuda(monkeypatch)
    monkeypatch.setattr(backends, "nvrtc_library", lambda: Path("libnvrtc.so.13"))
    assert choose("auto", "cuda:1") == "cuda"
    assert choose("oracle", "cuda") == "oracle"
    with pytest.raises(BackendError, match="on cuda, but these are on cpu"):
        choose("cuda", "cpu")
    with pytest.raises(BackendError, match="on cpu, but these are on cuda"):
        choose("cpu", "cuda")
    with pytest.raises(BackendError, match="'meta'"):
        choose("auto", "meta")
    with pytest.raises(BackendError, match="Choose one of auto, cpu"):
        choose("vulkan", "cpu")


@pytest.mark.parametrize(("version", "package"), [("13.0", "nvidia-cuda-nvrtc "), ("12.8", "nvidia-cuda-nvrtc-cu12 ")])
def test_a_missing_nvrtc_is_named(monkeypatch: pytest.MonkeyPatch, version: str, package: str) -> None:
    with_cuda(monkeypatch, version)
    monkeypatch.setattr(backends, "nvrtc_library", lambda: None)
    status = backends.cuda_status()
    assert not status.available
    assert "NVRTC" in status.reason
    assert package in status.remedy


@pytest.mark.parametrize(
    ("driver", "text"), [(None, "no NVIDIA driver"), ("570.1", "the driver 570.1 offers no device")]
)
def test_a_missing_driver_is_told_from_a_hidden_device(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, text: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backends, "driver_version", lambda: driver)
    assert text in backends.cuda_status().reason


def test_a_missing_engine_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.delenv("SMALTI_ISA", raising=False)
    with pytest.raises(BackendError, match="'cpu' cannot be used: no engine library in"):
        choose("auto", "cpu")


@pytest.mark.parametrize("layout", ["nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"])
def test_nvrtc_is_found_in_both_layouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layout: str) -> None:
    path = tmp_path / layout
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    (path.parent / "libnvrtc-builtins.so.13.0").write_bytes(b"")
    monkeypatch.delenv("SMALTI_NVRTC", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert nvrtc_library() == path


def test_looking_for_nvrtc_in_vain_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.delenv("SMALTI_NVRTC", raising=False)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    assert nvrtc_library() is None

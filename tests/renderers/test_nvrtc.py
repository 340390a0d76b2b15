"""The CUDA text: compiled for every architecture that the project promises, cached, and found. No GPU is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smalti.renderers.backends import BackendError
from smalti.renderers.engine import cubins, nvrtc
from smalti.renderers.engine.kernel_source import (
    ALL_VARIANTS,
    GAUSSIAN,
    KernelSource,
    KindSource,
    Variant,
    variant_for,
)

ARCHITECTURES = (75, 80, 90, 120)
SPILL_LIMIT = 64
"""Bytes per thread that may be spilled: a few registers around a call are no harm, arrays in memory are."""


def reported(log: str) -> dict[str, tuple[int, int, int]]:
    """Registers, bytes of spill stores and of static shared memory per kernel, as the assembler reports them."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        registers, spilled = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes spill stores", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert registers
        assert spilled
        found[part.split("'")[0]] = int(registers[1]), int(spilled[1]), int(shared[1]) if shared else 0
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles(architecture: int, dtype: torch.dtype) -> None:
    """All variants in float32; in float64, which tests use, the largest."""
    variants = ALL_VARIANTS if dtype == torch.float32 else (Variant(8, True),)
    source = KernelSource((GAUSSIAN,), variants, dtype)
    compiled = nvrtc.load().compile(source.text(), f"sm_{architecture}", cubins.OPTIONS, verbose=True)
    assert compiled.code.startswith(b"\x7fELF")
    assert "warning" not in compiled.log, compiled.log
    kernels = reported(compiled.log)
    assert set(kernels) == {*source.kernels(), "gaussian_project", "gaussian_backward"}
    for name, (registers, spilled, shared) in sorted(kernels.items()):
        print(f"sm_{architecture} {name}: {registers} registers, {spilled} bytes spilled, {shared} bytes shared")
        assert shared <= 48 << 10, name
        # 65536 registers per multiprocessor: at least one block of 256 threads, two in float32.
        assert registers <= (128 if dtype == torch.float32 else 255), name
        if dtype == torch.float32:
            assert spilled <= SPILL_LIMIT, name


def test_a_list_of_two_kinds_compiles() -> None:
    """The kind of the second layer, from a file outside of the package, is looked up per primitive."""
    twin = KindSource("twin", GAUSSIAN.header, "GaussianKind", "", 8, 6, 8)
    one = KernelSource((GAUSSIAN,), (Variant(3, False),), torch.float32)
    two = KernelSource((GAUSSIAN, twin), (Variant(3, False),), torch.float32)
    assert one.digest() != two.digest()
    assert nvrtc.load().compile(two.text(), "sm_90", cubins.OPTIONS).code.startswith(b"\x7fELF")


def test_an_error_shows_the_compilers_words() -> None:
    with pytest.raises(nvrtc.CompileError, match="undefined_thing"):
        nvrtc.load().compile("__global__ void f() { undefined_thing(); }", "sm_90")


def test_target_of_devices_known_and_unknown() -> None:
    compiler = nvrtc.load()
    known = compiler.architectures
    assert compiler.target(90) == "sm_90"
    newest = known[-1]
    assert compiler.target(10 * (newest // 10 + 1)) == f"compute_{newest}"
    assert compiler.target(89) in ("sm_89", "sm_86")
    with pytest.raises(BackendError, match="compute capability"):
        compiler.target(10)
    assert b".target sm_" in compiler.compile('extern "C" __global__ void f() {}', f"compute_{newest}").code


@pytest.mark.parametrize(("channels", "expected"), [(3, 3), (4, 4), (5, 8), (8, 8), (9, 8), (300, 8)])
def test_variant_for_channels(channels: int, expected: int) -> None:
    assert variant_for(channels, False) == Variant(expected, False)


class Compiles:
    """Stands in for the compiler and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return b"machine code " * 100


def test_cache_keeps_what_was_compiled(tmp_path: Path) -> None:
    build, path = Compiles(), tmp_path / "below" / "entry.cubin"
    assert cubins.cached(path, build) == cubins.cached(path, build) == b"machine code " * 100
    assert build.count == 1
    assert [p.name for p in path.parent.iterdir()] == ["entry.cubin"], "scratch files were left behind"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign"])
def test_damaged_cache_entry_is_compiled_anew(tmp_path: Path, damage: str) -> None:
    build, path = Compiles(), tmp_path / "entry.cubin"
    cubins.cached(path, build)
    whole = path.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    path.write_bytes({"cut": whole[:-7], "empty": b"", "flipped": flipped, "foreign": b"\x7fELF" + whole}[damage])
    assert cubins.cached(path, build) == b"machine code " * 100
    assert build.count == 2
    assert path.read_bytes() == whole


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    build = Compiles()
    assert cubins.cached(tmp_path / "file" / "entry.cubin", build)
    assert "SMALTI_CACHE" in caplog.text


def test_first_use_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: the second time it comes out of the cache, in the folder that the environment names."""
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    source = KernelSource((GAUSSIAN,), (Variant(3, False),), torch.float32)
    code = cubins.cubin_for(source, 90)
    assert cubins.cubin_for(source, 90) == code
    assert len(caplog.records) == 1
    assert "sm_90" in caplog.text
    (entry,) = (tmp_path / "cuda").iterdir()
    assert entry.name.startswith("sm_90-")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SMALTI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cubins.cache_folder() == tmp_path / "smalti" / "cuda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cubins.cache_folder() == Path.home() / ".cache" / "smalti" / "cuda"


def test_missing_nvrtc_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMALTI_NVRTC", str(tmp_path / "libnvrtc.so.13"))
    with pytest.raises(BackendError, match="pip install nvidia-cuda-nvrtc"):
        nvrtc.load.__wrapped__()


@pytest.mark.parametrize(
    ("built", "files", "expected"),
    [
        ("12.8", ["cuda_nvrtc/lib/libnvrtc.so.12", "cuda_nvrtc/lib/libnvrtc-builtins.so.12.8"], "libnvrtc.so.12"),
        ("13.0", ["cu13/lib/libnvrtc.so.13", "cu13/lib/libnvrtc.alt.so.13"], "libnvrtc.so.13"),
        ("12.6", ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"], "libnvrtc.so.12"),
        ("13.0", ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"], "libnvrtc.so.13"),
        (None, ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"], "libnvrtc.so.13"),
    ],
)
def test_nvrtc_is_found_in_the_layouts_of_cuda_12_and_13(
    built: str | None, files: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in files:
        path = tmp_path / "nvidia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.delenv("SMALTI_NVRTC", raising=False)
    found = nvrtc.find()
    assert found is not None
    assert found.name == expected


def test_importing_the_backend_loads_no_library_of_nvidia() -> None:
    program = """
import smalti.renderers.engine.cuda, smalti.renderers.engine.launch, smalti.renderers.engine.emulator
maps = open("/proc/self/maps").read()
assert "libnvrtc" not in maps.replace("torch/lib/libnvrtc", ""), "NVRTC was loaded"
import torch
assert not torch.cuda.is_initialized()
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr

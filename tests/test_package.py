"""What is installed: import cost and side effects, the wheel's content, editable installs, no compiler at run time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGINE = "smalti/renderers/engine"
PUBLIC = "import smalti; [getattr(smalti, name) for name in smalti.__all__]"
HEAVY = (
    "matplotlib",
    "pycolmap",
    "imageio",
    "rich",
    "PIL",
    "yaml",
    "pydantic",
    "gsplat",
    "scipy",
    "hypothesis",
)


def python(code: str, *arguments: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter that finds smalti where this one does; fails on anything it says on stderr."""
    import smalti

    lines = f"import sys; sys.path.insert(0, {str(Path(smalti.__file__).parent.parent)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", *arguments, "-c", lines], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("statement", ["import smalti", PUBLIC], ids=["import", "all public names"])
def test_import_costs_little_beyond_torch(statement: str) -> None:
    code = f"import time, torch\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
    best = min(float(python(code)) for _ in range(3))
    print(f"{statement}: {best:.3f} s beyond torch")
    assert best < 0.3


def test_import_does_nothing_else() -> None:
    code = f"""
import json, os, sys, threading
import torch
loud = []
watched = ("subprocess", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket", "ctypes.dlopen")
before = threading.active_count(), len(os.listdir("/proc/self/task")), set(os.environ), torch.get_num_threads()
sys.addaudithook(lambda event, args: loud.append(event) if event.startswith(watched) else None)
{PUBLIC}
after = threading.active_count(), len(os.listdir("/proc/self/task")), set(os.environ), torch.get_num_threads()
assert before == after, (before, after)
assert not loud, loud
print(json.dumps(sorted(sys.modules)))
"""
    modules = set(json.loads(python(code)))
    baseline = set(json.loads(python("import json, sys, torch, jaxtyping\nprint(json.dumps(sorted(sys.modules)))")))
    assert [name for name in HEAVY if name in modules - baseline] == []


def test_version_is_written_once() -> None:
    import smalti

    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated is not None
    assert smalti.__version__ == stated.group(1)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this source tree, built by its own hook."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_content(wheel: Path) -> None:
    assert re.fullmatch(r"smalti-[^-]+-py3-none-\w+\.whl", wheel.name)
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        unpacked = sum(entry.file_size for entry in archive.infolist())
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, unpacked {unpacked / 1e6:.2f} MB, {len(names)} files")
    libraries = {Path(name).stem.removeprefix("smalti_") for name in names if name.endswith(".so")}
    assert libraries in ({"avx512", "avx2", "baseline", "double"}, {"baseline", "double"})
    headers = {str(path.relative_to(ROOT)) for path in (ROOT / ENGINE / "include").rglob("*.h")}
    assert headers
    assert headers <= names
    demo = {str(path.relative_to(ROOT)) for path in (ROOT / "smalti/datasets/demo").rglob("*") if path.is_file()}
    assert len(demo) == 55
    assert demo <= names
    assert "smalti/py.typed" in names
    strangers = [
        name for name in names if name.split("/")[0] not in ("smalti", f"smalti-{wheel.name.split('-')[1]}.dist-info")
    ]
    assert strangers == []
    assert not [name for name in names if re.search(r"\.(tmp|pyc|o)$|/tests?/test_", name)]
    assert wheel.stat().st_size < 12e6


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


RENDER = """
import os, shutil, sys
import torch
sys.path.insert(0, sys.argv[1])

def forbid(event, args):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"):
        raise RuntimeError(f"started a process: {event} {args}")

sys.addaudithook(forbid)
assert not any(map(shutil.which, ("g++", "c++", "gcc", "cc", "clang", "nvcc", "ziglang"))), os.environ["PATH"]
import smalti
assert smalti.__file__.startswith(sys.argv[1]), smalti.__file__
means = torch.zeros(1, 3, requires_grad=True)
one = smalti.GaussianDrawable(
    means, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.2), torch.tensor([0.8]), torch.ones(1, 3)
)
camera = smalti.Camera.look_at(
    torch.tensor([0.0, 0.0, -2.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (64, 48)
)
frame = smalti.render([one], camera, backend="cpu")
assert frame.color.shape == (48, 64, 3)
assert 0.5 < float(frame.alpha.max()) <= 0.8
frame.color[:, :32].sum().backward()
assert float(means.grad.abs().max()) > 0
print("rendered")
"""


def test_installed_wheel_needs_no_compiler(wheel: Path, tmp_path: Path) -> None:
    site = unpack(wheel, tmp_path / "site")
    empty = tmp_path / "bin"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC", "PYTHONPATH")} | {"PATH": str(empty)}
    command = [sys.executable, "-P", "-c", RENDER, str(site)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("rendered\n")


def test_editable_install(tmp_path: Path, wheel: Path) -> None:
    """`pip install -e .` points at the source tree, where the libraries lie too (the wheel's build put them there)."""
    target = tmp_path / "site"
    command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), "-e", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import site, sys; site.addsitedir(sys.argv[1]); import smalti; print(smalti.__file__)"  # -S: only that folder
    )
    found = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code, str(target)], capture_output=True, text=True, cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert found.stdout.strip() == str(ROOT / "smalti" / "__init__.py"), found.stderr
    assert (ROOT / ENGINE / "lib" / "smalti_baseline.so").is_file()

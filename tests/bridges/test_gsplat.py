"""gsplat's dictionaries and checkpoints: the same bits there and back, the same picture, nothing run on the way."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.bridges import gsplat as bridge
from smalti.cli.main import main
from smalti.files import read_scene_file, write_scene_file
from smalti.files.splats import FileFormatError
from smalti.primitives.gaussians import Gaussians
from smalti.renderers.render import render
from smalti.scene import demo_camera


def splats(count: int = 40, coefficients: int = 15, seed: int = 0) -> dict[str, Tensor]:
    """What the example trainer's ParameterDict holds."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "means": normal(count, 3),
        "scales": 0.3 * normal(count, 3) - 1.5,
        "quats": normal(count, 4),
        "opacities": normal(count),
        "sh0": normal(count, 1, 3),
        "shN": 0.2 * normal(count, coefficients, 3),
    }


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_dictionaries_round_trip_bit_for_bit(coefficients: int) -> None:
    given = splats(coefficients=coefficients)
    held = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in given.items()})
    family = bridge.from_splats(held)  # type: ignore[arg-type]
    assert equal(bridge.to_splats(family), given)
    assert family.held_degree == {0: 0, 3: 1, 8: 2, 15: 3}[coefficients] == family.metadata["active_sh_degree"]
    family.parameters["means"].data.add_(1.0)
    assert torch.equal(held["means"], given["means"])  # copies: training one leaves the other alone


def test_its_picture_is_gsplats(monkeypatch: pytest.MonkeyPatch) -> None:
    """By gsplat's own references of projection and harmonics."""
    pytest.importorskip("gsplat", reason="gsplat (an extra of the tests) is not installed")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "renderers"))
    import gsplat_on_cpu  # type: ignore[import-not-found]

    given = {**splats(), "opacities": splats()["opacities"].clamp_max(2.0)}
    family = bridge.from_splats(given, eps2d=0.1, rasterize_mode="antialiased", sh_degree=2)
    camera = demo_camera().scaled_to(40, 30)
    picture, alpha, _ = gsplat_on_cpu.rasterization(**bridge.rasterization_arguments(family, camera), packed=False)
    ours = render(list(family.drawables(camera)), camera)
    assert float(ours.alpha.detach().max()) > 0.5
    assert ((picture[0] - ours.color).abs() > 1e-3).float().mean() < 5e-3  # thresholds and the last event of a ray
    assert ((alpha[0, ..., 0] - ours.alpha).abs() > 1e-3).float().mean() < 5e-3


def test_views_there_and_back() -> None:
    camera = demo_camera()
    family = bridge.from_splats(splats())
    given = bridge.rasterization_arguments(family, camera)
    viewmats = given["viewmats"].clone().requires_grad_()
    (again,) = bridge.from_views(viewmats, given["Ks"], given["width"], given["height"])
    for name in ("rotation", "translation", "intrinsics"):
        assert torch.equal(getattr(again, name), getattr(camera, name))
    assert (again.width, again.height) == (camera.width, camera.height)
    render(list(family.drawables(again)), again).color.sum().backward()
    assert viewmats.grad is not None
    assert float(viewmats.grad.abs().sum()) > 0
    skewed = given["Ks"].clone()
    skewed[0, 0, 1] = 0.5
    with pytest.raises(ValueError, match="view 0 is no pinhole"):
        bridge.from_views(viewmats, skewed, 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sh0": None}, "sh0 are missing"),
        ({"sh0": None, "features": torch.zeros(40, 32), "colors": torch.zeros(40, 3)}, "appearance model"),
        ({"shN": torch.zeros(40, 24, 3)}, "degrees end at 3"),
        ({"opacities": torch.zeros(40, 1)}, r"opacities: expected the shape \(40,\), got \(40, 1\)"),
        ({"quats": torch.zeros(39, 4)}, "quats"),
        ({"means": torch.zeros(())}, "means"),
    ],
)
def test_other_dictionaries_are_refused(change: dict[str, Any], words: str) -> None:
    given = {name: value for name, value in {**splats(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        bridge.from_splats(given)


def test_modes_and_degrees_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="classic or antialiased"):
        bridge.from_splats(splats(), rasterize_mode="sharp")
    with pytest.raises(ValueError, match="0 to 1"):
        bridge.from_splats(splats(coefficients=3), sh_degree=2)


def saved(path: Path, held: dict[str, Tensor], **more: Any) -> Path:
    """As the example trainer saves it: the state of a ParameterDict beside a step."""
    parameters = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in held.items()})
    torch.save({"step": 29999, "splats": parameters.state_dict(), **more}, path)
    return path


def test_checkpoints_round_trip_bit_for_bit(tmp_path: Path) -> None:
    given = splats()
    family = bridge.load_checkpoint(
        saved(tmp_path / "ckpt_29999.pt", given, pose_adjust={"embeds.weight": torch.ones(2)})
    )
    assert equal(bridge.to_splats(family), given)
    assert bridge.save_checkpoint(tmp_path / "again.pt", family) == ()
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert equal(again["splats"], given)
    assert again["step"] == 0


def test_what_a_checkpoint_cannot_say_is_said(tmp_path: Path) -> None:
    family = bridge.from_splats(splats(), eps2d=0.1, rasterize_mode="antialiased")
    (sentence,) = bridge.save_checkpoint(tmp_path / "a.pt", family)
    assert "eps2d=0.1, rasterize_mode=antialiased" in sentence


def test_ranks_of_one_step_are_one_scene(tmp_path: Path) -> None:
    parts = [splats(10 + k, seed=k) for k in range(11)]
    for rank, part in enumerate(parts):
        saved(tmp_path / f"ckpt_6999_rank{rank}.pt", part)
    saved(tmp_path / "ckpt_29999_rank0.pt", splats(99))
    read = read_scene_file(tmp_path / "ckpt_6999_rank3.pt")
    assert np.array_equal(read.means, torch.cat([part["means"] for part in parts]).numpy())
    assert any("11 files" in notice for notice in read.notices)
    assert len(read_scene_file(tmp_path / "ckpt_29999_rank0.pt")) == 99


def test_commands_take_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = splats()
    path = saved(tmp_path / "ckpt_6999_rank0.pt", given)
    assert main(["convert", str(path), str(tmp_path / "a.ply")]) == 0
    assert "normalised frame" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "a.ply"), str(tmp_path / "b.pt")]) == 0
    assert equal(bridge.to_splats(bridge.load_checkpoint(tmp_path / "b.pt")), given)
    assert main(["info", str(path)]) == 0
    assert "gsplat checkpoint" in capsys.readouterr().out


class Evil:
    """An object whose unpickling would run a function."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_hostile_files_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"step": 0, "splats": splats(), "extra": Evil()}, "evil.pt")
    with pytest.raises(FileFormatError, match=r"evil\.pt: cannot be read"):
        read_scene_file("evil.pt")
    assert not (tmp_path / "ran").exists()


def test_hostile_files_take_no_memory(tmp_path: Path) -> None:
    huge = {**splats(), "means": torch.zeros(1, 3).expand(1 << 40, 3)}
    torch.save({"splats": huge}, tmp_path / "huge.pt")
    with pytest.raises(FileFormatError, match="no tensor of numbers that the file holds"):
        read_scene_file(tmp_path / "huge.pt")
    good, bomb = saved(tmp_path / "good.pt", splats()), tmp_path / "bomb.pt"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry) + b"\0" * (1 << 22))
    with pytest.raises(FileFormatError, match="packed or oversized"):
        read_scene_file(bomb)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([1, 2], "no dictionary"),
        ({"model": {}}, "no dictionary"),
        ({"splats": {"means": "text"}}, "`means` is no tensor"),
        ({"splats": {**splats(), "means": torch.zeros(40, 3, dtype=torch.int64)}}, "`means` is no tensor"),
        ({"splats": {**splats(), "means": torch.zeros(40, 3, device="meta")}}, "`means` is no tensor"),
        ({"splats": {**splats(), "scales": torch.full((40, 3), torch.nan)}}, "NaN or Inf in log_scales in 40 row"),
        ({"splats": {"means": torch.zeros(3, 3)}}, "are missing"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, held: Any, words: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(FileFormatError, match=words):
        read_scene_file(tmp_path / "a.pt")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    raw = saved(tmp_path / "a.pt", splats(20, 3)).read_bytes()
    path, refused = tmp_path / "b.pt", 0
    for length in {*range(0, 64, 7), *range(64, len(raw) - 1, 97)}:
        path.write_bytes(raw[:length])
        with pytest.raises(FileFormatError):
            read_scene_file(path)
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(raw)
        changed[int(rng.integers(0, len(raw)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            assert np.isfinite(read_scene_file(path).means).all()
        except FileFormatError:
            refused += 1
    assert refused > 10


def test_legacy_pickles_are_refused(tmp_path: Path) -> None:
    torch.save({"splats": splats()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(FileFormatError, match="is no torch archive"):
        read_scene_file(tmp_path / "old.pt")


def test_a_family_of_files_goes_through_unchanged(tmp_path: Path) -> None:
    """Chunks and transforms are the concern of other writers: this one is given whole rows."""
    family = Gaussians.from_points(torch.rand(7, 3), torch.rand(7, 3), {"sh_degree": 1})
    assert bridge.save_checkpoint(tmp_path / "a.pt", family) == ()
    write_scene_file(tmp_path / "a.ply", read_scene_file(tmp_path / "a.pt"))
    assert np.array_equal(read_scene_file(tmp_path / "a.ply").sh_dc, family.parameters["sh_dc"].detach().numpy())

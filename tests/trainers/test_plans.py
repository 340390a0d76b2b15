"""What a configuration names wrongly is refused before the data is touched, as far as it can be known then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smalti.cli.main import main
from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, preset_names, resolve
from smalti.primitives.gaussians import Gaussians
from smalti.trainers.lpips import LpipsUnavailable
from smalti.trainers.perceptual import KINDS
from smalti.trainers.plans import require_known_names
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
WEIGHTS = "schedule.weights"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("gaussians", {WEIGHTS: [[9, "opacty", 0.5]]}, r"schedule.weights: no loss term is called 'opacty'.*'opacity'"),
    ("blocks", {WEIGHTS: [[9, "blocks/anisotropy", 0.0]]}, "no loss term is called 'blocks/anisotropy'"),
    ("blocks", {WEIGHTS: [[9, "grund/total_variation", 0.0]]}, "did you mean 'ground/total_variation'"),
    ("gaussians", {WEIGHTS: [[9, "dssim", 9.0]]}, "dssim would become 1.8"),
    ("gaussians", {"regularizers.volume": 0.1}, "scene.gaussians.regularizers: no loss term is called 'volume'"),
    ("gaussians", {"learning_rates.meens": 0.1}, "no parameter is called 'meens'.*did you mean 'means'"),
    ("gaussians", {"initializer": "pionts"}, "scene.gaussians.initializer: 'pionts' is not known.*'points'"),
    ("gaussians", {"settings.cuont": 3}, "scene.gaussians.settings: unknown setting 'cuont'.*'count'"),
    ("gaussians", {"metadata.sh_degre": 2}, "unknown metadata 'sh_degre'; did you mean 'sh_degree'"),
    ("gaussians", {"family": "gausians"}, "no primitive family is called 'gausians'; did you mean 'gaussians'"),
]


@pytest.mark.parametrize(("preset", "options", "message"), WRONG)
def test_before_any_picture_is_read(
    preset: str, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "dataset", lambda self: pytest.fail("the data was opened"))
    with pytest.raises(ValueError, match=message):
        Trainer(Run.planned(tmp_path / "run", resolve(preset, {"data.path": "demo", **options})))
    assert list(tmp_path.iterdir()) == []


def test_a_perceptual_network_that_is_not_here_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smalti.trainers import lpips

    monkeypatch.setattr(Run, "dataset", lambda self: pytest.fail("the data was opened"))
    monkeypatch.setattr(lpips, "cache_path", lambda name: tmp_path / "none")
    monkeypatch.setattr(lpips, "source_path", lambda name: None)
    assert not KINDS["lpips"].is_here()
    config = resolve("gaussians", {"data.path": "demo", "loss.perceptual": 0.1, "perceptual_kind": "lpips"})
    with pytest.raises(LpipsUnavailable, match="pip install"):
        Trainer(Run.planned(tmp_path / "run", config))
    require_known_names(resolve("gaussians", {"data.path": "demo", "perceptual_kind": "lpips"}))  # its weight is 0


@pytest.mark.parametrize("preset", preset_names())
def test_all_presets_know_their_names(preset: str) -> None:
    require_known_names(resolve(preset))


def test_a_family_that_says_its_terms_only_of_data_is_judged_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object) -> Gaussians:
        raise NotImplementedError("no such thing as a random one")

    monkeypatch.setattr(Gaussians, "at_random", unable)
    config = resolve(
        "gaussians",
        {"data.path": "demo", "data.downscale": 8, "data.points": "frustum", WEIGHTS: [[9, "gaussians/opacty", 0.5]]},
    )
    require_known_names(config)
    with pytest.raises(ConfigError, match="no loss term is called 'gaussians/opacty'"):
        Trainer(Run.planned(tmp_path / "run", config))
    config.schedule.weights = [(9, "gaussians/opacity", 0.5)]
    Trainer(Run.planned(tmp_path / "run", config))


def test_of_several_seeds_no_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("smalti.trainers.seed_processes.Worker", lambda *_: pytest.fail("a process was started"))
    wrong = ["--regularizers.opacty", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "gaussians", "--data", "demo", "--seeds", "3", *wrong]) == 2
    assert capsys.readouterr().err.count("no loss term is called 'opacty'") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_without_layers_is_left_to_the_trainer() -> None:
    require_known_names(TrainConfig())

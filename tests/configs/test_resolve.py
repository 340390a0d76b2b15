"""Configuration: precedence, errors with near misses, the saved file starts the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from smalti.cli.failures import UsageError
from smalti.cli.train import help_text, main, read_call
from smalti.configs.config import TrainConfig, parse_bytes
from smalti.configs.resolve import ConfigError, fields, full_name, load, parse_value, preset_names, resolve, save
from smalti.configs.stretch import beyond_the_end


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_says_its_name(name: str) -> None:
    assert resolve(name).preset == name
    assert resolve(name).scene


def test_command_line_beats_file_beats_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: gaussians-fast\nrun:\n  steps: 77\n  seed: 5\n")
    config = resolve(str(file), {"seed": 9})
    assert (config.run.steps, config.run.seed) == (77, 9)
    assert config.density.rule == resolve("gaussians-fast").density.rule == "mcmc"


def test_the_saved_configuration_starts_the_same_run(tmp_path: Path) -> None:
    config = resolve("demo", {"steps": 5, "optimizer.learning_rates.means": 1e-3, "model.metadata.sh_degree": 1})
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    assert resolve(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"run.stepz": 3}, "did you mean 'run.steps'"),
        ({"dssm": 3}, "did you mean 'dssim'"),
        ({"start": 3}, "density.start, refine.start"),
        ({"run.steps": "many"}, "run.steps: .*integer"),
        ({"density.budget": "12QB"}, "not a size"),
        ({"density.rule": "mcmcc"}, "density.rule"),
        ({"schedule.resolution": [[30, 2], [20, 1]]}, "steps must rise"),
        ({"run.steps": float("nan")}, "run.steps"),
    ],
)
def test_bad_options_say_what_to_write(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("gaussians", overrides)


def test_a_stretched_run_keeps_its_proportions_and_is_saved_as_it_became(tmp_path: Path) -> None:
    config = resolve("gaussians-fast", {"stretch": 0.125, "contribution.at": [800, 801], "gradient.reset_every": 0})
    assert (config.run.steps, config.density.start, config.density.stop) == (500, 12, 400)
    assert config.schedule.resolution == [(38, 4), (125, 2)]
    assert (config.schedule.sh_every, config.contribution.at, config.gradient.reset_every) == (75, [100], 0)
    assert (config.density.every, config.run.stretch) == (50, 1.0)
    save(config, tmp_path / "config.yaml")
    assert resolve(str(tmp_path / "config.yaml")) == config
    assert resolve("gaussians-fast", {"stretch": 0.0005}).schedule.resolution == [(1, 2)]


def test_keys_of_a_mapping_need_no_section() -> None:
    config = resolve("gaussians", {"learning_rates.means": 1e-3, "metadata.sh_degree": 1})
    assert config.scene[0].learning_rates["means"] == 1e-3
    assert config.scene[0].metadata["sh_degree"] == 1


def test_a_run_says_what_it_is_too_short_for() -> None:
    assert [beyond_the_end(resolve(name)) for name in preset_names()] == [[]] * len(preset_names())
    assert beyond_the_end(resolve("gaussians-fast", {"stretch": 0.125})) == []
    late = beyond_the_end(resolve("gaussians-fast", {"steps": 500, "contribution.at": [400, 600], "warmup": 500}))
    assert [phrase.split(" (")[0] for phrase in late] == [
        "growth goes on to the end",
        "pictures are never seen at full resolution",
        "colours never depend on the direction",
        "contribution.at=600 never comes",
        "rates are still rising at the end",
    ]


def test_unknown_keys_in_a_file_name_file_key_and_near_miss(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("density:\n  max_primitve: 3\n")
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: unknown key density\.max_primitve; did you mean density\.max_primitives"
    ):
        resolve(str(file))
    file.write_text("density: 3\n")
    with pytest.raises(ConfigError, match="expected a section"):
        resolve(str(file))
    file.write_text("density: [\n")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        resolve(str(file))


def test_an_unknown_preset_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gaussians-fast'"):
        resolve("gaussians-fst")


def test_every_option_is_documented() -> None:
    undocumented = [name for name, text, _ in fields() if not text and "." in name]
    assert undocumented == []
    assert "--density.budget" in help_text()
    assert "Possible: auto, file, triangulate, hull, frustum." in " ".join(help_text().split())


def test_help_of_a_preset_shows_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run.steps (default 30000)" in help_text()
    assert main(["gaussians-fast", "--help"]) == 0
    assert "--run.steps (default 4000)" in capsys.readouterr().out
    assert main(["gaussians-fst", "--help"]) == 2
    assert "did you mean 'gaussians-fast'" in capsys.readouterr().err


def test_sizes() -> None:
    assert [parse_bytes(text) for text in ("256MB", "1.5 GiB", "4096", "2kb")] == [256_000_000, 1610612736, 4096, 2000]
    for bad in ("", "MB", "12 apples", "-3MB", "0", "inf", "nan MB"):
        with pytest.raises(ValueError, match="size"):
            parse_bytes(bad)
    config = resolve("gaussians", {"density.model": 400_000, "density.budget": 1.5e9})  # numbers are bytes
    assert parse_bytes(config.density.model) == 400_000
    assert parse_bytes(config.density.budget) == 1_500_000_000
    for worse in (0, -5, True):
        with pytest.raises(ConfigError, match=r"density.model: .*(size|valid string)"):
            resolve("gaussians", {"density.model": worse})


def test_command_lines_are_read() -> None:
    call = read_call(
        [
            "gaussians",
            "--data",
            "x",
            "--set",
            "run.steps=1e3",
            "--dssim=0.5",
            "--eval-at-cpu-seconds",
            "[1, 2]",
            "--out",
            "o",
        ]
    )
    assert (call.source, call.data, call.out) == ("gaussians", "x", "o")
    assert call.overrides == {"run.steps": 1000.0, "loss.dssim": 0.5, "run.eval_at_cpu_seconds": [1, 2]}
    assert resolve(call.source, call.overrides).run.steps == 1000
    assert parse_value("null") is None
    assert parse_value("every:8") == "every:8"
    assert parse_value("[evaluation, video]") == ["evaluation", "video"]
    assert parse_value("1e-3") == 0.001


@pytest.mark.parametrize(
    "arguments",
    [
        ["gaussians", "twice"],
        ["gaussians", "--data"],
        ["--resume", "r", "--stretch", "3"],
        ["--resume", "r", "--data", "x"],
        ["--data", "x"],
        ["g", "--set", "a"],
    ],
)
def test_bad_command_lines_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        read_call(arguments)


def test_defaults_validate() -> None:
    assert TrainConfig().run.steps == 30_000


@pytest.mark.parametrize(
    ("short", "full"),
    [("every", "density.every"), ("margin", "exchange.margin"), ("exchange.every", "exchange.every")],
)
def test_a_common_word_keeps_its_short_name_beside_sections_that_are_spelled_out(short: str, full: str) -> None:
    assert full_name(short) == full


def test_short_names_that_several_sections_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"option 'start' is in several sections: .*density\.start"):
        full_name("start")

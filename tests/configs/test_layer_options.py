"""Layers in configurations: lists in files, the former options, the command line, errors that name the layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from smalti.cli.train import help_text, read_call
from smalti.configs.resolve import ConfigError, load, resolve, save

TWO = "scene:\n  - {name: body, family: meshes, settings: {faces: 10}, initializer: hull}\n  - {family: gaussians}\n"


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


def test_a_list_replaces_the_presets_layers_and_the_saved_file_starts_the_same_run(tmp_path: Path) -> None:
    config = resolve(written(tmp_path, "preset: gaussians-fast\n" + TWO))
    assert [(layer.name, layer.family) for layer in config.scene] == [("body", "meshes"), ("gaussians", "gaussians")]
    assert config.density.rule == "mcmc"
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config == resolve(str(tmp_path / "config.yaml"))


def test_the_command_line_changes_one_layer(tmp_path: Path) -> None:
    source = written(tmp_path, TWO)
    config = resolve(source, {"scene.body.settings.faces": 77, "scene.gaussians.frozen": True})
    assert config.scene[0].settings == {"faces": 77}
    assert [layer.frozen for layer in config.scene] == [False, True]
    alone = resolve("gaussians-fast", {"frozen": True, "metadata.sh_degree": 1, "learning-rates.means": 1.0})
    assert alone.scene[0].frozen
    assert alone.scene[0].metadata["sh_degree"] == 1
    assert alone.scene[0].metadata["initial_opacity"] == 0.3
    call = read_call(["mixed", "--scene.fuzz.metadata.sh_degree", "1", "--scene", "[{family: surfels}]"])
    assert call.overrides == {"scene.fuzz.metadata.sh_degree": 1, "scene": [{"family": "surfels"}]}


def test_what_belonged_to_another_family_or_initializer_goes_with_it(tmp_path: Path) -> None:
    config = resolve(written(tmp_path, TWO), {"scene.body.initializer": "spheres"})
    assert config.scene[0].settings == {}
    same = resolve(written(tmp_path, TWO), {"scene.body.initializer": "hull"})
    assert same.scene[0].settings == {"faces": 10}
    other = resolve("gaussians-fast", {"family": "surfels", "metadata.sh_degree": 0}).scene[0]
    assert (other.metadata, other.learning_rates) == ({"sh_degree": 0}, {})


def test_the_former_options_are_read_as_one_layer(tmp_path: Path) -> None:
    model = {"family": "gaussians", "metadata": {"sh_degree": 1}, "order": "centre"}
    text = yaml.safe_dump({"model": model, "optimizer": {"learning_rates": {"means": 0.5}}})
    (layer,) = resolve(written(tmp_path, text)).scene
    assert (layer.family, layer.metadata, layer.learning_rates) == ("gaussians", {"sh_degree": 1}, {"means": 0.5})
    assert load(tmp_path / "mine.yaml").model.order == "centre"
    over = resolve(written(tmp_path, "preset: gaussians-fast\nmodel: {metadata: {sh_degree: 1}}\n")).scene[0]
    assert over.metadata == {"sh_degree": 1, "initial_opacity": 0.3, "initial_scale": 0.7}
    assert over.learning_rates["means"] == 3.2e-4
    assert resolve("gaussians", {"model.metadata.sh_degree": 0}).scene[0].metadata == {"sh_degree": 0}
    empty = {"model": {"family": "", "metadata": {}}, "optimizer": {"learning_rates": {}}}
    assert resolve(written(tmp_path, yaml.safe_dump(empty))).scene == []


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            TWO,
            {"metadata.sh_degree": 1},
            "the scene has the layers body, gaussians; write scene.NAME.metadata.sh_degree",
        ),
        (TWO, {"scene.bdy.frozen": True}, "no layer is called 'bdy'; did you mean 'body'"),
        (TWO + "model: {family: gaussians}\n", {}, "belong to a scene of one layer"),
        (TWO.replace("name: body", "name: gaussians"), {}, "two layers are called 'gaussians'"),
        (TWO.replace("name: body", "nmae: body"), {}, "unknown key scene.0.nmae; did you mean scene.0.name"),
        (TWO.replace("family: meshes, ", ""), {}, "scene.0.family: Field required"),
        (TWO.replace("name: body", "name: a/b"), {}, "scene.0.name"),
        ("scene: {family: gaussians}\n", {}, "expected a list of layers"),
        ("optimizer: {learning_rates: {means: 1}}\n", {}, "the scene has not one layer but 0"),
    ],
)
def test_what_is_wrong_with_a_layer_is_said(
    text: str, overrides: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(written(tmp_path, text), overrides)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scene.body.famly", r"did you mean scene\.body\.family"),
        ("scene.body", "write scene.NAME.FIELD"),
        ("frozen.now", r"scene\.\*\.frozen takes a value"),
        ("initialzer", "did you mean 'initializer'"),
    ],
)
def test_options_of_layers_that_do_not_exist_name_the_near_miss(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_call(["gaussians", f"--{name}", "1"])


def test_the_help_of_a_preset_shows_its_layers() -> None:
    text = help_text("mixed")
    assert "--scene.NAME.family (surface: 'meshes', fuzz: 'gaussians')" in text
    assert "Possible: none, gradient, mcmc." in text

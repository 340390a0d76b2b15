"""A scene as a folder: `scene.safetensors` beside `scene.json`, layers of any family, as a checkpoint holds them."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError

from smalti.scene.scene import Scene

TENSORS, PLAIN = "scene.safetensors", "scene.json"


class SceneFolderError(ValueError):
    """A folder that holds no scene, or a damaged one."""


def is_scene_folder(path: Path | str) -> bool:
    """Whether there is a scene in this folder."""
    return (Path(path) / PLAIN).is_file()


def save_scene(scene: Scene, folder: Path | str) -> int:
    """Write the scene into `folder`, which is made where it is not there; returns the number of bytes."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, plain = scene.state()
    portable = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    save_file(portable, folder / TENSORS)
    (folder / PLAIN).write_text(json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8")
    return sum((folder / name).stat().st_size for name in (TENSORS, PLAIN))


def load_scene(folder: Path | str) -> Scene:
    """The scene that `save_scene` wrote, on the CPU. SceneFolderError where there is none or it is damaged."""
    folder = Path(folder)
    if not is_scene_folder(folder):
        raise SceneFolderError(f"{folder}: no scene is there (no {PLAIN})")
    try:
        return read_scene_folder(folder)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise SceneFolderError(
            f"{folder}: the scene is damaged ({type(error).__name__}: {error}); export it again"
        ) from error


def read_scene_folder(folder: Path) -> Scene:
    """As `load_scene`, with the errors of whatever is wrong."""
    from safetensors.torch import load_file

    plain = json.loads((folder / PLAIN).read_text(encoding="utf-8"))
    return Scene.from_state(load_file(folder / TENSORS), plain)

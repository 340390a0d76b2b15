"""Scenes on disk: a folder (`scene.safetensors` beside `scene.json`, as a checkpoint holds them) or one file."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError

from smalti.files.checked import whole_file
from smalti.files.splats import FileFormatError
from smalti.files.strict_json import strict_json
from smalti.scene.plain import EXPORT_AGAIN, SceneFileError, scene_from
from smalti.scene.scene import Scene
from smalti.scene.single_file import is_scene_file, load_scene_file, save_scene_file, write_tensors

TENSORS, PLAIN = "scene.safetensors", "scene.json"
MOST_PLAIN = 16 << 20
"""Bytes of `scene.json` that are read."""


class SceneFolderError(SceneFileError):
    """A folder that holds no scene, or a damaged one."""


def is_scene_folder(path: Path | str) -> bool:
    """Whether there is a scene in this folder."""
    return (Path(path) / PLAIN).is_file()


def is_scene(path: Path | str) -> bool:
    """Whether `load_scene` is what reads this: a scene folder, or a file whose name says that it is a scene.

    >>> from smalti.scene.folder import is_scene
    >>> is_scene("chair.smalti"), is_scene("chair.ply")
    (True, False)
    """
    return is_scene_folder(path) or (is_scene_file(path) and not Path(path).is_dir())


def save_scene(scene: Scene, path: Path | str) -> int:
    """Write the scene into a folder, which is made where it is not there, or into one file where the path ends with
    `.smalti`; returns the number of bytes.
    """
    path = Path(path)
    if is_scene_file(path) and not path.is_dir():
        return save_scene_file(scene, path)
    path.mkdir(parents=True, exist_ok=True)
    tensors, plain = scene.state()
    size = write_tensors(path / TENSORS, tensors)
    text = json.dumps(plain, indent=1, sort_keys=True).encode("utf-8")
    with whole_file(path / PLAIN) as stream:
        stream.write(text)
    return size + len(text)


def load_scene(path: Path | str) -> Scene:
    """The scene that `save_scene` wrote, on the CPU. SceneFileError where there is none or it is damaged; of a folder,
    its kind SceneFolderError.
    """
    path = Path(path)
    if is_scene_file(path) and not path.is_dir():
        return load_scene_file(path)
    if not is_scene_folder(path):
        raise SceneFolderError(path, f"no scene is there (no {PLAIN})", "Give a scene folder or a `.smalti` file")
    try:
        from safetensors.torch import load_file

        if (path / PLAIN).stat().st_size > MOST_PLAIN:
            raise SceneFolderError(path, f"the scene is damaged ({PLAIN} is too large)", EXPORT_AGAIN)
        plain = strict_json(path, (path / PLAIN).read_bytes(), PLAIN)
        return scene_from(path, load_file(path / TENSORS), plain)
    except SceneFolderError:
        raise
    except FileFormatError as error:
        raise SceneFolderError(path, error.problem, error.remedy) from error
    except (OSError, SafetensorError) as error:
        raise SceneFolderError(path, f"the scene is damaged ({type(error).__name__}: {error})", EXPORT_AGAIN) from error


def read_scene_folder(folder: Path) -> Scene:
    """As `load_scene`, with the errors of whatever is wrong."""
    from safetensors.torch import load_file

    plain = json.loads((folder / PLAIN).read_text(encoding="utf-8"))
    return Scene.from_state(load_file(folder / TENSORS), plain)

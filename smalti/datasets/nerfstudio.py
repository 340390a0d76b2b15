"""Any of nerfstudio's data parsers as a source: `format="nerfstudio"`, `"nerfstudio:colmap"`, with options
`"nerfstudio:nerfstudio-data,eval_mode=interval,eval_interval=4"`.

Only asked for by name: what it would recognise, our own readers do. nerfstudio is imported when it is used and not
otherwise. The parser's orientation, centring and scale are undone, so that cameras and points are in the frame of the
data that the parser names as the original: for `nerfstudio-data` with an `applied_transform`, the one before that.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from smalti.datasets.dataset import Dataset, DatasetError, Notice
from smalti.datasets.nerfstudio_outputs import dataset_from_outputs

LOOKS_FOR = ""
USUAL = "nerfstudio-data"
WITHOUT = "Install nerfstudio (docs/coming-from-nerfstudio.md says how), or read the files without it"


def detect(path: Path) -> bool:
    """Never: the format is asked for by name."""
    return False


def read(path: Path) -> Dataset:
    """What `nerfstudio-data` makes of the folder or file. Raises `DatasetError`."""
    return Parser(USUAL, {}).read(path)


def variant(choice: str) -> Parser:
    """The format that follows `nerfstudio:`; a parser's name and options as NAME=VALUE, with commas between."""
    name, *pairs = choice.split(",")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise DatasetError(f"nerfstudio:{choice}", "", f"{pair!r} is no option", "Write NAME=VALUE")
        try:
            options[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise DatasetError(f"nerfstudio:{choice}", key, f"{value!r} is no value", "Write it as in YAML") from error
    return Parser(name or USUAL, options)


@dataclasses.dataclass(frozen=True)
class Parser:
    """One of nerfstudio's parsers, with its options."""

    name: str
    options: dict[str, Any]
    LOOKS_FOR = LOOKS_FOR

    def detect(self, path: Path) -> bool:
        """Never."""
        return False

    def read(self, path: Path) -> Dataset:
        """What the parser makes of it, in the input's frame. Raises `DatasetError`."""
        parser = self._parser(path)
        parts = [("train", self._outputs(parser, path, "train"))]
        silent: list[str] = []
        for split in ("test", "val"):
            try:
                parts.append(("test", self._outputs(parser, path, split)))
                break
            except DatasetError as error:
                silent.append(error.problem)
        dataset = dataset_from_outputs(path, parts)
        if len(parts) == 1:
            text = f"nerfstudio's parser {self.name} holds no pictures out ({silent[0]})"
            dataset = dataset.with_notices(Notice("no-test-split", text))
        return dataset

    def _parser(self, path: Path) -> Any:
        where = f"nerfstudio:{self.name}"
        try:
            known = importlib.import_module("nerfstudio.configs.dataparser_configs").all_dataparsers
        except ImportError as error:
            remedy = WITHOUT + (": --data-format transforms" if self.name == USUAL else "")
            raise DatasetError(path, where, f"nerfstudio cannot be imported ({error})", remedy) from error
        if self.name not in known:
            near = get_close_matches(self.name, known, 1, 0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DatasetError(
                path, where, "nerfstudio has no such data parser", f"{hint}It has {', '.join(sorted(known))}"
            )
        config = known[self.name]
        fields = {field.name for field in dataclasses.fields(config)} - {"_target", "data"}
        options = dict(self.options)
        for key, value in options.items():
            if key not in fields:
                near = get_close_matches(key, fields, 1, 0.4)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DatasetError(
                    path, where, f"the parser has no option {key!r}", f"{hint}{', '.join(sorted(fields))}"
                )
            options[key] = Path(value) if isinstance(getattr(config, key), Path) else value
        if "load_3D_points" in fields and importlib.util.find_spec("open3d") is not None:
            options.setdefault("load_3D_points", True)  # nerfstudio reads them with Open3D
        return dataclasses.replace(config, data=path, **options).setup()

    def _outputs(self, parser: Any, path: Path, split: str) -> Any:
        try:
            return parser.get_dataparser_outputs(split=split)
        except Exception as error:  # each of nerfstudio's parsers fails in its own way
            problem = f"the split {split!r} cannot be read ({type(error).__name__}: {error})"
            raise DatasetError(path, f"nerfstudio:{self.name}", problem, "See the parser's own requirements") from error

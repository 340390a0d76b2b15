from __future__ import annotations

from pathlib import Path

import pytest

from smalti.configs.resolve import resolve
from smalti.trainers.run import Run


def test_of_two_that_start_in_one_folder_the_first_has_it(tmp_path: Path) -> None:
    """Both are planned while there is nothing yet; building a scene takes them seconds."""
    configs = [resolve("gaussians-fast", {"data.path": "demo", "steps": steps}) for steps in (80, 120)]
    first, second = (Run.planned(tmp_path / "run", config) for config in configs)
    first.begin()
    written = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(FileExistsError, match="taken by another run"):
        second.begin()
    assert (tmp_path / "run" / "config.yaml").read_bytes() == written
    first.begin()
    assert Run.open(tmp_path / "run").config == configs[0]
